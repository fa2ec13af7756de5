"""How a device stands to a message: has it, is there, or is to be reached otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from streampush.push.alerts import FallbackRule
from streampush.push.channels import Kind, kind_of
from streampush.push.connections import Connections
from streampush.push.cursors import CursorWriter
from streampush.push.store_ports import Store
from streampush.push.values import Cursor, CursorMove, MessageRecord, PushOutcome, PushResult, PushToken, Reach
from streampush.quick_values import quick_value


class Standing(Enum):
    """See `Standings.of`."""

    LEFT = "left"
    """The message is no longer meant for it: it was forgotten, belongs to another user, or follows no more."""
    ACKNOWLEDGED = "acknowledged"
    NO_TOKEN = "no token"  # noqa: S105 - a word for people
    AWAY = "away"
    CONNECTED = "connected"


@quick_value(frozen=True, slots=True)
class DeviceStanding:
    """`token` is there if it is AWAY or CONNECTED."""

    device_id: str
    standing: Standing
    token: PushToken | None = None


def settled_result(standing: Standing, now_ms: int) -> PushResult:
    """What is stored of a device that needs no push, or cannot get one."""
    outcome = PushOutcome.NOT_SENT if standing is Standing.NO_TOKEN else PushOutcome.CANCELLED
    return PushResult(now_ms, outcome, standing.value)


AWAY_LOOK = 30.0
"""Seconds between two looks at a device that is connected, of a message that is only for devices that are away."""


def silent_until_ms(rule: FallbackRule, record: MessageRecord, after: float, now_ms: int) -> int:
    """Until when a device that is connected may stay silent, Unix milliseconds; `after`: seconds, if the message does not say."""
    if rule.only_when_away:
        return now_ms + int(AWAY_LOOK * 1000)
    return record.published_at_ms + (rule.after_ms or int(after * 1000))


def over(record: MessageRecord | None, now_ms: int) -> str:
    """Why a message need not reach anybody any more; empty: it does."""
    if record is None:
        return "gone"
    if record.recalled_at_ms:
        return "recalled"
    if record.superseded_by:
        return "superseded"
    return "expired" if 0 < record.expires_at_ms <= now_ms else ""


class Standings:
    """What the store knows of devices, and what only this node knows: its connections, and what they have acknowledged but the
    store has not taken yet. `run` is this process."""

    def __init__(self, store: Store, cursors: CursorWriter, connections: Connections, run: str, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._awaited_until_ms = 0
        self._store = store
        self._cursors = cursors
        self._connections = connections
        self._run = run

    def await_devices(self, seconds: float) -> None:
        """For so long nobody counts as away: the process that devices were connected to has sent them to the next one, and most are
        on their way. As of one that is connected, their time to acknowledge ends with the time since the message was published."""
        self._awaited_until_ms = self._wall_ms() + int(seconds * 1000)

    async def of(self, record: MessageRecord, device_ids: Sequence[str]) -> list[DeviceStanding]:
        """How each of the devices stands to the message, in their order. Raises StoreUnavailable."""
        return self.judged(record, device_ids, await self._store.reach(record.channel, device_ids))

    def judged(self, record: MessageRecord, device_ids: Sequence[str], reaches: Sequence[Reach]) -> list[DeviceStanding]:
        """The same, of what the store has just said of them."""
        kind, name = kind_of(record.channel)
        known: Mapping[str, Reach] = {
            reach.device_id: reach
            for reach in reaches
            if (reach.follows if kind is Kind.TOPIC else kind is not Kind.USER or reach.user_id == name)
        }
        return [self._judge(record, device_id, known.get(device_id)) for device_id in device_ids]

    def _judge(self, record: MessageRecord, device_id: str, reach: Reach | None) -> DeviceStanding:
        if reach is None:
            return DeviceStanding(device_id, Standing.LEFT)
        if _is_behind(reach.cursor, record) or self.acknowledged_here(record, device_id):
            return DeviceStanding(device_id, Standing.ACKNOWLEDGED)
        if reach.token is None:
            return DeviceStanding(device_id, Standing.NO_TOKEN)
        here = self._connections.get(device_id) is not None
        elsewhere = reach.run not in ("", self._run)  # of this process the connections are known exactly
        is_there = here or elsewhere or self._wall_ms() < self._awaited_until_ms
        return DeviceStanding(device_id, Standing.CONNECTED if is_there else Standing.AWAY, reach.token)

    def acknowledged_here(self, record: MessageRecord, device_id: str) -> bool:
        """Whether a connection of this node, also one that is gone, has acknowledged the message, and the store may not know."""
        if _is_behind(self._cursors.pending(device_id, record.channel), record):
            return True
        connected = self._connections.get(device_id)
        feed = None if connected is None else connected.attachment.feeds.get(record.channel)
        return feed is not None and feed.epoch == record.epoch and feed.has_answered(record.offset)


def _is_behind(place: Cursor | CursorMove | None, record: MessageRecord) -> bool:
    return place is not None and place.epoch == record.epoch and place.offset >= record.offset
