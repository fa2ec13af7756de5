"""Where devices are on channels: cursors, positions, subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason, Start
from streampush.push.values.log import Head
from streampush.quick_values import quick_value


@dataclass(frozen=True, slots=True)
class Position:
    """The last publication of a channel that somebody has: `offset` 0 and an empty id before the first."""

    epoch: str
    offset: int
    message_id: str = ""


@quick_value(frozen=True, slots=True)
class Cursor:
    """How far a device is on a channel: everything up to `offset` is acknowledged, up to `processed` it is done with.

    `attempts`: how often the publication behind `offset` was delivered to it in vain.
    """

    epoch: str
    offset: int
    processed: int = 0
    attempts: int = 0


@quick_value(frozen=True, slots=True)
class CursorMove:
    """A device has acknowledged everything of the channel up to and including `offset`, and processed it up to `processed`.

    `attempts` belongs to the publication behind `offset`, see Cursor. `begun` is where this delivery began: what is up to it
    was passed over, perhaps without being delivered, and gets no receipt.
    """

    device_id: str
    channel: str
    epoch: str
    offset: int
    processed: int = 0
    attempts: int = 0
    at_ms: int = 0
    begun: int = 0


@dataclass(frozen=True, slots=True)
class Want:
    """A channel that a device would like to be surveyed, and offsets at which it may be."""

    channel: str
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Spot:
    """What the log says of one offset: the id there, None if it is not known; how many behind it have expired."""

    message_id: str | None
    expired: int


@dataclass(frozen=True, slots=True)
class Survey:
    """All that recovery needs to know of one channel, as of one moment.

    `spots` has the wanted offsets, that of the cursor if its epoch is the log's, and the newest. `former`: epochs that the log's
    goes on from, so that offsets of theirs may be its own: the message id proves it.
    """

    channel: str
    head: Head
    cursor: Cursor | None
    spots: Mapping[int, Spot]
    former: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DurableSubscription:
    """A channel that a device follows whenever it is connected."""

    channel: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """What a device wants to follow. `durable`: whenever it is connected, until it unsubscribes."""

    channel: str
    position: Position | None = None
    start: Start = Start.UNSPECIFIED
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where delivery on a channel begins: behind `offset`. `lost_at_most` 0 with a loss: not known.

    `message_id` is that of the publication at `offset`, so that a device that receives nothing can still prove where it was.
    `attempts` and `processed` are those of the stored cursor if delivery begins there; `urgent_offset`: see Head. `unsaved`: the
    device has acknowledged so many offsets up to `offset`, and the store may not know.
    """

    channel: str
    epoch: str
    offset: int
    top_offset: int
    recovered: bool = False
    loss: LossReason = LossReason.UNSPECIFIED
    lost_at_most: int = 0
    message_id: str = ""
    durable: bool = False
    attempts: int = 0
    processed: int = 0
    urgent_offset: int = 0
    unsaved: int = 0


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """Why one of several wanted subscriptions is not there."""

    channel: str
    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class ChannelCursor:
    """How far one device is on one channel."""

    channel: str
    acknowledged: int
    sent: int
    top: int


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """How delivery on one channel of a connected device goes; offsets as in ChannelCursor, times in seconds.

    `unacknowledged`: deliveries under way; `attempts`: how often the publication behind `acknowledged` was delivered in vain;
    `held`: publications that the device wants later; `redeliveries`: how many were repeated on this connection. `live`: nothing
    newer waits in the log. `unanswered_for`: since the oldest delivery under way was written, or since the last answer;
    `next_attempt_in`: until something is repeated, None if nothing has to be.
    """

    channel: str
    acknowledged: int
    sent: int
    top: int
    unacknowledged: int
    attempts: int
    held: int
    redeliveries: int
    live: bool
    durable: bool
    unanswered_for: float
    next_attempt_in: float | None
