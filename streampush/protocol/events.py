"""What a session is told (its limits) and what it tells (events): docs/protocol.md sections 6 to 9."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.framing import DEFAULT_MAX_FRAME, DEFAULT_MAX_RESYNC_BYTES
from streampush.protocol.heartbeat import HeartbeatSettings
from streampush.quick_values import quick_value

DEFAULT_MAX_BAD_FRAMES = 8


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits of one connection. Times in seconds, sizes in bytes; 0 switches `idle_timeout` and `max_age` off."""

    max_frame: int = DEFAULT_MAX_FRAME
    max_resync_bytes: int = DEFAULT_MAX_RESYNC_BYTES
    max_bad_frames: int = DEFAULT_MAX_BAD_FRAMES
    handshake_timeout: float = 10.0
    hello_timeout: float = 10.0
    frame_timeout: float = 30.0
    idle_timeout: float = 0.0
    max_age: float = 0.0
    drain_timeout: float = 10.0
    heartbeat: HeartbeatSettings = field(default_factory=HeartbeatSettings)


@quick_value(frozen=True, slots=True)
class Received:
    """A message that is legal in this state. Ping and Pong are answered here and not reported."""

    request_id: int
    message: m.Message


@dataclass(frozen=True, slots=True)
class Faulted:
    """The peer did something wrong that the connection survives; the Error with `code` is in `data_to_send`."""

    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class RoundTripped:
    """A ping was answered after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PingMissed:
    """A ping had no frame in return within the reply timeout."""


@dataclass(frozen=True, slots=True)
class Jittered:
    """The peer has been silent for long, and is not lost yet."""

    silence: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event. `by_peer`: it said GoAway; else the GoAway with `code` and `advice` is in `data_to_send`."""

    code: Code | int
    advice: Advice
    detail: str
    by_peer: bool = False


Event: TypeAlias = Received | Faulted | RoundTripped | PingMissed | Jittered | Closed
