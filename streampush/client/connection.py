"""One connection: a Twisted protocol around `ClientSession`. It greets, keeps the deadlines and says how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol as Port

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime, ITCPTransport, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.client.reconnect import Loss
from streampush.client.tls import Address, Security
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Advice, Code
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.framing import DEFAULT_MAX_FRAME
from streampush.protocol.session import NEVER, Closed, Event, Faulted, Received
from streampush.protocol.state import State

CLOSE_TIMEOUT = 5.0
"""Seconds for the peer to answer our close; then the connection is cut."""

_LEAVE_ON_ERROR = (Advice.RECONNECT, Advice.RECONNECT_ELSEWHERE)


class ConnectionOwner(Port):
    """Whom a connection tells."""

    def received(self, connection: StreamConnection, request_id: int, message: m.Message) -> None:
        """A message other than a heartbeat."""

    def faulted(self, connection: StreamConnection, code: Code | int, detail: str) -> None:
        """The server did something wrong that the connection survives."""

    def settle(self, connection: StreamConnection) -> None:
        """Everything that came with one read was handed over: what it brought about may be sent now."""

    def lost(self, connection: StreamConnection, loss: Loss) -> None:
        """The end, exactly once."""


@implementer(IHandshakeListener)
class StreamConnection(Protocol):
    """`hello` is asked when the handshake is done. The connection is established when the owner has received Welcome."""

    def __init__(
        self,
        clock: IReactorTime,
        session: ClientSession,
        address: Address,
        security: Security,
        hello: Callable[[], m.Hello],
        owner: ConnectionOwner,
    ) -> None:
        self._clock = clock
        self._session = session
        self._address = address
        self._security = security
        self._hello = hello
        self._owner: ConnectionOwner | None = owner
        self._timer: IDelayedCall | None = None
        self._leave_deadline = NEVER  # an Error told us to go: finish what is open until then
        self._abort_deadline = NEVER
        self._reading = False
        self._welcomed_at: float | None = None
        self._loss: Loss | None = None
        self._told_at = 0.0  # when the server said what is in it
        self._max_frame = DEFAULT_MAX_FRAME  # the server's, once it has greeted

    @property
    def open(self) -> bool:
        """Whether requests may be sent: greeted, and nobody is leaving."""
        return self._session.state is State.ESTABLISHED and self._leave_deadline == NEVER

    @property
    def greeted(self) -> bool:
        """Whether acknowledgements may be sent: greeted, and not closed."""
        return self._session.state in (State.ESTABLISHED, State.DRAINING) and self._welcomed_at is not None

    @property
    def slowdown(self) -> float:
        """What code 2008 has taught: for the session of the next connection."""
        return self._session.slowdown

    @property
    def reading(self) -> bool:
        """Whether what came with one read is being handed over: `settle` will follow."""
        return self._reading

    @property
    def draining(self) -> bool:
        """Whether the connection is to be left when nothing is open any more."""
        return self._session.state is State.DRAINING or self._leave_deadline != NEVER

    # ------------------------------------------------------------------------------------------------- called by Twisted

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._arm()

    def handshakeCompleted(self) -> None:
        problem = self._security.check(self._address, self._wire())
        if problem is not None:
            self._loss = Loss(Code.CERTIFICATE_REJECTED, Advice.UNSPECIFIED, problem, credentials=True)
            self.abort()
            return
        first = self._session.state is State.AWAIT_TLS
        if not self._session.closed:
            self._session.tls_done(self._clock.seconds())
        if first:
            self._session.hello(self._hello())
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        self._handle(self._session.receive(data, self._clock.seconds()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.lost(self, self._explain(reason))

    # ----------------------------------------------------------------------------------------------- called by the owner

    def send(self, message: m.Message, request_id: int = 0) -> None:
        """Sends now, or with everything else at the end of the read. Raises LocalProtocolError.

        A frame that the server would not take is not sent. Only a Publish can be that long, and only one with a long payload
        is worth encoding for it.
        """
        if isinstance(message, m.Publish) and 2 * len(message.payload) > self._max_frame:
            size = len(codec.encode(message, request_id))
            if size > self._max_frame:
                raise LocalProtocolError(f"a frame of {size} bytes, the server takes {self._max_frame}")
        self._session.send(message, request_id)
        if not self._reading:
            self._flush()

    def leave(self) -> None:
        """Says goodbye and closes; cuts the connection if that takes longer than CLOSE_TIMEOUT."""
        if self._session.state in (State.AWAIT_TLS, State.AWAIT_HELLO):
            self.abort()
            return
        now = self._clock.seconds()
        self._leave_deadline = NEVER
        if not self._session.closed:
            self._session.drain(now, m.GoAway(0, close_after_ms=int(CLOSE_TIMEOUT * 1000)))
        self._hang_up(now)

    def fail(self, code: Code, detail: str) -> None:
        """Closes because the server broke the rules."""
        self._handle(self._session.close(code, detail))

    def abort(self) -> None:
        """Cuts the connection at once."""
        if self._owner is not None and self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP, TLS and test transports have it, ITransport not

    # -------------------------------------------------------------------------------------------------------------- inside

    def _wire(self) -> ITransport:
        transport = self.transport
        assert transport is not None, "not connected"
        return transport

    def _handle(self, events: list[Event]) -> None:
        owner = self._owner
        if owner is None:
            return
        outermost = not self._reading
        self._reading = True
        try:
            for event in events:
                self._dispatch(owner, event)
            owner.settle(self)
        finally:
            self._reading = not outermost
        self._flush()

    def _dispatch(self, owner: ConnectionOwner, event: Event) -> None:
        if isinstance(event, Received):
            message = event.message
            if isinstance(message, m.Welcome):
                self._welcomed_at = self._clock.seconds()
                self._max_frame = message.limits.max_frame or DEFAULT_MAX_FRAME
                self._security.remember(self._address, self._wire())
            elif isinstance(message, m.GoAway):
                self._told(message)
            elif isinstance(message, m.Error) and message.advice in _LEAVE_ON_ERROR:
                self._retire(message)
            owner.received(self, event.request_id, message)
        elif isinstance(event, Faulted):
            owner.faulted(self, event.code, event.detail)
        elif isinstance(event, Closed):
            if self._loss is None:
                self._loss = Loss(event.code, event.advice, event.detail)
            self._hang_up(self._clock.seconds())

    def _retire(self, error: m.Error) -> None:
        """An Error that advises another connection. What is open is finished first: after a GoAway the server reads no more."""
        self._told(error)
        self._leave_deadline = min(self._leave_deadline, self._clock.seconds() + self._session.settings.drain_timeout)

    def _told(self, message: m.GoAway | m.Error) -> None:
        self._loss = Loss(message.code, message.advice, message.detail, message.retry_after_ms, message.jitter_ms, by_peer=True)
        self._told_at = self._clock.seconds()

    def _hang_up(self, now: float) -> None:
        self._abort_deadline = min(self._abort_deadline, now + CLOSE_TIMEOUT)
        self._flush()
        if self.transport is not None:
            self.transport.loseConnection()

    def _flush(self) -> None:
        data = self._session.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)
        self._arm()

    def _arm(self) -> None:
        """One timer for all deadlines. It is never put off: when it fires too early it is set anew, which is rarer."""
        deadline = min(self._session.deadline, self._leave_deadline, self._abort_deadline)
        if self._owner is None or deadline == NEVER:
            return
        delay = max(0.0, deadline - self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._due)
        elif deadline < self._timer.getTime():
            self._timer.reset(delay)

    def _due(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if now >= self._abort_deadline:
            self.abort()
            return
        if now >= self._leave_deadline:
            self.leave()
        self._handle(self._session.tick(now))

    def _explain(self, reason: Failure) -> Loss:
        lived = None if self._welcomed_at is None else self._clock.seconds() - self._welcomed_at
        loss = self._loss
        problem = self._security.explain(reason)
        if loss is None and problem is not None:
            loss = Loss(Code.CERTIFICATE_REJECTED, Advice.UNSPECIFIED, problem, credentials=True)
        elif loss is None:
            loss = Loss(detail=reason.getErrorMessage())
        return replace(loss, lived=lived, since_told=self._clock.seconds() - self._told_at if loss.by_peer else 0.0)


class OneConnection(Factory):
    """Hands out a connection that exists already."""

    noisy = False

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> StreamConnection:
        return self._connection
