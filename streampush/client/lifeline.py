"""The connections of a client, one after the other, from `start` to `stop` or to a reason to stop.

Theory of operation. `Reconnect` decides when and where to connect, `StreamConnection` is one connection. Here are the one that is
there and the one that comes next: there is one connection or one timer for the next, never both. In the degraded mode a
connection is short: it takes no requests, and is left when the inbox has collected the backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.python.failure import Failure

from streampush.client.appointments import Appointment, AppointmentStore
from streampush.client.connection import OneConnection, StreamConnection
from streampush.client.errors import ClientStopped, ConnectionLost, NotConnected
from streampush.client.events import Appointed, ClientEvent, Connected, Degraded, Disconnected, Fault, Stopped, StopReason
from streampush.client.inbox import Inbox
from streampush.client.reconnect import Attempt, Decision, Loss, Reconnect, Stop
from streampush.client.requests import OpenRequests
from streampush.client.tls import Address, Security
from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Code
from streampush.protocol.session import SessionSettings

COLLECT_TIMEOUT = 60.0
"""Seconds that a short connection of the degraded mode may take to collect the backlog."""


class _Life(Enum):
    NEW = "new"
    RUNNING = "running"
    STOPPED = "stopped"


class Lifeline:
    """Connects, greets, acknowledges what the inbox has done, leaves, and connects again. See ConnectionOwner.

    `hello` is asked at each greeting; `received` gets the messages that are neither a heartbeat nor Welcome, with the id of the
    request that they answer, or 0; `emit` hears what happens; `wall` gives Unix seconds. Raises ValueError without an address.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        addresses: Sequence[Address],
        security: Security,
        inbox: Inbox,
        requests: OpenRequests,
        *,
        settings: SessionSettings,
        random: Random,
        hello: Callable[[], m.Hello],
        received: Callable[[int, m.Message], None],
        emit: Callable[[ClientEvent], None],
        appointments: AppointmentStore,
        wall: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._addresses = tuple(addresses)
        self._security = security
        self._inbox = inbox
        self._requests = requests
        self._settings = settings
        self._random = random
        self._hello = hello
        self._received = received
        self._emit = emit
        self._appointments = appointments
        self._wall = wall
        self._appointed = False  # a moment that the server has named is kept
        self._reconnect = Reconnect(len(self._addresses), random)
        self._life = _Life.NEW
        self._stop_detail = ""
        self._connection: StreamConnection | None = None
        self._connecting: Deferred[IProtocol] | None = None
        self._next_try: IDelayedCall | None = None
        self._collecting: IDelayedCall | None = None  # a short connection is at work; when it must be done
        self._collected = False  # and left because it was done
        self._short = False  # the present connection only collects: it takes no requests
        self._slowdown = 1.0  # of our heartbeat, as code 2008 has taught it
        self._welcome: m.Welcome | None = None
        self._waiting: list[Deferred[m.Welcome]] = []
        self._ended: list[Deferred[None]] = []  # stop() calls that wait for the connection to close

    # ------------------------------------------------------------------------------------------------------- for the client

    @property
    def welcome(self) -> m.Welcome | None:
        """The server's greeting on the present connection; None without one that takes requests."""
        connection = self._connection
        return self._welcome if connection is not None and connection.open and not self._short else None

    def start(self) -> None:
        """See StreamClient.start."""
        self._check_running()
        if self._life is _Life.NEW:
            self._life = _Life.RUNNING
            self._follow(self._begin())

    async def stop(self) -> None:
        """See StreamClient.stop."""
        self._finish(Stop(StopReason.REQUESTED, 0, "stopped by the application"))
        if self._connection is not None:
            ended: Deferred[None] = Deferred()
            self._ended.append(ended)
            await ended

    async def connected(self) -> m.Welcome:
        """See StreamClient.connected."""
        self._check_running()
        welcome = self.welcome
        if welcome is not None:
            return welcome
        waiting: Deferred[m.Welcome] = Deferred(lambda this: self._waiting.remove(this))
        self._waiting.append(waiting)
        return await waiting

    def taking_requests(self) -> StreamConnection:
        """The present connection. Raises ClientStopped, and NotConnected if there is none that takes requests."""
        connection = self._connection
        self._check_running()
        if connection is None or self.welcome is None:
            raise NotConnected("no connection that takes requests")
        return connection

    def drop(self) -> None:
        """See StreamClient.drop."""
        if self._connection is not None:
            self._connection.abort()

    def heed(self, within_limits: bool) -> None:
        """What the inbox said of something received: a server that keeps to no limit is left."""
        if not within_limits and self._connection is not None:
            self._connection.fail(Code.UNEXPECTED_MESSAGE, "more than the announced receive window")

    def progressed(self) -> None:
        """The inbox has acknowledgements. Within a read they wait for its end, so that one may speak for many."""
        if self._connection is not None and not self._connection.reading:
            self._progress(self._connection)

    # ----------------------------------------------------------------------------------------------------------- connecting

    def _check_running(self) -> None:
        if self._life is _Life.STOPPED:
            raise ClientStopped(self._stop_detail)

    def _begin(self) -> Attempt:
        """The first connection; at the moment that the server has named before a restart, if there is one."""
        appointment: Appointment | None = None
        try:
            appointment = self._appointments.load()
        except Exception as error:  # noqa: BLE001 - the application's code; its text may quote anything
            self._emit(Fault(0, f"the appointment store raised {type(error).__name__}"))
        if appointment is None:
            return self._reconnect.begin()
        self._appointed = True
        names = [f"{host}:{port}" for host, port in self._addresses]
        address = names.index(appointment.address) if appointment.address in names else 0
        attempt = self._reconnect.begin(appointment.not_before_ms / 1000 - self._wall(), address)
        if attempt.appointed:
            self._emit(Appointed(attempt.delay))
        return attempt

    def _keep(self, attempt: Attempt) -> None:
        """The moment that the server has named outlives this process."""
        host, port = self._addresses[attempt.address]
        try:
            self._appointments.save(Appointment(int((self._wall() + attempt.delay) * 1000), f"{host}:{port}"))
        except Exception as error:  # noqa: BLE001 - as above
            self._emit(Fault(0, f"the appointment store raised {type(error).__name__}"))
        self._appointed = True

    def _arrived(self) -> None:
        """The server has greeted: what it had named is kept no longer."""
        if not self._appointed:
            return
        self._appointed = False
        try:
            self._appointments.forget()
        except Exception as error:  # noqa: BLE001 - as above
            self._emit(Fault(0, f"the appointment store raised {type(error).__name__}"))

    def _follow(self, decision: Decision) -> None:
        if isinstance(decision, Stop):
            self._finish(decision)
        else:
            self._next_try = self._reactor.callLater(decision.delay, self._connect, decision)

    def _connect(self, attempt: Attempt) -> None:
        self._next_try = None
        session = ClientSession(self._settings, self._reactor.seconds(), self._random.random(), self._slowdown)
        address = self._addresses[attempt.address]
        connection = StreamConnection(self._reactor, session, address, self._security, self._hello, self)
        self._collected = False
        self._short = attempt.degraded
        if self._short:
            self._collecting = self._reactor.callLater(COLLECT_TIMEOUT, self._collected_too_slowly)
        self._connection = connection
        connecting = self._security.connect(self._reactor, address, OneConnection(connection))
        self._connecting = connecting
        connecting.addCallbacks(self._reached, self._unreachable, callbackArgs=(connection,), errbackArgs=(connection,))

    def _reached(self, _: object, connection: StreamConnection) -> None:
        self._connecting = None

    def _unreachable(self, failure: Failure, connection: StreamConnection) -> None:
        self._connecting = None
        self.lost(connection, Loss(detail=failure.getErrorMessage()))

    # ---------------------------------------------------------------------------------------------- called by the connection

    def received(self, connection: StreamConnection, request_id: int, message: m.Message) -> None:
        """See ConnectionOwner."""
        if connection is not self._connection or self._life is not _Life.RUNNING:
            return
        if isinstance(message, m.Welcome):
            self._greeted(message)
        else:
            self._received(request_id, message)

    def faulted(self, connection: StreamConnection, code: Code | int, detail: str) -> None:
        """See ConnectionOwner."""
        self._emit(Fault(code, detail))

    def settle(self, connection: StreamConnection) -> None:
        """See ConnectionOwner."""
        if connection is self._connection:
            self._progress(connection)

    def lost(self, connection: StreamConnection, loss: Loss) -> None:
        """See ConnectionOwner."""
        if connection is not self._connection:
            return
        self._connection = None
        self._welcome = None
        self._slowdown = connection.slowdown
        if self._collecting is not None:
            self._collecting.cancel()
            self._collecting = None
        self._requests.fail(ConnectionLost, loss.detail)
        self._inbox.disconnected()
        ended, self._ended = self._ended, []
        for waiter in ended:
            waiter.callback(None)
        if self._life is _Life.RUNNING:
            self._decide(loss)

    # --------------------------------------------------------------------------------------------------------------- inside

    def _decide(self, loss: Loss) -> None:
        decision: Decision
        if self._collected and not loss.by_peer and not loss.credentials:
            decision = self._reconnect.short_closed()
        else:
            was_degraded = self._reconnect.degraded
            decision = self._reconnect.lost(loss)
            if self._reconnect.degraded and not was_degraded:
                self._emit(Degraded(self._reconnect.tries))
        next_try_in = decision.delay if isinstance(decision, Attempt) else None
        self._emit(Disconnected(loss.code, loss.advice, loss.detail, next_try_in))
        if isinstance(decision, Attempt) and decision.appointed:
            self._keep(decision)
        if self._life is _Life.RUNNING:  # the application may have stopped us in between
            self._follow(decision)

    def _greeted(self, welcome: m.Welcome) -> None:
        self._welcome = welcome
        self._reconnect.welcomed(welcome.reconnect)
        self._arrived()
        self._emit(Connected(welcome, self._short))
        for subscribed in welcome.subscribed:
            self.heed(self._inbox.subscribed(subscribed))
        if self.welcome is not None:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(welcome)

    def _progress(self, connection: StreamConnection) -> None:
        """Something was processed or answered: acknowledge, and leave if that was what we waited for."""
        if not connection.greeted:
            return
        for ack in self._inbox.take_acks():
            connection.send(ack)
        if self._collecting is not None and self._inbox.collected:
            self._collecting.cancel()
            self._collecting = None
            self._collected = True
            connection.leave()
        elif connection.draining and self._inbox.idle and not len(self._requests):
            connection.leave()

    def _collected_too_slowly(self) -> None:
        self._collecting = None
        self._leave()

    def _leave(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        elif self._connection is not None:
            self._connection.leave()

    def _finish(self, stop: Stop) -> None:
        """No more connections."""
        if self._life is _Life.STOPPED:
            return
        self._life = _Life.STOPPED
        self._stop_detail = f"{stop.reason.value}: {stop.detail}"
        for call in (self._next_try, self._collecting):
            if call is not None:
                call.cancel()
        self._next_try = self._collecting = None
        self._inbox.stop()
        self._requests.fail(ClientStopped, self._stop_detail)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(ClientStopped(self._stop_detail))
        self._leave()
        self._emit(Stopped(stop.reason, stop.code, stop.detail))
