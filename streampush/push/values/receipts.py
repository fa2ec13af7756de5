"""What becomes of messages on devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from streampush.protocol.terms import Durability, Milestone, Priority
from streampush.push.values.log import Publication
from streampush.quick_values import quick_value

NO_COUNTS: Mapping[Milestone, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mark:
    """A milestone of each publication from `first` to `last`: WRITTEN or REJECTED.

    On a topic nobody is named: `device_id` is empty, and `count` connections have reached it.
    """

    device_id: str
    channel: str
    epoch: str
    first: int
    last: int
    milestone: Milestone
    at_ms: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """A publication that a device did not take for good: it becomes a dead letter, with a copy of what the log has at `offset`."""

    device_id: str
    channel: str
    epoch: str
    offset: int
    attempts: int
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What one device did not take."""

    device_id: str
    publication: Publication
    attempts: int
    reason: str
    at_ms: int


class PushOutcome(StrEnum):
    """How the push of a message to a device that is away ended."""

    DELIVERED = "delivered"
    """Apple took it; whether the phone shows it nobody is told."""
    REJECTED = "rejected"
    """Apple did not take it, and said why."""
    NOT_SENT = "not_sent"
    """Apple never had it."""
    UNKNOWN = "unknown"
    """It was written, and no answer came."""
    CANCELLED = "cancelled"
    """It was not needed any more."""


@quick_value(frozen=True, slots=True)
class PushResult:
    """How a push ended, and when, Unix milliseconds. `reason`: a word or a few that name no token; `apns_id`: empty if it was
    never sent."""

    at_ms: int
    outcome: PushOutcome
    reason: str = ""
    apns_id: str = ""


@quick_value(frozen=True, slots=True)
class PushRecord:
    """How the push of a message to one device ended. `lease`: token of the work in the outbox that is done with it.

    Of a topic's message: how so many ended, `count`; then nobody need be named, and only the result's outcome is kept.
    """

    message_id: str
    device_id: str
    result: PushResult
    lease: str = field(default="", repr=False)
    count: int = 1


NO_PUSHES: Mapping[PushOutcome, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DeviceReceipt:
    """What became of a message on one device: the first time of each milestone, Unix milliseconds; and how its last push ended."""

    device_id: str
    times: Mapping[Milestone, int]
    push: PushResult | None = None


@quick_value(frozen=True, slots=True)
class MessageRecord:
    """What the store knows of a message: scheduled (`offset` 0) or in the log. `size`: bytes of payload as it was published;
    `durability`: how safely it is kept.

    `superseded_by`: offset of the newer publication of its collapse key, or 0. `devices` has rows for a device's or user's
    message, in order of device ids, `counts` how many devices have reached each milestone for a topic's message with
    `want_receipt`; `push_counts` how many of its pushes ended how.
    """

    message_id: str
    channel: str
    epoch: str
    offset: int
    publisher: str
    published_at_ms: int
    expires_at_ms: int
    deliver_at_ms: int
    priority: Priority
    collapse_key: str
    want_receipt: bool
    size: int
    durability: Durability
    recalls: str = ""
    recalled_at_ms: int = 0
    superseded_by: int = 0
    devices: tuple[DeviceReceipt, ...] = ()
    counts: Mapping[Milestone, int] = field(default_factory=lambda: NO_COUNTS)
    push_counts: Mapping[PushOutcome, int] = field(default_factory=lambda: NO_PUSHES)
