"""The messages of the wire as values: docs/protocol.md section 5. `codec` turns them into payloads and back.

Nothing outside `codec` sees protobuf: a message here is frozen, compares by value, and uses `Code`, `Advice` and the other
enumerations where the schema uses numbers. An enumeration value that this version does not know decodes to 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.terms import AppState, Durability, LossReason, Milestone, Outcome, Priority, Start, TokenProvider
from streampush.quick_values import quick_value

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True)
class Position:
    epoch: str = ""
    offset: int = 0
    last_message_id: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    channel: str
    position: Position = Position()


@dataclass(frozen=True, slots=True)
class Hello:
    protocol_min: int = PROTOCOL_VERSION
    protocol_max: int = PROTOCOL_VERSION
    features: int = 0
    app: str = ""
    app_version: str = ""
    sdk: str = ""
    sdk_version: str = ""
    device_id: str = ""
    receive_window_messages: int = 0
    receive_window_bytes: int = 0
    resume: tuple[Resume, ...] = ()
    state: AppState = AppState.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class HeartbeatPolicy:
    """As announced in Welcome; milliseconds."""

    interval_ms: int = 30_000
    reply_timeout_ms: int = 10_000
    misses: int = 3
    min_ping_interval_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    max_frame: int = 0
    max_payload: int = 0
    max_subscriptions: int = 0
    receive_window_messages: int = 0
    receive_window_bytes: int = 0
    ack_timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    first_jitter_ms: int = 5_000
    backoff_initial_ms: int = 1_000
    backoff_max_ms: int = 60_000
    degraded_after: int = 5


@dataclass(frozen=True, slots=True)
class Subscribed:
    channel: str
    epoch: str = ""
    offset: int = 0
    top_offset: int = 0
    recovered: bool = False
    loss: LossReason = LossReason.UNSPECIFIED
    lost_at_most: int = 0
    code: Code | int = 0
    detail: str = ""
    last_message_id: str = ""
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    protocol: int = PROTOCOL_VERSION
    features: int = 0
    session_id: str = ""
    node: str = ""
    heartbeat: HeartbeatPolicy = HeartbeatPolicy()
    limits: Limits = Limits()
    reconnect: ReconnectPolicy = ReconnectPolicy()
    subscribed: tuple[Subscribed, ...] = ()
    device_id: str = ""
    user_id: str = ""
    server_time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class State:
    state: AppState = AppState.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class RegisterToken:
    provider: TokenProvider = TokenProvider.UNSPECIFIED
    token: bytes = field(default=b"", repr=False)
    topic: str = ""
    sandbox: bool = False


@dataclass(frozen=True, slots=True)
class Credit:
    messages: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Ok:
    pass


@dataclass(frozen=True, slots=True)
class Error:
    """`of` builds one with the advice of the table of codes."""

    code: Code | int
    advice: Advice = Advice.UNSPECIFIED
    detail: str = ""
    retry_after_ms: int = 0
    jitter_ms: int = 0
    channel: str = ""

    @classmethod
    def of(cls, code: Code, detail: str = "", *, channel: str = "", retry_after_ms: int = 0, jitter_ms: int = 0) -> Error:
        info = CODES[code]
        return cls(code, info.advice, detail or info.meaning, retry_after_ms, jitter_ms, channel)


@dataclass(frozen=True, slots=True)
class GoAway:
    code: Code | int
    advice: Advice = Advice.UNSPECIFIED
    detail: str = ""
    retry_after_ms: int = 0
    jitter_ms: int = 0
    close_after_ms: int = 0


@quick_value(frozen=True, slots=True)
class Delivery:
    """A publication; or, with `recalls`, the notice that the message of that id is taken back."""

    channel: str
    offset: int
    message_id: str
    payload: bytes = field(repr=False)
    published_at_ms: int = 0
    expires_at_ms: int = 0
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    recalls: str = ""
    collapse_key: str = ""
    priority: Priority = Priority.UNSPECIFIED


@quick_value(frozen=True, slots=True)
class Ack:
    channel: str
    offset: int
    outcome: Outcome = Outcome.UNSPECIFIED
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Part of Publish. `badge` and `relevance_score` None: not said."""

    title: str = field(default="", repr=False)
    subtitle: str = field(default="", repr=False)
    body: str = field(default="", repr=False)
    badge: int | None = None
    sound: str = ""
    category: str = ""
    thread_id: str = ""
    mutable_content: bool = False
    interruption_level: str = ""
    relevance_score: float | None = None
    custom: str = field(default="", repr=False)
    background: bool = False
    fallback_after_ms: int = 0
    only_when_away: bool = False


@quick_value(frozen=True, slots=True)
class Publish:
    channel: str
    payload: bytes = field(repr=False)
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    ttl_ms: int = 0
    durability: Durability = Durability.UNSPECIFIED
    idempotency_key: str = field(default="", repr=False)
    priority: Priority = Priority.UNSPECIFIED
    collapse_key: str = ""
    deliver_at_ms: int = 0
    want_receipt: bool = False
    clear_on_processed: bool = False
    version: int = 0
    expires_at_ms: int = 0
    alert: Alert | None = None


@quick_value(frozen=True, slots=True)
class PublishOk:
    message_id: str
    channel: str
    offset: int
    epoch: str
    durability: Durability
    connections: int = 0
    duplicate: bool = False
    deliver_at_ms: int = 0
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    channel: str
    position: Position | None = None
    start: Start = Start.UNSPECIFIED
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    channel: str


@dataclass(frozen=True, slots=True)
class BacklogEnd:
    channel: str
    offset: int


@dataclass(frozen=True, slots=True)
class Receipt:
    message_id: str
    channel: str
    offset: int
    device_id: str
    milestone: Milestone
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Unknown:
    """An envelope whose body this version of the schema does not know, or that has none."""


Message: TypeAlias = (
    Hello
    | Welcome
    | Ping
    | Pong
    | State
    | RegisterToken
    | Credit
    | Ok
    | Error
    | GoAway
    | Delivery
    | Ack
    | Publish
    | PublishOk
    | Subscribe
    | Subscribed
    | Unsubscribe
    | BacklogEnd
    | Receipt
    | Unknown
)
