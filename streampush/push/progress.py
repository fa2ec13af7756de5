"""What became of a message: the store's record of it, read as states and milestones. docs/protocol.md section 10.7."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from streampush.protocol.terms import Milestone
from streampush.push.ids import made_at_ms
from streampush.push.values import DeviceReceipt, MessageRecord, PushResult

ORDER = (
    Milestone.ACCEPTED,
    Milestone.STORED,
    Milestone.WRITTEN,
    Milestone.DELIVERED,
    Milestone.PROCESSED,
    Milestone.REJECTED,
    Milestone.DEAD_LETTERED,
    Milestone.RECALLED,
    Milestone.EXPIRED,
)
"""In which milestones of one device are shown and told."""

ANSWERED = (Milestone.DELIVERED, Milestone.PROCESSED, Milestone.REJECTED, Milestone.DEAD_LETTERED)
"""The device has had its chance: the message does not expire for it."""

EXPIRY_GRACE_MS = 1_000
"""After a message's time is over it takes so long until anybody is told that it has expired for a device: answers that were given
in time are stored by then, and what a publisher was told stays true."""

ENDS = frozenset({Milestone.PROCESSED, Milestone.REJECTED, Milestone.DEAD_LETTERED, Milestone.RECALLED, Milestone.EXPIRED})
"""Nothing of interest comes behind these."""

_PRECEDENCE = (
    Milestone.DEAD_LETTERED,
    Milestone.REJECTED,
    Milestone.PROCESSED,
    Milestone.DELIVERED,
    Milestone.RECALLED,
    Milestone.EXPIRED,
)


class MessageState(Enum):
    """Where a message is."""

    SCHEDULED = "scheduled"
    STORED = "stored"
    SUPERSEDED = "superseded"
    RECALLED = "recalled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    """How far a message is on one device. `state` is one word; `times` in Unix milliseconds, in the order of ORDER.

    `ended`: nothing more is to be expected. `push`: how the push through Apple ended, None: there was none, or it has not.
    """

    device_id: str
    state: str
    times: Mapping[Milestone, int]
    ended: bool
    push: PushResult | None = None


@dataclass(frozen=True, slots=True)
class MessageProgress:
    """What became of a message. `devices` has a row for each device that it is meant for, `more`: there are others.

    `ending` says why nothing more is to be expected; empty: something is. `as_of_ms`: when it is so, in Unix milliseconds; later,
    the message's time may be over.
    """

    record: MessageRecord
    state: MessageState
    devices: tuple[DeviceProgress, ...]
    more: bool
    ending: str
    as_of_ms: int


def progress_of(record: MessageRecord, device_ids: Iterable[str], now_ms: int, max_devices: int) -> MessageProgress:
    """Reads a record as of `now_ms`, which is to be a moment before it was read: what the store took in between is not in it.

    `device_ids`: who the message is meant for; at most `max_devices` rows are given.
    """
    state = _state(record, now_ms)
    known = {receipt.device_id: receipt for receipt in record.devices}
    names = sorted({*known, *device_ids})
    rows = tuple(_row(record, state, known.get(name) or DeviceReceipt(name, {}), now_ms) for name in names[:max_devices])
    more = len(names) > max_devices
    ending = _ending(record, state, rows, more=more, now_ms=now_ms)
    return MessageProgress(record, state, rows, more, ending, now_ms)


def _expired(record: MessageRecord, now_ms: int) -> bool:
    return 0 < record.expires_at_ms <= now_ms


def _expiry_told(record: MessageRecord, now_ms: int) -> bool:
    return _expired(record, now_ms - EXPIRY_GRACE_MS)


def _state(record: MessageRecord, now_ms: int) -> MessageState:
    if record.recalled_at_ms:
        return MessageState.RECALLED
    if record.superseded_by:
        return MessageState.SUPERSEDED
    if _expired(record, now_ms):
        return MessageState.EXPIRED
    return MessageState.STORED if record.offset else MessageState.SCHEDULED


def _row(record: MessageRecord, state: MessageState, stored: DeviceReceipt, now_ms: int) -> DeviceProgress:
    found = {Milestone.ACCEPTED: _accepted_at(record), **stored.times}
    if record.offset:
        found.setdefault(Milestone.STORED, max(record.published_at_ms, record.deliver_at_ms))
    if record.recalled_at_ms:
        found.setdefault(Milestone.RECALLED, record.recalled_at_ms)
    if _expiry_told(record, now_ms) and _outlived(record, found):
        found.setdefault(Milestone.EXPIRED, record.expires_at_ms)
    # of every device, as with a recall: what is under way may still be stored, and an end that was told must stay one
    ended = not ENDS.isdisjoint(found) or state is MessageState.SUPERSEDED
    times = {milestone: found[milestone] for milestone in ORDER if milestone in found}
    return DeviceProgress(stored.device_id, _word(state, times), times, ended, stored.push)


def _accepted_at(record: MessageRecord) -> int:
    """A scheduled message is published when it goes out; when the server took it, its id says."""
    made = made_at_ms(record.message_id) if record.deliver_at_ms and record.offset else None
    return record.published_at_ms if made is None else min(made, record.published_at_ms)


def _outlived(record: MessageRecord, found: Mapping[Milestone, int]) -> bool:
    """Whether the message's time was over before the device answered, and before it was taken back.

    An answer that comes later does not change that: what a publisher was told stays true.
    """
    before = [found[milestone] for milestone in (*ANSWERED, Milestone.RECALLED) if milestone in found]
    return not before or min(before) >= record.expires_at_ms


def _word(state: MessageState, times: Mapping[Milestone, int]) -> str:
    furthest = next((milestone for milestone in _PRECEDENCE if milestone in times), None)
    if furthest is not None:
        return furthest.name.lower()
    if state in (MessageState.SCHEDULED, MessageState.SUPERSEDED):
        return str(state.value)
    return "written" if Milestone.WRITTEN in times else "waiting"


def _ending(record: MessageRecord, state: MessageState, rows: tuple[DeviceProgress, ...], *, more: bool, now_ms: int) -> str:
    if rows and not more and all(row.ended for row in rows):
        return "complete"
    if state in (MessageState.RECALLED, MessageState.SUPERSEDED):
        return str(state.value)
    return "expired" if _expiry_told(record, now_ms) else ""
