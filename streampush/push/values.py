"""The values that flow through `push/`: frozen, compared by value, free of any wire or storage form.

Wall times end in `_ms` (Unix time in milliseconds, as stored and sent); durations are float seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import AppState, Durability, LossReason, Milestone, Priority, Start
from streampush.quick_values import quick_value

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NO_COUNTS: Mapping[Milestone, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Position:
    """The last publication of a channel that somebody has: `offset` 0 and an empty id before the first."""

    epoch: str
    offset: int
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a repeated publish harmless: the same `key` of the same `scope` (the publisher) is stored once.

    `fingerprint` stands for the rest of the request; the key is forgotten at `expires_at_ms`.
    """

    scope: str
    key: str = field(repr=False)
    fingerprint: bytes = field(repr=False)
    expires_at_ms: int


@quick_value(frozen=True, slots=True)
class Draft:
    """A publication that is validated and has its id, but no offset yet. `expires_at_ms` 0: does not expire.

    `deliver_at_ms` 0: at once. `version` 0: none. `publisher` is who published it, as "kind:name".
    """

    channel: str
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int
    expires_at_ms: int = 0
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    priority: Priority = Priority.NORMAL
    collapse_key: str = ""
    version: int = 0
    deliver_at_ms: int = 0
    want_receipt: bool = False
    clear_on_processed: bool = False
    publisher: str = ""
    idempotency: Idempotency | None = None


@quick_value(frozen=True, slots=True)
class Publication:
    """An entry of a channel's log. With `recalls` it is a recall notice: the id of an earlier entry that is taken back."""

    channel: str
    offset: int
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int
    expires_at_ms: int = 0
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    priority: Priority = Priority.NORMAL
    collapse_key: str = ""
    recalls: str = ""
    want_receipt: bool = False
    clear_on_processed: bool = False


@quick_value(frozen=True, slots=True)
class Appended:
    """A publication that is new in its channel's log, for the fan-out."""

    publication: Publication
    epoch: str
    durability: Durability


@quick_value(frozen=True, slots=True)
class Accepted:
    """The store's answer to an append. `appended` is None if nothing is new in the log: then one of these says why.

    `duplicate`: the idempotency key is known, this is the first answer again. `superseded`: a newer version is there, at `offset`.
    `deliver_at_ms`: it is scheduled, and has no offset yet.
    """

    message_id: str
    channel: str
    offset: int
    epoch: str
    durability: Durability
    duplicate: bool = False
    superseded: bool = False
    deliver_at_ms: int = 0
    appended: Appended | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a channel's log: entries with `floor_offset < offset <= top_offset` may still be read.

    `floor_id` is the id of the entry at `floor_offset`, kept when the entry itself is gone: a position there can be proven.
    `urgent_offset` is that of the newest publication of high priority, 0 if there was none.
    """

    epoch: str
    top_offset: int
    floor_offset: int = 0
    floor_id: str = ""
    urgent_offset: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """What a read of the log gave, in order of offset, without what expired, was superseded by its collapse key, or recalled.

    `next_offset` is where the next read goes on: publications up to it are in this page, or left out. `expired` counts those
    that had outlived their time.
    """

    head: Head
    publications: tuple[Publication, ...]
    next_offset: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a device is on a channel: everything up to `offset` is acknowledged, up to `processed` it is done with.

    `attempts`: how often the publication behind `offset` was delivered to it in vain.
    """

    epoch: str
    offset: int
    processed: int = 0
    attempts: int = 0


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

    `spots` has the wanted offsets, that of the cursor if its epoch is the log's, and the newest.
    """

    channel: str
    head: Head
    cursor: Cursor | None
    spots: Mapping[int, Spot]


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended. `code` 0: the peer left without a reason."""

    code: int
    advice: Advice
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class PushToken:
    """Where to reach a device that is away. `token` is secret; `topic` is Apple's word, the bundle id."""

    token: bytes = field(repr=False)
    topic: str
    sandbox: bool


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What the store knows of a device. `user_id` is empty if it is bound to no user; `attributes` are the backend's own words."""

    device_id: str
    user_id: str = ""
    first_seen_ms: int = 0
    last_seen_ms: int = 0
    push_token: PushToken | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    last_close: Close | None = None


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


@dataclass(frozen=True, slots=True)
class DurableSubscription:
    """A channel that a device follows whenever it is connected."""

    channel: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class DeviceReceipt:
    """What became of a message on one device: the first time of each milestone, Unix milliseconds."""

    device_id: str
    times: Mapping[Milestone, int]


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """What the store knows of a message: scheduled (`offset` 0) or in the log. `size`: bytes of payload as it was published;
    `durability`: how safely it is kept.

    `superseded_by`: offset of the newer publication of its collapse key, or 0. `devices` has rows for a device's or user's
    message, in order of device ids, `counts` how many devices have reached each milestone for a topic's message with
    `want_receipt`.
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


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of a device, for presence."""

    device_id: str
    session_id: str
    node: str
    user_id: str = ""
    address: str = ""
    app: str = ""
    app_version: str = ""
    connected_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class ChannelPresence:
    """Who follows a channel now: `devices` counts all, `device_ids` are some of them, in order of their names."""

    channel: str
    devices: int
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """Work for a sender, leased to whoever holds the `token` until the lease ends. `attempts` counts the leases, this one too."""

    token: str
    kind: str
    key: str
    body: bytes = field(repr=False)
    attempts: int


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How much the store holds. `bytes` is what counts against its limit."""

    channels: int
    publications: int
    bytes: int
    devices: int
    scheduled: int
    dead_letters: int
    outbox: int


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """Patterns of channel names: a name matches itself, `*` matches any run of characters; `{device}` and `{user}` stand for
    the asker's own ids."""

    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `kind` is "device", "publisher" or "key"; `name` is the device id, the publisher's or the key's name."""

    kind: str
    name: str
    user_id: str = ""
    may_publish: ChannelRules = ChannelRules()
    may_subscribe: ChannelRules = ChannelRules()


@quick_value(frozen=True, slots=True)
class PublishRequest:
    """What a publisher wants: docs/protocol.md section 10.3.

    `ttl` in seconds from the delivery time, 0: as long as the log keeps it, unless `expires_at_ms` says otherwise;
    `durability`: the least that is wanted; `deliver_at_ms` 0: at once; `version` 0: none.
    """

    channel: str
    payload: bytes = field(repr=False)
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    ttl: float = 0.0
    durability: Durability = Durability.UNSPECIFIED
    expires_at_ms: int = 0
    idempotency_key: str = field(default="", repr=False)
    priority: Priority = Priority.UNSPECIFIED
    collapse_key: str = ""
    deliver_at_ms: int = 0
    want_receipt: bool = False
    clear_on_processed: bool = False
    version: int = 0


@quick_value(frozen=True, slots=True)
class Published:
    """The success reply of a publish. `connections`: how many connections of this node follow the channel now.

    `duplicate`, `superseded`, `deliver_at_ms`: see Accepted.
    """

    message_id: str
    channel: str
    offset: int
    epoch: str
    durability: Durability
    connections: int
    duplicate: bool = False
    superseded: bool = False
    deliver_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Recalled:
    """What became of a recall. `was`: "stored", "scheduled", or "recalled" if it was taken back before.

    The rest is about the notice, which is there only if it was stored; `connections`: as for Published.
    """

    message_id: str
    channel: str
    was: str
    epoch: str = ""
    notice_offset: int = 0
    notice_id: str = ""
    connections: int = 0


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
class ConnectionInfo:
    """What is known of a device's connection when it attaches. The window is in messages and bytes of frames."""

    session_id: str
    address: str
    window_messages: int
    window_bytes: int
    app: str = ""
    app_version: str = ""
    state: AppState = AppState.UNSPECIFIED


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


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """For GET /v1/devices/{id}. Times are Unix milliseconds, 0: never."""

    device_id: str
    user_id: str
    connected: bool
    attributes: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    session_id: str = ""
    address: str = ""
    connected_at_ms: int = 0
    first_seen_ms: int = 0
    last_seen_ms: int = 0
    app: str = ""
    app_version: str = ""
    state: AppState = AppState.UNSPECIFIED
    token_registered: bool = False
    round_trip: float | None = None
    last_close_code: int = 0
    last_close_detail: str = ""
    last_close_advice: Advice = Advice.UNSPECIFIED
    last_close_at_ms: int = 0
    channels: tuple[ChannelCursor, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """For GET /v1/channels/{name}."""

    channel: str
    head: Head
    connections: int
