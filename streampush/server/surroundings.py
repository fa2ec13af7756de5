"""What the connections of a node are given by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.logger import Logger

from streampush.config import Config
from streampush.protocol.events import SessionSettings
from streampush.protocol.heartbeat import HeartbeatSettings
from streampush.push.ports import Spawner
from streampush.push.service import PushService
from streampush.server.gate import Gate
from streampush.server.governor import Governor
from streampush.server.ports import ServerMetrics

if TYPE_CHECKING:
    from streampush.server.connection import StreamConnection


@dataclass(frozen=True, slots=True)
class ConnectionSurroundings:
    """What all connections of a node share. `clock` gives monotonic seconds, `first_ping` a random number from 0 to 1."""

    config: Config
    node_name: str
    settings: SessionSettings
    service: PushService
    gate: Gate
    governor: Governor
    metrics: ServerMetrics
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    first_ping: Callable[[], float]
    new_session_id: Callable[[], str]
    spawn: Spawner
    opened: Callable[[StreamConnection], None]
    gone: Callable[[StreamConnection], None]
    reschedule: Callable[[StreamConnection], None]
    handshake_done: Callable[[str], None]
    log: Logger


def session_settings(config: Config) -> SessionSettings:
    """The configured limits and deadlines of a session, as the wire core takes them."""
    session, beat = config.session, config.heartbeat
    return SessionSettings(
        session.max_frame,
        session.max_resync_bytes,
        session.max_bad_frames,
        session.handshake_timeout,
        session.hello_timeout,
        session.frame_timeout,
        session.idle_timeout,
        session.max_age,
        session.drain_timeout,
        HeartbeatSettings(beat.interval, beat.reply_timeout, beat.misses, beat.min_ping_interval),
    )
