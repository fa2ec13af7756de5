"""The reference client: keeps a connection to a streampush server, gives messages to the application, acknowledges them.

Theory of operation. `Lifeline` is one connection after the other, `Inbox` is what has arrived, `OpenRequests` what we asked. This
file is what the application calls, and hands each message to the one whom it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from time import time
from typing import Unpack

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from streampush.client.appointments import AppointmentStore, MemoryAppointments
from streampush.client.errors import NotConnected
from streampush.client.events import ClientEvent, Fault, ReceiptArrived
from streampush.client.inbox import Inbox, OnMessage, Window
from streampush.client.lifeline import Lifeline
from streampush.client.positions import MemoryPositions, PositionStore
from streampush.client.publishing import PublishOptions, publish, publish_request
from streampush.client.requests import OpenRequests, R
from streampush.client.tls import Address, Security
from streampush.protocol import messages as m
from streampush.protocol.framing import MAX_FRAME_LIMIT
from streampush.protocol.session import SessionSettings
from streampush.protocol.terms import AppState, Feature, Outcome, Start, TokenProvider

SDK = "streampush-python"
SDK_VERSION = "0.1.0"

REQUEST_TIMEOUT = 30.0
MAX_REQUESTS = 256
"""Requests that wait for their replies: bounds the memory that a server which does not answer can cost."""

_log = Logger()


class StreamClient:
    """A device or a publisher on the framed protocol.

    `addresses`: host names or IP addresses with ports, in the order of preference. `on_message` is awaited with each message,
    in order and one at a time for each channel; what it returns (None: PROCESSED) is acknowledged, `Reject` raised in it is
    REJECTED, any other exception RETRY_LATER: the channel goes on, and the message is given to it again when the server delivers
    it again. Without `on_message`, messages are left unacknowledged. `on_event` hears what happens; it must not block. `window`:
    messages and bytes taken unacknowledged. `positions`: where the application is on each channel; in memory by default.
    `appointments`: when the server wants the client back; in memory by default. `wall`: Unix seconds.
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
        appointments: AppointmentStore | None = None,
        receipts: bool = False,
        on_event: Callable[[ClientEvent], None] | None = None,
        random: Random | None = None,
        wall: Callable[[], float] = time,
        settings: SessionSettings | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self._reactor = reactor
        self._takes_messages = on_message is not None
        self._app = (app, app_version)
        self._app_state = state
        self._window = window or Window()
        self._features = Feature.RECEIPTS if receipts else Feature.NONE
        self._on_event = on_event
        self._request_timeout = request_timeout
        random = random or Random()  # noqa: S311 - spreads clients, guards nothing
        self._requests = OpenRequests(reactor, random, max_requests, request_timeout)
        store = positions or MemoryPositions()
        self._inbox = Inbox(on_message or _leave_it, self._window, store, self._emit, self._progressed)
        self._line = Lifeline(
            reactor,
            addresses,
            tls,
            self._inbox,
            self._requests,
            settings=settings or SessionSettings(max_frame=MAX_FRAME_LIMIT),
            random=random,
            hello=self._hello,
            received=self._received,
            emit=self._emit,
            appointments=appointments or MemoryAppointments(),
            wall=wall,
        )

    # ------------------------------------------------------------------------------------------------------ for applications

    @property
    def welcome(self) -> m.Welcome | None:
        """The server's greeting on the present connection; None without one that takes requests."""
        return self._line.welcome

    def start(self) -> None:
        """Connects, and goes on doing so until `stop` or until there is a reason to stop. Raises ClientStopped after that."""
        self._line.start()

    async def stop(self) -> None:
        """Says goodbye, closes, cancels the application's work in progress; returns when the connection is gone."""
        await self._line.stop()

    async def connected(self) -> m.Welcome:
        """Waits for a connection that takes requests. Raises ClientStopped if there will be none."""
        return await self._line.connected()

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
        that nothing is tried again. Behind a RequestTimeout the channel is followed from there all the same, if the server still
        answers so on this connection.
        """
        exact = position is not None or start is not Start.UNSPECIFIED

        def follow(answer: m.Subscribed) -> None:
            self._line.heed(self._inbox.subscribed(answer, exact=exact))

        request = self._inbox.request(channel, start, position, durable=durable)
        answer = await self._ask(request, m.Subscribed, timeout, late=follow, about=channel)
        follow(answer)
        return answer

    async def unsubscribe(self, channel: str, *, timeout: float | None = None) -> None:
        """Follows a channel no longer and forgets its position.

        Without a connection there is nobody to tell, which does no harm unless the subscription is durable: that raises
        NotConnected, and changes nothing.
        """
        if self._inbox.durable(channel) and self.welcome is None:
            raise NotConnected("a durable subscription ends at the server")
        self._inbox.forget(channel)
        self._requests.no_longer(channel)
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
        self._inbox.done(message)

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
        self._line.drop()

    # ------------------------------------------------------------------------------------------------------------- requests

    async def _ask(
        self,
        request: m.Message,
        expected: type[R],
        timeout: float | None,
        *,
        late: Callable[[R], None] | None = None,
        about: str = "",
    ) -> R:
        return await self._requests.ask(self._line.taking_requests().send, request, expected, timeout, late=late, about=about)

    async def _publish_once(self, request: m.Publish, timeout: float) -> m.PublishOk:
        return await self._ask(request, m.PublishOk, timeout)

    # ---------------------------------------------------------------------------------- called by the lifeline and the inbox

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

    def _received(self, request_id: int, message: m.Message) -> None:
        if isinstance(message, m.Delivery):
            if self._takes_messages:
                self._line.heed(self._inbox.deliver(message))
        elif request_id and self._requests.answer(request_id, message):
            pass  # whoever asked has it
        elif isinstance(message, m.Subscribed) and not request_id:  # else nobody wants to follow that any more
            self._line.heed(self._inbox.subscribed(message))
        elif isinstance(message, m.BacklogEnd):
            self._line.heed(self._inbox.backlog_end(message))
        elif isinstance(message, m.Receipt):
            self._emit(ReceiptArrived(message))
        elif isinstance(message, m.Error):
            self._emit(Fault(message.code, message.detail))

    def _progressed(self) -> None:
        self._line.progressed()

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
