"""Messages to users who have few devices, as most have: those that were leased together are looked at in one read of the store.

Theory of operation. Only the store knows which devices a user has, so it is asked how the devices of each message's user stand to
it (`reach_users`). Those that are to be pushed to now are pushed to at once, as a group whose work is that of the message (see
`push_groups`): it ends in one step with the results of all. If one of them is connected and may stay silent for a while, all wait
in the outbox with work of their own; so does what the sender has no room for. Messages that are for others, and for users with many
devices, are handed on.

From the first look at it until the store knows what became of it, the message is in work: if it is leased again meanwhile, that is
the newest token of its lease. A device that has a result when the work is leased again is not pushed to again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from streampush.errors import StoreUnavailable
from streampush.push.alerts import FallbackRule, split
from streampush.push.channels import Kind, kind_of
from streampush.push.ports import PushMetrics, Spawner
from streampush.push.push_groups import PushGroup, UserGroup
from streampush.push.standing import DeviceStanding, Standing, Standings, over, settled_result, silent_until_ms
from streampush.push.store_ports import MessageStore
from streampush.push.values import MessageReach, MessageRecord, OutboxEntry, PushOutcome, PushToken

FEW_DEVICES = 8
"""Devices of one user that are looked at together with those of others: 200 messages are 1600 of them at most."""


class Groups(Protocol):
    """What sends to groups: see push/pushing.py."""

    def renew_group(self, key: str, lease: str) -> bool:
        """Whether the group of this key is in work already; then this is the newest token of its lease."""

    def begin_group(self, group: PushGroup) -> None:
        """The group is in work from now on, and will be taken, ended or left."""

    def leave_group(self, group: PushGroup) -> None:
        """The work of the group is not done as one."""

    def take_group(self, group: PushGroup, record: MessageRecord, standings: Sequence[DeviceStanding]) -> None:
        """A group's devices are to be pushed to."""

    def end_group(self, group: PushGroup) -> None:
        """Nothing is to be sent."""


class UserMessages:
    """Takes the work of messages; as many as `len` says are looked at now.

    `after` gives the seconds that a connected device with a token has to acknowledge, if the message does not say; `room` says how
    many pushes may be begun. `stuck` is told that the store is away; `others` gets, behind each look, the work that is not done
    here. `wall_ms` gives Unix milliseconds.
    """

    def __init__(
        self,
        store: MessageStore,
        standings: Standings,
        groups: Groups,
        metrics: PushMetrics,
        *,
        after: Callable[[PushToken], float],
        room: Callable[[], int],
        stuck: Callable[[], None],
        others: Callable[[Sequence[OutboxEntry]], None],
        wall_ms: Callable[[], int],
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._store = store
        self._standings = standings
        self._groups = groups
        self._metrics = metrics
        self._after = after
        self._room = room
        self._stuck = stuck
        self._others = others
        self._wall_ms = wall_ms
        self._spawn = spawn
        self._retry_later = retry_later
        self._looking = 0

    def __len__(self) -> int:
        return self._looking

    def take(self, entries: Sequence[OutboxEntry]) -> None:
        """Work of messages that was leased together."""
        groups = [UserGroup(entry) for entry in entries if not self._groups.renew_group(entry.key, entry.token)]
        for group in groups:
            self._groups.begin_group(group)
        self._looking += len(groups)
        if groups:
            self._begin(groups)

    def _begin(self, groups: Sequence[UserGroup]) -> None:
        self._spawn(self._look(groups))

    async def _look(self, groups: Sequence[UserGroup]) -> None:
        """If the store is away they stay in work, and are looked at when it is there again."""
        try:
            asked = [group.message_id for group in groups]
            found = await self._store.reach_users(asked, FEW_DEVICES + 1, results=any(group.attempts > 1 for group in groups))
        except StoreUnavailable:
            self._stuck()
            self._retry_later(lambda: self._begin(groups))
            return
        except Exception:
            self._leave(groups, groups)
            raise
        others: list[UserGroup] = []
        fault: Exception | None = None
        for group, reach in zip(groups, found, strict=True):
            try:
                is_done = self._do(group, reach)
            except Exception as error:  # noqa: BLE001 - of one message: the others go on, and it is raised behind them
                is_done, fault = False, error
            if not is_done:
                others.append(group)
        self._leave(groups, others)
        if fault is not None:
            raise fault

    def _leave(self, looked_at: Sequence[UserGroup], others: Sequence[UserGroup]) -> None:
        """The look is over, and these of them are to be done otherwise."""
        self._looking -= len(looked_at)
        for group in others:
            self._groups.leave_group(group)
        self._others([group.entry() for group in others])

    def _do(self, group: UserGroup, reach: MessageReach | None) -> bool:
        """False, and nothing has changed, if it is not to be done here."""
        if reach is None or over(reach.record, self._wall_ms()):
            self._metrics.fell_back(PushOutcome.CANCELLED, 1)
            self._groups.end_group(group)
            return True
        if len(reach.reaches) > FEW_DEVICES or kind_of(reach.record.channel)[0] is not Kind.USER:
            return False
        pushed_to = self._judge(group, reach, reach.record)
        if pushed_to:
            self._groups.take_group(group, reach.record, pushed_to)
        else:
            self._groups.end_group(group)
        return True

    def _judge(self, group: UserGroup, reach: MessageReach, record: MessageRecord) -> Sequence[DeviceStanding]:
        """Who is to be pushed to now; the group knows what becomes of the others."""
        now_ms = self._wall_ms()
        rule, _ = split(group.form)
        asked = [one.device_id for one in reach.reaches if one.device_id not in reach.results]
        now: list[DeviceStanding] = []
        later: list[tuple[str, int, int | None]] = []
        settled: list[DeviceStanding] = []
        for one in self._standings.judged(record, asked, reach.reaches):
            if one.token is None:
                settled.append(one)
            elif (due_ms := self._due_ms(rule, record, one, one.token, now_ms)) > now_ms:
                later.append((one.device_id, due_ms, None))
            else:
                now.append(one)
        if later or len(now) > self._room():
            later += [(one.device_id, now_ms, None) for one in now]
            now = []
        group.again.extend(later)
        for one in settled:
            result = settled_result(one.standing, now_ms)
            group.ended(one.device_id, result)
            self._metrics.fell_back(result.outcome, 1)
        return now

    def _due_ms(self, rule: FallbackRule, record: MessageRecord, one: DeviceStanding, token: PushToken, now_ms: int) -> int:
        if one.standing is Standing.CONNECTED:
            return silent_until_ms(rule, record, self._after(token), now_ms)
        return now_ms
