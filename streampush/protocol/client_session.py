"""The client's side of a session: docs/protocol.md sections 6 and 7."""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.events import Event, SessionSettings
from streampush.protocol.heartbeat import Heartbeat, HeartbeatSettings
from streampush.protocol.session import NEVER, Session
from streampush.protocol.state import CLIENT_TABLE, State

MAX_SLOWDOWN = 4096
MAX_SLOWED_INTERVAL = 3600.0


class ClientSession(Session):
    """The client's side. `hello` after the handshake; Received(Welcome) makes it established.

    It watches the server with the announced policy, one reply timeout later than the server watches it, so that in peace only
    the server pings. Code 2008 doubles its interval: `slowdown` is the factor in force, to be handed to the next session.
    """

    _table = CLIENT_TABLE
    __slots__ = ("_policy", "slowdown")

    def __init__(self, settings: SessionSettings, now: float, first_ping: float = 0.5, slowdown: float = 1.0) -> None:
        super().__init__(settings, now, first_ping)
        self.slowdown = slowdown
        self._policy = settings.heartbeat

    def hello(self, message: m.Hello, request_id: int = 0) -> None:
        """Sends the greeting. Raises LocalProtocolError unless the handshake is done and no Welcome has come."""
        if self.state is not State.AWAIT_HELLO:
            raise LocalProtocolError(f"cannot say hello in state {self.state.value}")
        self.send(message, request_id)

    def _accept(self, request_id: int, message: m.Message, now: float, events: list[Event]) -> None:
        if isinstance(message, m.Welcome):
            self._greet_deadline = NEVER
            self._policy = _sound_policy(message.heartbeat)
            settings = self._slowed_policy()
            self._heartbeat = Heartbeat(settings, now, self._first_ping)
            first_step = settings.steps[0][0]
            if first_step * (1 - self._first_ping) * 1000 < message.heartbeat.min_ping_interval_ms:
                self._heartbeat.change(settings, now)  # the random first ping would come too close to the next one
        elif isinstance(message, m.GoAway):
            self._greet_deadline = NEVER
            self._leave_by(now, now + (message.close_after_ms / 1000 or self.settings.drain_timeout), message)
        if isinstance(message, m.Error | m.GoAway) and message.code == Code.TOO_MANY_PINGS:
            self._slow_down(now)
        super()._accept(request_id, message, now, events)

    def _slow_down(self, now: float) -> None:
        self.slowdown = min(self.slowdown * 2, MAX_SLOWDOWN)
        if self._heartbeat is not None:
            self._heartbeat.change(self._slowed_policy(), now)

    def _slowed_policy(self) -> HeartbeatSettings:
        policy = self._policy
        interval = policy.interval + policy.reply_timeout
        return replace(policy, interval=max(interval, min(interval * self.slowdown, MAX_SLOWED_INTERVAL)))


def _sound_policy(policy: m.HeartbeatPolicy) -> HeartbeatSettings:
    """The announced policy, or the default one if it makes no sense."""
    try:
        return HeartbeatSettings(policy.interval_ms / 1000, policy.reply_timeout_ms / 1000, policy.misses)
    except ValueError:
        return HeartbeatSettings()
