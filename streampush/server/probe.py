"""The probe: a message that really goes publish -> store -> fan-out -> frames -> a session in this process.

Readiness stands on it, so a node is ready when it can do its work, not when its port is open.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streampush.errors import Refused
from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.protocol.framing import FrameDecoder
from streampush.protocol.terms import Outcome
from streampush.push.delivery import Attachment
from streampush.push.ports import Spawner
from streampush.push.service import PushService
from streampush.push.values import ChannelRules, ConnectionInfo, Principal, PublishRequest, Subscription, SubscriptionRefused
from streampush.server.ports import ServerMetrics

PROBE_TTL = 60.0
"""Seconds that a probe message stays in the log; nobody reads it later."""

KEPT = 10
"""Messages that have not come through and may still, and then count. One that comes later than so many intervals is lost."""

START_AGAIN = 1.0
"""Seconds, at most, until it tries to begin again when the store does not answer: the store looks as often for itself."""


class LoopbackSession:
    """A device without a socket: takes delivery frames apart as a client does and acknowledges them."""

    def __init__(self, arrived: Callable[[str], None]) -> None:
        self.attachment: Attachment | None = None
        self._arrived = arrived
        self._decoder = FrameDecoder()

    def deliver(self, frames: bytes, messages: int) -> None:
        """See push.ports.Link."""
        for frame in self._decoder.feed(frames):
            if isinstance(frame, bytes):
                _, message = codec.decode(frame)
                if isinstance(message, m.Delivery) and self.attachment is not None:
                    self.attachment.acknowledge(message.channel, message.offset, Outcome.PROCESSED)
                    self._arrived(message.message_id)

    def has_room(self) -> bool:
        return True

    def backlog_end(self, channel: str, offset: int) -> None:
        """Of no interest here."""

    def repositioned(self, subscription: Subscription | SubscriptionRefused) -> None:
        """A probe that was lost is missed by its id."""

    def wake_by(self, deadline: float) -> None:
        """What does not come back at once is missed by the probe itself."""

    def close(self, code: Code, detail: str) -> None:
        """Nobody closes a session of the server's own."""


class Probe:
    """Publishes every `interval` seconds; `arrived_at` is told the time of each message that came through.

    Each interval that ends before the message under way has come through counts as a failure, and the next one is published. The
    one that is late still counts when it comes: a path that takes longer than an interval is slow, and not dead.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        service: PushService,
        metrics: ServerMetrics,
        spawn: Spawner,
        *,
        node_name: str,
        interval: float,
        arrived_at: Callable[[float], None],
    ) -> None:
        self._reactor = reactor
        self._service = service
        self._metrics = metrics
        self._spawn = spawn
        self._interval = interval
        self._arrived_at = arrived_at
        self._channel = f"$probe/{node_name}"
        self._principal = Principal("probe", "$probe", may_publish=ChannelRules((self._channel,)))
        self._session = LoopbackSession(self._arrived)
        self._under_way: dict[str, float] = {}  # stored, and not come through: when each was published, by id, the oldest first
        self._publishing = False
        self._early: set[str] = set()  # arrived before the publisher was told the id
        self._call: IDelayedCall | None = None
        self._stopped = False
        self._warned: tuple[str, Code, str] | None = None  # what was said, and is the matter still

    async def start(self) -> None:
        """Begins with a first message at once, or as soon as the store works."""
        info = ConnectionInfo("$probe", "", 1000, 1 << 20)
        self._call = None
        try:
            attachment = await self._service.watch(self._principal, self._channel, self._session, info)
        except Refused as refused:
            self._metrics.probe(None)
            self._warn("the probe cannot start: {code} {detail}", refused)
            if not self._stopped:
                wait = min(self._interval, START_AGAIN)
                self._call = self._reactor.callLater(wait, lambda: self._spawn(self.start()))
            return
        if self._stopped:  # while the store was asked
            attachment.detach()
            return
        self._session.attachment = attachment
        self._fire()

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._session.attachment is not None:
            self._session.attachment.detach()

    def _fire(self) -> None:
        self._call = self._reactor.callLater(self._interval, self._fire)
        if self._publishing or self._under_way:
            self._metrics.probe(None)
        if not self._publishing:  # a store that does not answer is not asked again and again
            self._spawn(self._publish())

    async def _publish(self) -> None:
        self._publishing = True
        self._early.clear()
        began = self._reactor.seconds()
        try:
            published = await self._service.publish(self._principal, PublishRequest(self._channel, b"probe", ttl=PROBE_TTL))
        except Refused as refused:
            self._metrics.probe(None)
            self._warn("the probe was refused: {code} {detail}", refused)
            return
        finally:
            self._publishing = False
        while len(self._under_way) >= KEPT:
            del self._under_way[next(iter(self._under_way))]
        self._under_way[published.message_id] = began
        if published.message_id in self._early:
            self._succeeded(published.message_id)

    def _warn(self, what: str, refused: Refused) -> None:
        """Once, until something else is the matter: how long it lasts is told by readiness and the counter of failed probes."""
        problem = what, refused.code, refused.detail
        if problem != self._warned:
            self._warned = problem
            self._log.warn(what, code=int(refused.code), detail=refused.detail)

    def _arrived(self, message_id: str) -> None:
        if message_id in self._under_way:
            self._succeeded(message_id)
        elif self._publishing:
            self._early.add(message_id)

    def _succeeded(self, message_id: str) -> None:
        began = self._under_way[message_id]
        for earlier in list(self._under_way):  # the channel is in order: what was before it will not come
            del self._under_way[earlier]
            if earlier == message_id:
                break
        self._warned = None
        now = self._reactor.seconds()
        self._metrics.probe(now - began)
        self._arrived_at(now)
