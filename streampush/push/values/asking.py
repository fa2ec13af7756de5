"""Who asks, what for, and what is answered: publishing, recalling, looking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streampush.protocol.terms import Durability, Priority
from streampush.push.values.alerts import Alert
from streampush.push.values.log import NO_HEADERS, Head
from streampush.quick_values import quick_value


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
    `durability`: the least that is wanted; `deliver_at_ms` 0: at once; `version` 0: none; `alert`: for devices that are away.
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
    alert: Alert | None = None


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
class ChannelStatus:
    """For GET /v1/channels/{name}."""

    channel: str
    head: Head
    connections: int
