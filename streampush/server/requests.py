"""What a client asks for once it has said hello: each message becomes a call of the application and a reply.

Requests of one connection run concurrently; more than MAX_OPEN at once stop the reading until half of them are answered, so a
client that asks faster than the store answers is slowed by TCP and not buffered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streampush.errors import Refused
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.terms import Feature, Outcome
from streampush.push.channels import Kind, kind_of
from streampush.push.delivery import Attachment
from streampush.push.push_tokens import push_token
from streampush.push.values import (
    ConnectionInfo,
    Principal,
    Published,
    PublishRequest,
    PushToken,
    Subscription,
    SubscriptionRefused,
)
from streampush.server import wire
from streampush.server.receipts import PublisherReceipts

if TYPE_CHECKING:
    from streampush.server.connection import StreamConnection
    from streampush.server.surroundings import ConnectionSurroundings

MAX_OPEN = 256
"""Requests of one connection that are not answered yet."""

MAX_RATE_REFUSALS = 1_000
"""Requests in a row that are refused for their rate before the connection is closed with 3001: answering them costs, too."""

MAX_NAME_BYTES = 128
"""Names of application and SDK in Hello."""

MAX_WINDOW_MESSAGES = 65_536
MAX_WINDOW_BYTES = 64 * 1024 * 1024
"""The widest receive window that a client gets; only its own acknowledgements are kept waiting by it."""


class Requests:
    """The dialogue behind Hello. One for each connection that came so far."""

    __slots__ = ("_around", "_connection", "_open", "_paused", "_rate_refusals", "receipts")

    def __init__(self, connection: StreamConnection, around: ConnectionSurroundings) -> None:
        self._connection = connection
        self._around = around
        self._open = 0
        self._paused = False
        self._rate_refusals = 0  # in a row
        self.receipts: PublisherReceipts | None = None  # if the client asked for them

    # ------------------------------------------------------------------------------------------------------------ greeting

    def greet(self, request_id: int, hello: m.Hello) -> None:
        """Answers Hello with Welcome, or closes."""
        connection = self._connection
        principal = connection.principal
        problem = self._problem(hello)
        if problem:
            connection.close(Code.SERIALIZATION_ERROR, problem)
        elif principal is None:
            connection.close(Code.FORBIDDEN, "the certificate names nobody")
        elif hello.device_id and hello.device_id != principal.name:
            connection.close(Code.FORBIDDEN, "device_id is not the identity in the certificate")
        else:
            self._around.spawn(self._greeting(request_id, hello, principal))

    def _problem(self, hello: m.Hello) -> str:
        names = (hello.app, hello.app_version, hello.sdk, hello.sdk_version)
        if any(len(name.encode()) > MAX_NAME_BYTES for name in names):
            return f"a name in Hello is above {MAX_NAME_BYTES} bytes"
        channels = {resume.channel for resume in hello.resume}
        if len(channels) != len(hello.resume):
            return "Hello resumes a channel twice"
        if len(channels) > self._around.config.delivery.max_subscriptions:
            return f"Hello resumes {len(channels)} channels, the limit is {self._around.config.delivery.max_subscriptions}"
        return ""

    async def _greeting(self, request_id: int, hello: m.Hello, principal: Principal) -> None:
        try:
            await self._welcome(request_id, hello, principal)
        except Refused as refused:
            self._connection.close(refused.code, refused.detail)
        except LocalProtocolError:
            self._connection.close(Code.FRAME_TOO_LARGE, "the answer to so many resumed channels does not fit a frame")
        except Exception:  # nobody waits for a Welcome that never comes
            self._connection.close(Code.OVERLOADED, "the server failed to answer")
            raise

    async def _welcome(self, request_id: int, hello: m.Hello, principal: Principal) -> None:
        connection, around = self._connection, self._around
        delivery = around.config.delivery
        window_messages = min(hello.receive_window_messages or delivery.receive_window_messages, MAX_WINDOW_MESSAGES)
        window_bytes = min(hello.receive_window_bytes or delivery.receive_window_bytes, MAX_WINDOW_BYTES)
        results: list[Subscription | SubscriptionRefused] = []
        if principal.kind == "device":
            attachment = self._attach(principal, hello, window_messages, window_bytes)
            principal = connection.principal = await around.service.remember(principal)
            results = await around.service.resume(attachment, [wire.subscribe_request(resume) for resume in hello.resume])
        if connection.session.closed:
            return
        features = Feature(hello.features) & Feature.RECEIPTS if principal.kind == "publisher" else Feature.NONE
        if features:
            at_most = around.config.publish.max_watched_per_connection
            self.receipts = PublisherReceipts(connection, around.service.receipts, around.metrics, at_most)
        welcome = m.Welcome(
            features=int(features),
            session_id=connection.session_id,
            node=around.node_name,
            heartbeat=wire.heartbeat_policy(around.config),
            limits=wire.limits(around.config, window_messages, window_bytes),
            reconnect=wire.reconnect_policy(around.config),
            subscribed=tuple(wire.subscribed(result) for result in results),
            device_id=principal.name,
            user_id=principal.user_id,
            server_time_ms=around.wall_ms(),
        )
        connection.session.welcome(welcome, request_id)
        connection.flush()
        if connection.attachment is not None:
            connection.attachment.begin()

    def _attach(self, principal: Principal, hello: m.Hello, window_messages: int, window_bytes: int) -> Attachment:
        connection = self._connection
        info = ConnectionInfo(
            connection.session_id,
            connection.address,
            window_messages,
            window_bytes,
            hello.app,
            hello.app_version,
            hello.state,
        )
        attachment = connection.attachment = self._around.service.attach(principal, connection, info)
        return attachment

    # ------------------------------------------------------------------------------------------------------------ requests

    def receive(self, request_id: int, message: m.Message) -> None:
        """A message behind Hello."""
        attachment = self._connection.attachment
        if isinstance(message, m.Ack):
            self._acknowledge(attachment, message)
        elif isinstance(message, m.Publish):
            self._begin(request_id, message)
        elif isinstance(message, m.Credit):
            if attachment is not None:
                messages, size = min(message.messages, MAX_WINDOW_MESSAGES), min(message.bytes, MAX_WINDOW_BYTES)
                attachment.credit(messages, size)
        elif isinstance(message, m.Error):
            self._told(message)
        elif not isinstance(message, m.GoAway):
            self._begin(request_id, message)

    def _told(self, message: m.Error) -> None:
        """The client found a fault in what we sent: worth a line, for it is a fault of ours."""
        self._around.log.warn(
            "{address}: the client reports {code}: {detail}",
            address=self._connection.address,
            code=int(message.code),
            detail=wire.peer_text(message.detail),
            session=self._connection.session_id,
        )

    def _acknowledge(self, attachment: Attachment | None, message: m.Ack) -> None:
        if attachment is None:
            self._refuse(0, Refused(Code.NOT_SUBSCRIBED, "a publisher follows nothing", channel=message.channel))
            return
        try:
            attachment.acknowledge(message.channel, message.offset, message.outcome or Outcome.DELIVERED, message.epoch)
        except Refused as refused:
            self._refuse(0, refused)

    def _begin(self, request_id: int, message: m.Message) -> None:
        self._open += 1
        if self._open >= MAX_OPEN and not self._paused:
            self._paused = True
            self._connection.pause_reading()
        self._around.spawn(self._answer(request_id, message))

    async def _answer(self, request_id: int, message: m.Message) -> None:
        connection, attachment = self._connection, self._connection.attachment
        principal = attachment.principal if attachment is not None else connection.principal
        try:
            if principal is None:
                raise Refused(Code.FORBIDDEN)
            if isinstance(message, m.Publish):
                request = wire.publish_request(message)
                published = await self._around.service.publish(principal, request)
                if request_id:
                    connection.send(wire.publish_ok(published), request_id)
                    if request.want_receipt:
                        self._follow(request, published)
            else:
                await self._do(principal, attachment, request_id, message)
            self._rate_refusals = 0
        except Refused as refused:
            self._refuse(request_id, refused)
        finally:
            self._open -= 1
            if self._paused and self._open <= MAX_OPEN // 2:
                self._paused = False
                self._connection.resume_reading()

    def _refuse(self, request_id: int, refused: Refused) -> None:
        self._around.metrics.faulted(refused.code)
        self._connection.send(wire.error_of(refused), request_id)
        if refused.code is Code.MESSAGE_RATE_EXCEEDED:
            self._rate_refusals += 1
            if self._rate_refusals > MAX_RATE_REFUSALS:
                self._connection.close(refused.code, f"{self._rate_refusals} requests in a row above the rate")

    async def _do(self, principal: Principal, attachment: Attachment | None, request_id: int, message: m.Message) -> None:
        """What only devices ask for."""
        connection, service = self._connection, self._around.service
        if attachment is None:
            raise Refused(Code.FORBIDDEN, "only devices follow channels, have a state and a push token")
        await service.charge(principal)
        if isinstance(message, m.Subscribe):
            subscription = await service.subscribe(attachment, wire.subscribe_request(message))
            connection.send(wire.subscribed(subscription), request_id)
            if attachment.attached:
                attachment.follow(subscription)
            return
        if isinstance(message, m.Unsubscribe):
            await service.unsubscribe(attachment, message.channel)
        elif isinstance(message, m.State):
            attachment.state = message.state
        elif isinstance(message, m.RegisterToken):
            await service.register_token(principal, _push_token(message))
        if request_id:
            connection.send(m.Ok(), request_id)

    def _follow(self, request: PublishRequest, published: Published) -> None:
        """The publisher wants a receipt, and gets it if it can: it was told the id, and receives receipts."""
        if self.receipts is None or self._connection.session.closed:
            return
        if kind_of(published.channel)[0] in (Kind.DEVICE, Kind.USER):
            begins_at_ms = published.deliver_at_ms or self._around.wall_ms()
            expires_at_ms = request.expires_at_ms or (begins_at_ms + int(request.ttl * 1000) if request.ttl else 0)
            self.receipts.published(published, expires_at_ms)

    def room_again(self) -> None:
        """The send buffer fell below its mark."""
        if self.receipts is not None:
            self.receipts.room_again()

    def close(self) -> None:
        """The connection is over. Closing twice is harmless."""
        if self.receipts is not None:
            self.receipts.close()


def _push_token(message: m.RegisterToken) -> PushToken | None:
    """Raises Refused. An empty token takes the registered one back."""
    return push_token(message.token, message.topic, sandbox=message.sandbox) if message.token else None
