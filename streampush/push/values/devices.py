"""Devices, known and connected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streampush.protocol.codes import Advice
from streampush.protocol.terms import AppState
from streampush.push.values.log import NO_HEADERS
from streampush.push.values.nodes import node_of
from streampush.push.values.places import ChannelCursor, Cursor
from streampush.quick_values import quick_value


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended. `code` 0: the peer left without a reason."""

    code: int
    advice: Advice
    detail: str
    at_ms: int


@quick_value(frozen=True, slots=True)
class PushToken:
    """Where to reach a device that is away. `token` is secret; `topic` is Apple's word, the bundle id.

    `registered_at_ms`: when the device said so last; 0: not known, it was longer ago than anything that is.
    """

    token: bytes = field(repr=False)
    topic: str
    sandbox: bool
    registered_at_ms: int = 0


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
class Reach:
    """How a device may be reached with a message of one channel, whose cursor it is. `run`: of the node where it is connected,
    empty: it is away. `follows`: it has a durable subscription to the channel."""

    device_id: str
    user_id: str
    token: PushToken | None
    cursor: Cursor | None
    run: str
    follows: bool


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
class Session:
    """One connection of a device, for presence. `run` names the process that has it, see nodes.run_name."""

    device_id: str
    session_id: str
    run: str
    user_id: str = ""
    address: str = ""
    app: str = ""
    app_version: str = ""
    connected_at_ms: int = 0

    @property
    def node(self) -> str:
        """The name of the node."""
        return node_of(self.run)


@dataclass(frozen=True, slots=True)
class ChannelPresence:
    """Who follows a channel now: `devices` counts all, `device_ids` are some of them, in order of their names."""

    channel: str
    devices: int
    device_ids: tuple[str, ...]


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
