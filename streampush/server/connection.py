"""One connection of a device or a publisher: the shell around ServerSession.

Theory of operation. Bytes go in through `dataReceived`, events come out of the session, each event is one small method here
or in `requests`. Deadlines are not timers: the node's timing wheel asks `deadline` and calls `tick`. After every step what the
session wants to say is written, so that its frames and the fan-out's deliveries leave in the order in which they arose.

A connection ends in one of three ways: the session closed (we wrote a GoAway: the transport flushes, and is aborted if the
peer does not let it within `linger`), the peer said GoAway, or the network went away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.python.failure import Failure

from streampush.protocol import messages as m
from streampush.protocol.codes import Advice, Code
from streampush.protocol.events import Closed, Event, Received
from streampush.protocol.session import NEVER, ServerSession
from streampush.protocol.state import State
from streampush.push.delivery import Attachment
from streampush.push.values import Principal, Subscription, SubscriptionRefused
from streampush.server import wire
from streampush.server.connection_notes import note_close, note_event
from streampush.server.gate import Rejected
from streampush.server.ports import StreamTransport
from streampush.server.requests import Requests
from streampush.server.surroundings import ConnectionSurroundings

Address = IPv4Address | IPv6Address

LINGER = 5.0
"""Seconds that a closed connection has to let its last frames go."""

WITH_SLOT = frozenset({Code.CONNECTION_LIMIT, Code.DRAINING, Code.ACCEPT_RATE_LIMIT, Code.OVERLOADED})
"""Codes that many clients may get at once: each is told a moment of its own at which to come back."""

CERTIFICATE_RESULTS = frozenset({"no_certificate", "unknown_ca", "expired", "revoked", "denied", "bad_certificate", "bad_identity"})
"""Results of a handshake that are the certificate's fault: counted as closes with 1010."""


class StreamConnection:
    """See transport.StreamProtocol for the methods that the transport calls, push.ports.Link for those of the fan-out."""

    __slots__ = (
        "_around",
        "_began_at",
        "_close_at",
        "_ended",
        "_full_since",
        "_handshaken",
        "_refusal",
        "_requests",
        "_transport",
        "address",
        "attachment",
        "host",
        "principal",
        "session",
        "session_id",
        "wheel_tick",
    )

    def __init__(self, around: ConnectionSurroundings, peer: Address, refusal: Code | None = None) -> None:
        """`refusal`: the connection was let in only to be told this, once the handshake says that it is a client of ours."""
        now = around.clock()
        self.host = peer.host
        self.address = f"{peer.host}:{peer.port}"
        self.session_id = around.new_session_id()
        self.session = ServerSession(around.settings, now, around.first_ping())
        self.principal: Principal | None = None
        self.attachment: Attachment | None = None
        self.wheel_tick = -1
        self._around = around
        self._began_at = now
        self._close_at = NEVER
        self._full_since = NEVER
        self._handshaken = False
        self._refusal = refusal
        self._ended: Closed | None = None
        self._requests: Requests | None = None
        self._transport: StreamTransport

    # -------------------------------------------------------------------------------------------- called by the transport

    def makeConnection(self, transport: StreamTransport) -> None:
        self._transport = transport
        self._around.metrics.connection_state(None, self.session.state.value)
        self._around.opened(self)

    def handshakeCompleted(self) -> None:
        """TLS is there, and only now is it known who this is. Can come more than once: the check is made each time."""
        around = self._around
        if not self._handshaken:
            self._handshaken = True
            around.handshake_done(self.host)
        now = around.clock()
        was = self.session.state
        try:
            admitted = around.gate.identify(self._transport.peer_certificate())
        except Rejected as rejected:
            around.metrics.handshake(rejected.result, None)
            self.session.tls_done(now)
            self._moved(was)
            self.close(rejected.code, rejected.detail)
            return
        around.metrics.handshake("resumed" if self._transport.session_reused else "ok", now - self._began_at)
        self.principal = admitted.principal
        self.session.tls_done(now, now + admitted.valid_for)
        self._moved(was)
        around.governor.capacity.made(self._transport.handshake_cpu, now, resumed=self._transport.session_reused)
        if self._refusal is not None:
            self.close(self._refusal, "")
        around.reschedule(self)

    def handshakeFailed(self, result: str, detail: str) -> None:
        """Nothing but a TLS alert can go out."""
        around = self._around
        self._handshake_over()
        ended = self._ended
        timed_out = ended is not None and ended.code == Code.CONNECTION_TIMED_OUT
        around.metrics.handshake("timeout" if timed_out else result, None)
        if ended is None:
            code = Code.CERTIFICATE_REJECTED if result in CERTIFICATE_RESULTS else Code.CONNECTION_TIMED_OUT
            self._ended = Closed(code, Advice.UNSPECIFIED, f"TLS handshake: {result}: {detail}")
        # the transport lets the alert go out and waits for the peer to close; that has an end
        self._close_at = around.clock() + LINGER
        around.reschedule(self)

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        frames = session.frames_received
        was = session.state
        events = session.receive(data, self._around.clock())
        self._around.metrics.received(session.frames_received - frames, len(data))
        moved = session.state is not was
        if moved:
            self._moved(was)
        # whole frames in the same state only push deadlines back, and the wheel is lazy: no need to tell it
        self._perform(events, sooner=moved or session.mid_frame)

    def roomAgain(self) -> None:
        self._full_since = NEVER
        if self.attachment is not None:
            self.attachment.room_again()
        if self._requests is not None:
            self._requests.room_again()

    def connectionLost(self, reason: Failure) -> None:
        around = self._around
        self._handshake_over()
        ended = self._ended
        by = "server"
        if ended is None:
            by = "network"
            ended = Closed(Code.CONNECTION_TIMED_OUT, Advice.RECONNECT, f"connection lost: {reason.getErrorMessage()}")
        elif ended.by_peer:
            by = "peer"
        was = self.session.state
        self.session.close(Code.CONNECTION_TIMED_OUT)
        around.metrics.connection_state(was.value, None)
        note_close(around, self, ended, by, around.clock() - self._began_at)
        self._detach(ended)
        around.gone(self)

    # ---------------------------------------------------------------------------------------------- called by the fan-out

    def deliver(self, frames: bytes, messages: int) -> None:
        """See push.ports.Link."""
        self.session.active = True
        self._around.metrics.sent(messages, len(frames))
        transport = self._transport
        transport.write(frames)
        if not transport.has_room():
            self._filled()

    def has_room(self) -> bool:
        return self._transport.has_room()

    def backlog_end(self, channel: str, offset: int) -> None:
        self.send(m.BacklogEnd(channel, offset))

    def repositioned(self, subscription: Subscription | SubscriptionRefused) -> None:
        self.send(wire.subscribed(subscription))

    def wake_by(self, deadline: float) -> None:
        """The wheel asks the attachment itself, see `deadline`."""
        self._around.reschedule(self)

    def close(self, code: Code, detail: str) -> None:
        """Ends the connection with a GoAway; harmless if it is ending already."""
        slot = self._around.governor.slot_for_refusal(code, self._around.clock()) if code in WITH_SLOT else 0.0
        self._close(code, detail, int(slot * 1000))

    def _close(self, code: Code, detail: str, retry_after_ms: int) -> None:
        was = self.session.state
        events = self.session.close(code, detail, retry_after_ms=retry_after_ms)
        self._moved(was)
        self._perform(events)

    # -------------------------------------------------------------------------------------------------- called by the node

    @property
    def deadline(self) -> float:
        """When to call `tick` at the latest."""
        stalled = self._full_since + self._around.config.session.send_stall_timeout
        unanswered = NEVER if self.attachment is None else self.attachment.deadline
        return min(self.session.deadline, self._close_at, stalled, unanswered)

    def tick(self) -> None:
        """A deadline may have come."""
        now = self._around.clock()
        if now >= self._close_at:
            self._close_at = NEVER
            self._transport.abort()
            return
        if now >= self._full_since + self._around.config.session.send_stall_timeout:
            self._full_since = NEVER
            self.close(Code.SLOW_CONSUMER, "the send buffer did not move")
            return
        if self.attachment is not None and now >= self.attachment.deadline:
            self.attachment.tick(now)
        was = self.session.state
        events = self.session.tick(now)
        self._moved(was)
        self._perform(events)

    @property
    def told(self) -> bool:
        """Whether the connection was let in only to be told that it is refused."""
        return self._refusal is not None

    @property
    def leaving(self) -> bool:
        """Whether the peer was told to leave, or has, or the connection has ended."""
        return self._ended is not None or self.session.state in (State.DRAINING, State.CLOSED)

    def drain(self, code: Code, detail: str, retry_after_ms: int = 0, close_after: float | None = None) -> None:
        """Asks an established peer to leave, and to come back in `retry_after_ms`; one that is not there yet is closed.

        `close_after`: seconds that it has; None: `session.drain_timeout`.
        """
        was = self.session.state
        if was in (State.ESTABLISHED, State.DRAINING):
            goaway = self.session.goaway(code, detail, retry_after_ms=retry_after_ms, close_after=close_after)
            self.session.drain(self._around.clock(), goaway)
            self._moved(was)
            self.flush()
            self._around.reschedule(self)
        elif was is State.AWAIT_TLS:
            self._ended = Closed(code, Advice.UNSPECIFIED, detail)
            self._transport.abort()
        else:
            self._close(code, detail, retry_after_ms)

    def abort(self) -> None:
        """Cuts the connection at once."""
        if self._ended is None:
            self._ended = Closed(Code.DRAINING, Advice.RECONNECT_ELSEWHERE, "cut by the server")
        self._transport.abort()

    def recheck(self) -> None:
        """The lists of revoked and denied certificates are new: one that is on them now is closed."""
        if self.principal is None or self.session.closed:
            return
        try:
            self._around.gate.identify(self._transport.peer_certificate())
        except Rejected as rejected:
            self.close(rejected.code, rejected.detail)

    # ------------------------------------------------------------------------------------------------------------- inside

    def send(self, message: m.Message, request_id: int = 0) -> None:
        """Queues and writes a message, unless the session has closed meanwhile."""
        if not self.session.closed:
            self.session.send(message, request_id)
            self.flush()

    def send_all(self, messages: Sequence[m.Message]) -> None:
        """As `send`, for several at once."""
        for message in messages:
            if not self.session.closed:
                self.session.send(message)
        self.flush()

    def flush(self) -> None:
        """Writes what the session has to say."""
        data = self.session.data_to_send()
        if not data:
            return
        self._around.metrics.sent(1, len(data))
        transport = self._transport
        transport.write(data)
        if not transport.has_room():
            self._filled()

    def _filled(self) -> None:
        """The send buffer is above its mark: the peer has `send_stall_timeout` to read, and may not fill it much further."""
        around = self._around
        if self._full_since == NEVER:
            self._full_since = around.clock()
            around.reschedule(self)
        if self._transport.buffered > around.config.session.send_buffer_max and not self.session.closed:
            self.close(Code.SLOW_CONSUMER, f"{self._transport.buffered} bytes wait for a peer that does not read")

    def _moved(self, was: State) -> None:
        if self.session.state is not was:
            self._around.metrics.connection_state(was.value, self.session.state.value)

    def _perform(self, events: list[Event], *, sooner: bool = True) -> None:
        """Acts on what happened and writes what is to be said. `sooner`: the next deadline may have come nearer."""
        ended = None
        for event in events:
            if type(event) is Received:  # nearly always
                if self._requests is None or type(event.message) is m.Hello:
                    self._greeted(event)
                else:
                    self._requests.receive(event.request_id, event.message)
            elif isinstance(event, Closed):
                ended = replace(event, detail=wire.peer_text(event.detail)) if event.by_peer else event
            else:
                note_event(self._around, self, event)
        self.flush()
        if ended is not None:
            self._end(ended)
        elif sooner:
            self._around.reschedule(self)

    def _greeted(self, event: Received) -> None:
        """The first message; what else comes before it changes nothing."""
        if isinstance(event.message, m.Hello):
            self._requests = Requests(self, self._around)
            self._requests.greet(event.request_id, event.message)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _end(self, ended: Closed) -> None:
        """The session is closed: what is written goes out, the rest is the transport's."""
        around = self._around
        first = self._ended is None
        self._ended = ended if first else self._ended
        self._full_since = NEVER
        self._detach(ended)
        if not self._handshaken:
            self._transport.abort()
            return
        if first:
            self._close_at = around.clock() + LINGER
            around.reschedule(self)
        self._transport.lose_connection()

    def _detach(self, ended: Closed) -> None:
        if self._requests is not None:
            self._requests.close()
        if self.attachment is not None:
            attachment, self.attachment = self.attachment, None
            self._around.service.detach(attachment, int(ended.code), ended.detail)

    def _handshake_over(self) -> None:
        if not self._handshaken:
            self._handshaken = True
            self._around.handshake_done(self.host)
