"""The values that flow through `push/`: frozen, compared by value, free of any wire or storage form.

Wall times end in `_ms` (Unix time in milliseconds, as stored and sent); durations are float seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from streampush.protocol.codes import Code
from streampush.protocol.terms import AppState, Durability, LossReason, Start

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Position:
    """The last publication of a channel that somebody has: `offset` 0 and an empty id before the first."""

    epoch: str
    offset: int
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A publication that is validated and has its id, but no offset yet. `expires_at_ms` 0: does not expire."""

    channel: str
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int
    expires_at_ms: int = 0
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)


@dataclass(frozen=True, slots=True)
class Publication:
    """An entry of a channel's log."""

    channel: str
    offset: int
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int
    expires_at_ms: int = 0
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)


@dataclass(frozen=True, slots=True)
class Appended:
    """The store's answer to an append."""

    publication: Publication
    epoch: str
    durability: Durability


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a channel's log: entries with `floor_offset < offset <= top_offset` may still be read.

    `floor_id` is the id of the entry at `floor_offset`, kept when the entry itself is gone: a position there can be proven.
    """

    epoch: str
    top_offset: int
    floor_offset: int = 0
    floor_id: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What a read of the log gave, in order of offset; expired entries are left out.

    `next_offset` is where the next read goes on: publications up to it are in this page, or expired. `expired` counts the
    latter.
    """

    head: Head
    publications: tuple[Publication, ...]
    next_offset: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class PushToken:
    """Where to reach a device that is away. `token` is secret; `topic` is Apple's word, the bundle id."""

    token: bytes = field(repr=False)
    topic: str
    sandbox: bool


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What the store knows of a device. `user_id` is empty if it is bound to no user."""

    device_id: str
    user_id: str = ""
    first_seen_ms: int = 0
    last_seen_ms: int = 0
    push_token: PushToken | None = None


@dataclass(frozen=True, slots=True)
class CursorMove:
    """A device has acknowledged everything of the channel up to and including `offset`."""

    device_id: str
    channel: str
    epoch: str
    offset: int


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


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What a publisher wants. `ttl` in seconds, 0: as long as the log keeps it; `durability`: the least that is wanted."""

    channel: str
    payload: bytes = field(repr=False)
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)
    ttl: float = 0.0
    durability: Durability = Durability.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Published:
    """The success reply of a publish. `connections`: how many connections of this node follow the channel now."""

    message_id: str
    channel: str
    offset: int
    epoch: str
    durability: Durability
    connections: int


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    channel: str
    position: Position | None = None
    start: Start = Start.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where delivery on a channel begins: behind `offset`. `lost_at_most` 0 with a loss: not known.

    `message_id` is that of the publication at `offset`, so that a device that receives nothing can still prove where it was.
    """

    channel: str
    epoch: str
    offset: int
    top_offset: int
    recovered: bool = False
    loss: LossReason = LossReason.UNSPECIFIED
    lost_at_most: int = 0
    message_id: str = ""


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
class DeviceStatus:
    """For GET /v1/devices/{id}. Times are Unix milliseconds, 0: never."""

    device_id: str
    user_id: str
    connected: bool
    session_id: str = ""
    address: str = ""
    connected_at_ms: int = 0
    last_seen_ms: int = 0
    app: str = ""
    app_version: str = ""
    state: AppState = AppState.UNSPECIFIED
    token_registered: bool = False
    round_trip: float | None = None
    last_close_code: int = 0
    last_close_detail: str = ""
    channels: tuple[ChannelCursor, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """For GET /v1/channels/{name}."""

    channel: str
    head: Head
    connections: int
