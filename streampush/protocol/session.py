"""A connection's protocol without the connection: bytes and time in, events, bytes and a deadline out.

Theory of operation. The shell owns the socket and the clock. It gives what it reads to `receive`, asks `deadline` when to call
`tick`, and after every call writes `data_to_send()`. Events tell it what happened, in order; a `Closed` event is the last one,
and then it writes what is left and closes. Nothing here blocks, logs or reads a clock.

`Delivery` frames do not come through here: they are encoded once per publication and written by the fan-out. That is why only
what the *peer* sends counts as life (section 7), and why the shell sets `active` when it writes a delivery.

docs/protocol.md sections 6 (states), 7 (heartbeat), 8 (codes), 9 (deadlines).
"""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.errors import LocalProtocolError, RemoteProtocolError
from streampush.protocol.events import Closed, Event, Faulted, Jittered, PingMissed, Received, RoundTripped, SessionSettings
from streampush.protocol.framing import Damage, FrameDecoder, encode_frame
from streampush.protocol.heartbeat import Beat, Heartbeat
from streampush.protocol.state import INPUT_OF, SERVER_TABLE, Input, State, Table

MAX_PING_STRIKES = 3
NEVER = float("inf")

__all__ = [
    "Closed",
    "Event",
    "Faulted",
    "Jittered",
    "NEVER",
    "PingMissed",
    "Received",
    "RoundTripped",
    "ServerSession",
    "Session",
    "SessionSettings",
]


class Session:
    """What both sides of a connection have in common; use ServerSession, or client_session.ClientSession.

    `first_ping`: the point of the heartbeat interval, 0 to 1, for the first ping.
    """

    _table: Table

    __slots__ = (
        "_age_deadline",
        "_bad_run",
        "_certificate_deadline",
        "_close_deadline",
        "_decoder",
        "_first_ping",
        "_frame_deadline",
        "_greet_deadline",
        "_heartbeat",
        "_idle_deadline",
        "_last_ping_at",
        "_leave",
        "_out",
        "_ping_strikes",
        "_told_to_leave_at",
        "active",
        "frames_received",
        "settings",
        "state",
    )

    def __init__(self, settings: SessionSettings, now: float, first_ping: float = 0.5) -> None:
        self.settings = settings
        self.state = State.AWAIT_TLS
        self.active = False  # set by the shell when it writes a delivery: the connection is not idle
        self.frames_received = 0
        self._decoder = FrameDecoder(settings.max_frame, settings.max_resync_bytes)
        self._out: list[bytes] = []
        self._bad_run = 0
        self._first_ping = first_ping
        self._heartbeat: Heartbeat | None = None
        self._last_ping_at = -NEVER
        self._leave: m.GoAway | None = None  # the last word of a session that drains
        self._ping_strikes = 0
        self._told_to_leave_at = now
        self._greet_deadline = now + settings.handshake_timeout
        self._frame_deadline = NEVER
        self._idle_deadline = NEVER
        self._age_deadline = NEVER
        self._close_deadline = NEVER
        self._certificate_deadline = NEVER

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED

    @property
    def mid_frame(self) -> bool:
        """Whether a started frame waits for its rest, so that `deadline` may have come nearer."""
        return self._frame_deadline != NEVER

    # ------------------------------------------------------------------------------------------------------------- bytes out

    def data_to_send(self) -> bytes:
        """Frames to write now, in order; empties the queue."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def send(self, message: m.Message, request_id: int = 0) -> None:
        """Queues a message. Raises LocalProtocolError if the session is closed, or the message does not fit a frame."""
        if self.state is State.CLOSED or self.state is State.AWAIT_TLS:
            raise LocalProtocolError(f"cannot send {type(message).__name__} in state {self.state.value}")
        self._out.append(encode_frame(codec.encode(message, request_id), self.settings.max_frame))

    # ---------------------------------------------------------------------------------------------------------------- inputs

    def _move(self, kind: Input) -> bool:
        state = self._table.get((self.state, kind))
        if state is None:
            return False
        self.state = state
        return True

    def tls_done(self, now: float, certificate_deadline: float = NEVER) -> None:
        """The TLS handshake is done (again). `certificate_deadline`: when the peer's certificate expires, on our clock."""
        first = self.state is State.AWAIT_TLS
        if not self._move(Input.TLS_DONE):
            raise LocalProtocolError("handshake done on a closed session")
        self._certificate_deadline = certificate_deadline
        if first:
            self._greet_deadline = now + self.settings.hello_timeout

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes of the peer. After a Closed event further bytes are ignored."""
        events: list[Event] = []
        if self.state is State.CLOSED:
            return events
        decoder = self._decoder
        decoded = decoder.feed(data)
        for item in decoded:
            if isinstance(item, Damage):
                self._damaged(item.code, item.detail, events)
            else:
                self._frame(item, now, events)
            if self.closed:
                return events
        if decoder.failure is not None:
            self._close(decoder.failure.code, decoder.failure.detail, events)
        elif not decoder.partial:
            self._frame_deadline = NEVER
        elif decoded or self._frame_deadline == NEVER:  # that no frame was started before
            self._frame_deadline = now + self.settings.frame_timeout
        return events

    def _frame(self, payload: bytes, now: float, events: list[Event]) -> None:
        self.frames_received += 1
        if self._heartbeat is not None:
            self._heartbeat.heard(now)
        try:
            request_id, message = codec.decode(payload)
        except RemoteProtocolError as error:
            self._damaged(error.code, error.detail, events)
            return
        self._bad_run = 0
        kind = INPUT_OF[type(message)]
        state = self._table.get((self.state, kind))
        if state is None:
            detail = f"{type(message).__name__} in state {self.state.value}"
            self._close(Code.UNEXPECTED_MESSAGE, detail, events)
            return
        self.state = state
        if kind is Input.REQUEST or kind is Input.FLOW:  # nearly all
            self.active = True
            events.append(Received(request_id, message))
        elif kind is Input.HEARTBEAT:
            self._beat(request_id, message, now, events)
        elif kind is Input.UNKNOWN:
            self._fault(Code.UNEXPECTED_MESSAGE, "a message that this version does not know", events, request_id)
        else:
            self.active = True
            self._accept(request_id, message, now, events)

    def _accept(self, request_id: int, message: m.Message, now: float, events: list[Event]) -> None:
        """A legal message of another kind."""
        events.append(Received(request_id, message))

    def _damaged(self, code: Code, detail: str, events: list[Event]) -> None:
        self._bad_run += 1
        if self._bad_run > self.settings.max_bad_frames:
            self._close(code, f"{self._bad_run} bad frames in a row, the last: {detail}", events)
        else:
            self._fault(code, detail, events)

    def _fault(self, code: Code, detail: str, events: list[Event], request_id: int = 0) -> None:
        if self.state is not State.AWAIT_TLS:
            self.send(m.Error.of(code, detail), request_id)
        events.append(Faulted(code, detail))

    # ------------------------------------------------------------------------------------------------------------- heartbeat

    def _beat(self, request_id: int, message: m.Message, now: float, events: list[Event]) -> None:
        if isinstance(message, m.Pong):
            seconds = self._heartbeat.pong(request_id, now) if self._heartbeat is not None else None
            if seconds is not None:
                events.append(RoundTripped(seconds))
            return
        self.send(m.Pong(), request_id)
        self._guard_pings(now, events)

    def _guard_pings(self, now: float, events: list[Event]) -> None:
        """A ping arrived and was answered; the server looks at how fast they come."""

    # ------------------------------------------------------------------------------------------------------------- deadlines

    @property
    def deadline(self) -> float:
        """When to call `tick` at the latest, on the caller's clock; infinity if never."""
        if self.state is State.CLOSED:
            return NEVER
        deadline = min(
            self._greet_deadline,
            self._frame_deadline,
            self._idle_deadline,
            self._age_deadline,
            self._close_deadline,
            self._certificate_deadline,
        )
        if self._heartbeat is not None:
            return min(deadline, self._heartbeat.deadline)
        return deadline

    def tick(self, now: float) -> list[Event]:
        """What has come due."""
        events: list[Event] = []
        if self.state is State.CLOSED:
            return events
        if self._end_overdue(now, events):
            return events
        if now >= self._age_deadline:
            self._age_deadline = NEVER
            self.drain(now, self.goaway(Code.MAXIMUM_AGE))
        if now >= self._idle_deadline:
            self._check_idle(now, events)
        if self._heartbeat is not None and not self.closed:
            self._poll_heartbeat(self._heartbeat, now, events)
        return events

    def _end_overdue(self, now: float, events: list[Event]) -> bool:
        """Closes the session if a deadline that ends it has passed."""
        if now >= self._greet_deadline:
            if self.state is State.AWAIT_TLS:
                self._close(Code.CONNECTION_TIMED_OUT, "TLS handshake not done in time", events)
            else:
                self._close(Code.HELLO_TIMEOUT, "no greeting in time", events)
        elif now >= self._frame_deadline:
            self._close(Code.FRAME_TIMEOUT, "a started frame was not completed in time", events)
        elif now >= self._certificate_deadline:
            self._close(Code.CERTIFICATE_REJECTED, "certificate expired while connected", events)
        elif self._leave is not None and now >= self._close_deadline:
            self._end(self._last_word(self._leave, now), events)
        return self.closed

    def _check_idle(self, now: float, events: list[Event]) -> None:
        if not self.active:
            self._close(Code.CONNECTION_TIMED_OUT, "idle for too long", events)
            return
        self.active = False
        self._idle_deadline = now + self.settings.idle_timeout

    def _poll_heartbeat(self, heartbeat: Heartbeat, now: float, events: list[Event]) -> None:
        for beat in heartbeat.poll(now):
            if beat is Beat.PING_DUE:
                self.send(m.Ping(), heartbeat.ping_sent(now))
            elif beat is Beat.PING_MISSED:
                events.append(PingMissed())
            elif beat is Beat.JITTER:
                events.append(Jittered(heartbeat.silence(now)))
            else:
                detail = f"silent for {heartbeat.silence(now):.1f} s"
                self._close(Code.HEARTBEAT_LOST, detail, events)

    # --------------------------------------------------------------------------------------------------------------- closing

    def goaway(
        self, code: Code, detail: str = "", *, retry_after_ms: int = 0, jitter_ms: int = 0, close_after: float | None = None
    ) -> m.GoAway:
        """A GoAway with the advice of the table of codes that leaves the peer `close_after` seconds (None: `drain_timeout`)."""
        info = CODES[code]
        close_after_ms = int((self.settings.drain_timeout if close_after is None else close_after) * 1000)
        return m.GoAway(code, info.advice, detail or info.meaning, retry_after_ms, jitter_ms, close_after_ms)

    def drain(self, now: float, goaway: m.GoAway) -> None:
        """Tells the peer to leave; the session closes `close_after_ms` later, or when the peer has closed.

        Raises LocalProtocolError unless the session is established or draining already.
        """
        if not self._move(Input.DRAIN):
            raise LocalProtocolError(f"cannot drain in state {self.state.value}")
        self.send(goaway)
        self._leave_by(now, now + goaway.close_after_ms / 1000, goaway)

    def _leave_by(self, now: float, deadline: float, goaway: m.GoAway) -> None:
        """The session ends at `deadline`, if not before, and says then what `goaway` says. The last one counts."""
        self._close_deadline = min(self._close_deadline, deadline)
        self._leave = replace(goaway, close_after_ms=0)
        self._told_to_leave_at = now

    def _last_word(self, leave: m.GoAway, now: float) -> m.GoAway:
        """The GoAway once more; the time that it names is still the same moment (section 12.1)."""
        if not leave.retry_after_ms:
            return leave
        passed = int((now - self._told_to_leave_at) * 1000)
        return replace(leave, retry_after_ms=max(1, leave.retry_after_ms - passed))

    def close(
        self, code: Code, detail: str = "", *, advice: Advice | None = None, retry_after_ms: int = 0, jitter_ms: int = 0
    ) -> list[Event]:
        """Closes for a reason of ours: the GoAway is queued, the Closed event returned. Closing twice gives no event."""
        events: list[Event] = []
        if self.state is not State.CLOSED:
            info = CODES[code]
            advice = info.advice if advice is None else advice
            self._end(m.GoAway(code, advice, detail or info.meaning, retry_after_ms, jitter_ms), events)
        return events

    def _close(self, code: Code, detail: str, events: list[Event]) -> None:
        self._end(m.GoAway(code, CODES[code].advice, detail), events)

    def _end(self, goaway: m.GoAway, events: list[Event]) -> None:
        if self.state is not State.AWAIT_TLS:
            self.send(goaway)
        self.state = State.CLOSED
        events.append(Closed(goaway.code, goaway.advice, goaway.detail))


class ServerSession(Session):
    """The server's side. After Received(Hello) the shell decides, and calls `welcome` or `close`."""

    _table = SERVER_TABLE
    __slots__ = ()

    def _accept(self, request_id: int, message: m.Message, now: float, events: list[Event]) -> None:
        if isinstance(message, m.Hello):
            self._greet_deadline = NEVER
            if not message.protocol_min <= m.PROTOCOL_VERSION <= message.protocol_max:
                offered = f"{message.protocol_min} to {message.protocol_max}"
                detail = f"client speaks protocol {offered}, this server {m.PROTOCOL_VERSION}"
                self._close(Code.UNSUPPORTED_VERSION, detail, events)
                return
            settings = self.settings
            self._heartbeat = Heartbeat(settings.heartbeat, now, self._first_ping)
            if settings.idle_timeout:
                self._idle_deadline = now + settings.idle_timeout
            if settings.max_age:  # spread by a tenth, or what connected together would leave together
                self._age_deadline = now + settings.max_age * (0.9 + 0.2 * self._first_ping)
        super()._accept(request_id, message, now, events)
        if isinstance(message, m.GoAway):
            events.append(Closed(message.code, message.advice, message.detail, by_peer=True))

    def _guard_pings(self, now: float, events: list[Event]) -> None:
        """Pings are allowed, floods are not: each one ahead of the announced minimum is a strike, each good one takes one back."""
        minimum = self.settings.heartbeat.min_ping_interval
        too_fast = now - self._last_ping_at < minimum
        self._last_ping_at = now
        if not too_fast:
            self._ping_strikes = max(0, self._ping_strikes - 1)
            return
        self._ping_strikes += 1
        detail = f"pings must be {minimum:g} s apart"
        if self._ping_strikes > MAX_PING_STRIKES:
            self._close(Code.TOO_MANY_PINGS, detail, events)
        else:
            self._fault(Code.TOO_MANY_PINGS, detail, events)

    def welcome(self, message: m.Welcome, request_id: int = 0) -> None:
        """Answers Hello. Raises LocalProtocolError before Hello or after a close."""
        if self.state not in (State.ESTABLISHED, State.DRAINING):
            raise LocalProtocolError(f"cannot welcome in state {self.state.value}")
        self.send(message, request_id)
