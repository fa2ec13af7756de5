"""The reference client: keeps a connection to a streampush server, gives messages to the application, acknowledges them.

Theory of operation. `Reconnect` decides when and where to connect, `StreamConnection` is one connection, `Inbox` is what has
arrived, `OpenRequests` what we asked. This file connects the four; there is one connection or one timer for the next, never
both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import Unpack

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.client.connection import OneConnection, StreamConnection
from streampush.client.errors import ClientStopped, ConnectionLost, NotConnected
from streampush.client.events import ClientEvent, Connected, Degraded, Disconnected, Fault, ReceiptArrived, Stopped, StopReason
from streampush.client.inbox import Inbox, OnMessage, Window
from streampush.client.positions import MemoryPositions, PositionStore
from streampush.client.publishing import PublishOptions, publish, publish_request
from streampush.client.reconnect import Attempt, Decision, Loss, Reconnect, Stop
from streampush.client.requests import OpenRequests, R
from streampush.client.tls import Address, Security
from streampush.protocol import messages as m
from streampush.protocol.client_session import ClientSession
from streampush.protocol.codes import Code
from streampush.protocol.framing import MAX_FRAME_LIMIT
from streampush.protocol.session import SessionSettings
from streampush.protocol.terms import AppState, Feature, Outcome, Start, TokenProvider

SDK = "streampush-python"
SDK_VERSION = "0.1.0"

COLLECT_TIMEOUT = 60.0
"""Seconds that a short connection of the degraded mode may take to collect the backlog."""

REQUEST_TIMEOUT = 30.0
MAX_REQUESTS = 256
"""Requests that wait for their replies: bounds the memory that a server which does not answer can cost."""

_log = Logger()


class _Life(Enum):
    NEW = "new"
    RUNNING = "running"
    STOPPED = "stopped"


class StreamClient:
    """A device or a publisher on the framed protocol.

    `addresses`: host names or IP addresses with ports, in the order of preference. `on_message` is awaited with each message,
    in order and one at a time for each channel; what it returns (None: PROCESSED) is acknowledged, `Reject` raised in it is
    REJECTED, any other exception RETRY_LATER: the channel goes on, and the message is given to it again when the server delivers
    it again. Without `on_message`, messages are left unacknowledged. `on_event` hears what happens; it must not block. `window`:
    messages and bytes taken unacknowledged. `positions`: where the application is on each channel; in memory by default.
    `receipts`: a publisher hears what becomes of its messages. `request_timeout`: seconds, default of all requests. Raises
    ValueError without an address.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        addresses: Sequence[Address],
        tls: Security,
        *,
        on_message: OnMessage | None = None,
        app: str = "",
        app_version: str = "",
        state: AppState = AppState.UNSPECIFIED,
        window: Window | None = None,
        positions: PositionStore | None = None,
        receipts: bool = False,
        on_event: Callable[[ClientEvent], None] | None = None,
        random: Random | None = None,
        settings: SessionSettings | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self._reactor = reactor
        self._addresses = tuple(addresses)
        self._security = tls
        self._takes_messages = on_message is not None
        self._app = (app, app_version)
        self._app_state = state
        self._window = window or Window()
        self._features = Feature.RECEIPTS if receipts else Feature.NONE
        self._on_event = on_event
        self._random = random or Random()  # noqa: S311 - spreads clients, guards nothing
        self._settings = settings or SessionSettings(max_frame=MAX_FRAME_LIMIT)
        self._reconnect = Reconnect(len(self._addresses), self._random)
        self._request_timeout = request_timeout
        self._requests = OpenRequests(reactor, self._random, max_requests, request_timeout)
        store = positions or MemoryPositions()
        self._inbox = Inbox(on_message or _leave_it, self._window, store, self._emit, self._progressed)
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

    # ------------------------------------------------------------------------------------------------------ for applications

    @property
    def welcome(self) -> m.Welcome | None:
        """The server's greeting on the present connection; None without one that takes requests."""
        connection = self._connection
        return self._welcome if connection is not None and connection.open and not self._short else None

    def start(self) -> None:
        """Connects, and goes on doing so until `stop` or until there is a reason to stop. Raises ClientStopped after that."""
        if self._life is _Life.STOPPED:
            raise ClientStopped(self._stop_detail)
        if self._life is _Life.NEW:
            self._life = _Life.RUNNING
            self._follow(self._reconnect.begin())

    async def stop(self) -> None:
        """Says goodbye, closes, cancels the application's work in progress; returns when the connection is gone."""
        self._finish(Stop(StopReason.REQUESTED, 0, "stopped by the application"))
        if self._connection is not None:
            ended: Deferred[None] = Deferred()
            self._ended.append(ended)
            await ended

    async def connected(self) -> m.Welcome:
        """Waits for a connection that takes requests. Raises ClientStopped if there will be none."""
        if self._life is _Life.STOPPED:
            raise ClientStopped(self._stop_detail)
        welcome = self.welcome
        if welcome is not None:
            return welcome
        waiting: Deferred[m.Welcome] = Deferred(lambda this: self._waiting.remove(this))
        self._waiting.append(waiting)
        return await waiting

    async def subscribe(
        self,
        channel: str,
        *,
        start: Start = Start.UNSPECIFIED,
        position: m.Position | None = None,
        durable: bool = False,
        timeout: float | None = None,
    ) -> m.Subscribed:
        """Follows a channel, also over reconnects, until `unsubscribe`. `durable`: the server keeps the subscription, too.

        Begins behind `position`, or at `start`, or where this client or the server's cursor is. Raises as `publish` does, save
        that nothing is tried again.
        """
        exact = position is not None or start is not Start.UNSPECIFIED
        answer = await self._ask(self._inbox.request(channel, start, position, durable=durable), m.Subscribed, timeout)
        self._heed(self._inbox.subscribed(answer, exact=exact))
        return answer

    async def unsubscribe(self, channel: str, *, timeout: float | None = None) -> None:
        """Follows a channel no longer and forgets its position.

        Without a connection there is nobody to tell, which does no harm unless the subscription is durable: that raises
        NotConnected, and changes nothing.
        """
        if self._inbox.durable(channel) and self.welcome is None:
            raise NotConnected("a durable subscription ends at the server")
        self._inbox.forget(channel)
        if self.welcome is not None:
            await self._ask(m.Unsubscribe(channel), m.Ok, timeout)

    async def publish(
        self, channel: str, payload: bytes, *, timeout: float | None = None, **options: Unpack[PublishOptions]
    ) -> m.PublishOk:
        """Publishes; returns when the message is stored as safely as the answer says, or is known to be stored already.

        If the connection is lost meanwhile, it is sent again on the next one, under the same idempotency key, as long as
        `timeout` seconds last; with an empty key it is sent once. Whoever wants to be sure over a restart gives a key.

        Raises NotConnected, TooManyRequests and InvalidRequest (nothing was sent), RequestRefused (nothing was done),
        RequestTimeout and ConnectionLost (it may be done or not; the same key again will tell).
        """
        request = publish_request(channel, payload, options)
        seconds = self._request_timeout if timeout is None else timeout
        return await publish(self._reactor, request, seconds, self._publish_once, self.connected)

    def processed(self, message: m.Delivery) -> None:
        """The application is done with a message that it had answered with DELIVERED, and with all before it of the channel."""
        self._inbox.done(message.channel, message.offset)

    async def set_state(self, state: AppState, *, timeout: float | None = None) -> None:
        """Whether a person is looking at the application; told now, or with the next greeting. Raises as `publish` does."""
        self._app_state = state
        if self.welcome is not None:
            await self._ask(m.State(state), m.Ok, timeout)

    async def register_token(self, token: bytes, topic: str, *, sandbox: bool = False, timeout: float | None = None) -> None:
        """An APNs device token for when this device is away. Raises as `publish` does."""
        await self._ask(m.RegisterToken(TokenProvider.APNS, token, topic, sandbox), m.Ok, timeout)

    def drop(self) -> None:
        """Cuts the TCP connection without a word, as a bad network does: for tests and demonstrations."""
        if self._connection is not None:
            self._connection.abort()

    # ------------------------------------------------------------------------------------------------------------- requests

    async def _ask(self, request: m.Message, expected: type[R], timeout: float | None) -> R:
        connection = self._connection
        if self._life is _Life.STOPPED:
            raise ClientStopped(self._stop_detail)
        if connection is None or self.welcome is None:
            raise NotConnected("no connection that takes requests")
        return await self._requests.ask(connection.send, request, expected, timeout)

    async def _publish_once(self, request: m.Publish, timeout: float) -> m.PublishOk:
        return await self._ask(request, m.PublishOk, timeout)

    # ----------------------------------------------------------------------------------------------------------- connecting

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

    def _hello(self) -> m.Hello:
        window = self._window
        return m.Hello(
            features=self._features,
            app=self._app[0],
            app_version=self._app[1],
            sdk=SDK,
            sdk_version=SDK_VERSION,
            receive_window_messages=window.messages,
            receive_window_bytes=window.bytes,
            resume=self._inbox.resume(),
            state=self._app_state,
        )

    # ---------------------------------------------------------------------------------------------- called by the connection

    def received(self, connection: StreamConnection, request_id: int, message: m.Message) -> None:
        """See ConnectionOwner."""
        if connection is not self._connection or self._life is not _Life.RUNNING:
            return
        if isinstance(message, m.Delivery):
            if self._takes_messages:
                self._heed(self._inbox.deliver(message))
        elif isinstance(message, m.Welcome):
            self._greeted(message)
        elif request_id and self._requests.answer(request_id, message):
            pass  # whoever asked has it
        elif isinstance(message, m.Subscribed):
            self._heed(self._inbox.subscribed(message))
        elif isinstance(message, m.BacklogEnd):
            self._heed(self._inbox.backlog_end(message))
        elif isinstance(message, m.Receipt):
            self._emit(ReceiptArrived(message))
        elif isinstance(message, m.Error):
            self._emit(Fault(message.code, message.detail))

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
        if self._life is _Life.RUNNING:  # the application may have stopped us in between
            self._follow(decision)

    def _greeted(self, welcome: m.Welcome) -> None:
        self._welcome = welcome
        self._reconnect.welcomed(welcome.reconnect)
        self._emit(Connected(welcome, self._short))
        for subscribed in welcome.subscribed:
            self._heed(self._inbox.subscribed(subscribed))
        if self.welcome is not None:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(welcome)

    def _heed(self, within_limits: bool) -> None:
        if not within_limits and self._connection is not None:
            self._connection.fail(Code.UNEXPECTED_MESSAGE, "more than the announced receive window")

    def _progressed(self) -> None:
        """The inbox has acknowledgements. Within a read they wait for its end, so that one may speak for many."""
        if self._connection is not None and not self._connection.reading:
            self._progress(self._connection)

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
        if self._connecting is not None:
            self._connecting.cancel()
        elif self._connection is not None:
            self._connection.leave()
        self._emit(Stopped(stop.reason, stop.code, stop.detail))

    def _emit(self, event: ClientEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - the application's code; its text may quote anything
            _log.error("on_event raised {kind} for {event}", kind=type(error).__name__, event=type(event).__name__)


async def _leave_it(message: m.Delivery) -> Outcome | None:
    """Stands in for `on_message` where no messages are taken."""
    raise CancelledError
