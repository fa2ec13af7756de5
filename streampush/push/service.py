"""What the server, the REST API and the probe call: publishing, attaching devices, and questions about both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from streampush.config import DeliveryConfig, PublishConfig
from streampush.errors import Refused
from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.terms import Milestone, Start
from streampush.push.alarm import Alarm
from streampush.push.backlog import Backlog
from streampush.push.bus import Bus, NoBus
from streampush.push.channels import kind_of
from streampush.push.connections import Connections
from streampush.push.cursors import CursorWriter
from streampush.push.dead_letters import DeadLetters
from streampush.push.delivery import Attachment, DeliverySurroundings
from streampush.push.devices import Devices
from streampush.push.elsewhere import Elsewhere
from streampush.push.explaining import Explainer
from streampush.push.fanout import FanOut
from streampush.push.follow_ups import FollowUps
from streampush.push.ports import Delayer, Encoder, Link, PushMetrics, PushSender, Scheduler, Spawner
from streampush.push.presence import Presence
from streampush.push.publishing import Publishing
from streampush.push.rates import Rates
from streampush.push.reading import ReadQueue
from streampush.push.recall import Recalls
from streampush.push.receipts import Receipts
from streampush.push.recovery import locate, wants
from streampush.push.redelivery import Patience
from streampush.push.schedule import Schedule
from streampush.push.shared_rates import RateStore
from streampush.push.standing import Standings
from streampush.push.store_ports import Store
from streampush.push.subscriptions import Subscriptions
from streampush.push.turns import Turns
from streampush.push.values import (
    Appended,
    ChannelRules,
    ChannelStatus,
    Close,
    ConnectionInfo,
    CursorMove,
    DeviceStatus,
    Mark,
    Principal,
    Published,
    PublishRequest,
    PushToken,
    Recalled,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
    Undeliverable,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service needs of the process it lives in. `retry_later` calls its argument after a pause; `node` is its name.

    `bus`: the way to other nodes; what it hears is for hearing.NodeHearing. `rates`: what they share of rates, if there are others.

    `sender`: the way to devices that are away; None: there is none, and alerts of messages are checked but not kept.
    """

    store: Store
    encode: Encoder
    metrics: PushMetrics
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    new_id: Callable[[int], str]
    call_soon: Scheduler
    call_later: Delayer
    retry_later: Callable[[Callable[[], None]], object]
    spawn: Spawner
    node: str = ""
    sender: PushSender | None = None
    bus: Bus = field(default_factory=NoBus)
    rates: RateStore | None = None


class PushService:
    """The application of one node. What backends ask about devices is asked of its parts."""

    def __init__(self, around: Surroundings, publish: PublishConfig, delivery: DeliveryConfig) -> None:
        self._around = around
        self._store = store = around.store
        turns = Turns()
        self.receipts = self._make_receipts(publish)
        self.fanout = self._fanout = self._make_fanout()
        elsewhere = Elsewhere(store, around.bus, around.node)
        self._cursors = CursorWriter(
            store, around.call_soon, around.spawn, around.retry_later, around.metrics, self._recorded, self._cleared
        )
        self._schedule = self._make_schedule()
        self._publishing = self._make_publishing(publish)
        self._recalls = self._make_recalls()
        self.presence = self._make_presence(turns)
        self._delivery = self._make_delivery(delivery)
        self.connections = Connections(self._delivery, self.presence, around.node, around.wall_ms, self._follow_own)
        self.subscriptions = self._make_subscriptions(delivery, elsewhere)
        self.backlog = Backlog(store, self._cursors, delivery.page_bytes)
        self.devices = Devices(
            store,
            self._cursors,
            turns,
            self.connections,
            self.presence,
            self.backlog,
            elsewhere,
            around.wall_ms,
            self._standing_changed,
        )
        self.dead_letters = DeadLetters(store, self.publish)
        self.follow_ups = self._make_follow_ups()
        self.explainer = self._make_explainer(delivery)
        self._stopping = ""

    # --------------------------------------------------------------------------- composing: each needs those made before it

    def _make_receipts(self, publish: PublishConfig) -> Receipts:
        around = self._around
        return Receipts(
            around.store,
            max_watched=publish.max_watched,
            clock=around.clock,
            wall_ms=around.wall_ms,
            spawn=around.spawn,
            alarm=Alarm(around.clock, around.call_later),
            retry_later=around.retry_later,
            watching=around.bus.watch,
        )

    def _make_fanout(self) -> FanOut:
        around = self._around
        return FanOut(
            around.encode,
            around.call_soon,
            around.clock,
            around.metrics,
            self._written,
            self.receipts.appended,
            around.bus.interest,
        )

    def _make_schedule(self) -> Schedule:
        around = self._around
        return Schedule(
            around.store,
            self._fanout,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            call_later=around.call_later,
            spawn=around.spawn,
            falls_back=None if around.sender is None else self._falls_back,
            shared=around.bus.shared,
        )

    def _make_publishing(self, publish: PublishConfig) -> Publishing:
        around = self._around
        return Publishing(
            around.store,
            self._fanout,
            publish,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            new_id=around.new_id,
            scheduled=self._schedule.expect,
            falls_back=self._falls_back,
            rates=Rates(publish, around.rates, around.clock, around.spawn),
            keeps_alerts=lambda: around.sender is not None and around.sender.ready,
        )

    def _make_recalls(self) -> Recalls:
        around = self._around
        return Recalls(
            around.store,
            self._fanout,
            self._publishing,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            new_id=around.new_id,
        )

    def _make_presence(self, turns: Turns) -> Presence:
        around = self._around
        return Presence(
            around.store,
            turns,
            node=around.node,
            wall_ms=around.wall_ms,
            call_soon=around.call_soon,
            spawn=around.spawn,
            retry_later=around.retry_later,
            begun=lambda device_id, generation: self.connections.begun(device_id, generation),
        )

    def _make_delivery(self, delivery: DeliveryConfig) -> DeliverySurroundings:
        around = self._around
        return DeliverySurroundings(
            around.store,
            self._fanout,
            ReadQueue(delivery.max_reads, around.call_soon, around.spawn),
            self._cursors,
            around.encode,
            around.metrics,
            around.clock,
            around.wall_ms,
            around.retry_later,
            self._written,
            Patience.of(delivery),
            delivery.page_messages,
            delivery.page_bytes,
            self.presence.follows,
        )

    def _make_subscriptions(self, delivery: DeliveryConfig, elsewhere: Elsewhere) -> Subscriptions:
        around = self._around
        return Subscriptions(
            around.store,
            self._cursors,
            self.connections,
            around.metrics,
            around.wall_ms,
            delivery.max_subscriptions,
            ChannelRules(delivery.subscribe),
            around.call_soon,
            elsewhere,
        )

    def _make_explainer(self, delivery: DeliveryConfig) -> Explainer:
        around = self._around
        return Explainer(
            around.store,
            self.backlog,
            self.connections,
            self.presence,
            rate=self._publishing.device_level,
            node=around.node,
            wall_ms=around.wall_ms,
            max_attempts=delivery.max_attempts,
        )

    def _make_follow_ups(self) -> FollowUps | None:
        around = self._around
        if around.sender is None:
            return None
        return FollowUps(
            around.store,
            around.sender,
            Standings(around.store, self._cursors, self.connections, around.node),
            self.devices.drop_token,
            around.metrics,
            wall_ms=around.wall_ms,
            call_soon=around.call_soon,
            call_later=around.call_later,
            spawn=around.spawn,
            retry_later=around.retry_later,
        )

    def _falls_back(self, at_ms: int) -> None:
        if self.follow_ups is not None:
            self.follow_ups.expect(at_ms)

    # ------------------------------------------------------------------------------------------------ beginning and ending

    def start(self) -> None:
        """Scheduled messages go out from now on, and those with an alert are followed up."""
        self._schedule.start()
        if self.follow_ups is not None:
            self.follow_ups.start()

    def stop(self) -> None:
        """Scheduled messages, and what is to be followed up, wait in the store for the next start."""
        self._schedule.stop()
        if self.follow_ups is not None:
            self.follow_ups.stop()

    def _written(self, channel: str, epoch: str, first: int, last: int, connections: int) -> None:
        """Messages of a topic, of some of which receipts are wanted, were written to so many connections."""
        now_ms = self._around.wall_ms()
        self._cursors.mark(Mark("", channel, epoch, first, last, Milestone.WRITTEN, now_ms, connections))

    # ------------------------------------------------------------------------------------------------------- publishing

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores a message, lets it be delivered, and says where it is in its channel. Raises Refused."""
        self._refuse_when_stopping(request.channel)
        return await self._publishing.publish(principal, request)

    def _cleared(self, notices: Sequence[Appended]) -> None:
        """Messages were recalled because a device has processed them."""
        self._recalls.cleared(notices)
        for notice in notices:
            self._withdraw(notice.publication.recalls)

    def _withdraw(self, message_id: str) -> None:
        if self.follow_ups is not None:
            self.follow_ups.under_way.recalled(message_id)

    def _standing_changed(self, device_id: str) -> None:
        if self.follow_ups is not None:
            self.follow_ups.under_way.changed(device_id)

    def _recorded(self, moves: Iterable[CursorMove], marks: Iterable[Mark], failed: Iterable[Undeliverable]) -> None:
        """The store has taken what devices have reached."""
        self.receipts.recorded(moves, marks, failed)
        if self.follow_ups is not None:
            self.follow_ups.under_way.acknowledged(moves)

    async def recall(self, principal: Principal, message_id: str) -> Recalled:
        """Takes a message back: see push/recall.py. Raises Refused."""
        self._refuse_when_stopping("")
        recalled = await self._recalls.recall(principal, message_id)
        self.receipts.changed(message_id)  # of a scheduled one there is no notice
        self._withdraw(message_id)
        return recalled

    def _refuse_when_stopping(self, channel: str) -> None:
        if self._stopping:
            self._around.metrics.refused(Code.DRAINING)
            raise Refused(Code.DRAINING, self._stopping, channel=channel, retry_after=1.0)

    def refuse_publishing(self, detail: str) -> None:
        """From now on publishers are sent elsewhere (DRAINING): what they gave us now would hardly be delivered."""
        self._stopping = detail

    async def settle(self) -> bool:
        """Stores what devices have reached, and how they left; for the end of the node. False if the store could not take it."""
        reached = await self._cursors.settle()
        if self.follow_ups is not None:
            reached = await self.follow_ups.settle() and reached
        return await self.presence.settle() and reached

    async def charge(self, principal: Principal) -> None:
        """Counts a request of a device, or a push without a message of a publisher, against its rate. Raises
        Refused(MESSAGE_RATE_EXCEEDED)."""
        try:
            await self._publishing.charge(principal, "", self._around.clock())
        except Refused as refused:
            self._around.metrics.refused(refused.code)
            raise

    # --------------------------------------------------------------------------------------------------------- devices

    def attach(self, principal: Principal, link: Link, info: ConnectionInfo) -> Attachment:
        """A device has connected. An older connection of the same device is closed with REPLACED."""
        return self.connections.attach(principal, link, info)

    async def watch(self, principal: Principal, channel: str, link: Link, info: ConnectionInfo) -> Attachment:
        """An attachment of the server's own, on any channel, from the newest publication on. It is no device."""
        attachment = Attachment(principal, link, info, self._delivery, known=False)
        attachment.begin()
        request = SubscribeRequest(channel, start=Start.LATEST)
        (survey,) = await self._store.survey(principal.name, [wants(request)])
        attachment.follow(locate(request, survey))
        return attachment

    async def remember(self, principal: Principal) -> Principal:
        """The device is known from now on, so that messages to it, and to its user, can be stored. Raises Refused.

        Gives the principal with its user: the one that its certificate names, or else the one that a backend has bound it to.
        """
        bound = await self.devices.remember(principal)
        self.connections.bound(bound)
        return bound

    async def register_token(self, principal: Principal, token: PushToken | None) -> None:
        """Keeps the device's push token, or forgets it. Raises Refused(STORE_UNAVAILABLE)."""
        await self.devices.register_token(principal.name, token)

    async def resume(self, attachment: Attachment, wanted: Sequence[SubscribeRequest]) -> list[Subscription | SubscriptionRefused]:
        """A device that connects follows all that it should: see push/subscriptions.py. Raises StoreUnavailable."""
        return await self.subscriptions.resume(attachment, wanted)

    async def subscribe(self, attachment: Attachment, request: SubscribeRequest) -> Subscription:
        """As `resume`, for one channel; the caller follows the result at once. Raises Refused."""
        return await self.subscriptions.subscribe(attachment, request)

    async def unsubscribe(self, attachment: Attachment, channel: str) -> None:
        """Ends delivery on a channel, and a durable subscription; forgets the cursor. Raises Refused."""
        await self.subscriptions.unsubscribe(attachment, channel)

    async def subscribe_device(self, device_id: str, channel: str) -> bool:
        """A backend subscribes a device to a topic for good; True if it was not. Raises Refused."""
        return await self.subscriptions.add(device_id, channel)

    async def unsubscribe_device(self, device_id: str, channel: str) -> bool:
        """A backend ends a durable subscription; False if there was none. Raises Refused."""
        return await self.subscriptions.remove(device_id, channel)

    async def _follow_own(self, attachment: Attachment, channel: str) -> None:
        await self.subscriptions.follow_own(attachment, channel)

    def detach(self, attachment: Attachment, code: int, detail: str) -> None:
        """The device's connection is gone, for this reason. Detaching twice is harmless."""
        advice = CODES[Code(code)].advice if code in CODES else Advice.UNSPECIFIED
        self.connections.detach(attachment, Close(code, advice, detail, self._around.wall_ms()))

    # -------------------------------------------------------------------------------------------------------- questions

    def connected_devices(self) -> int:
        return len(self.connections)

    async def disconnect_device(self, device_id: str, detail: str) -> bool:
        """Closes the device's connection (advice: reconnect), on whatever node; False if it has none. Raises StoreUnavailable."""
        return await self.devices.disconnect(device_id, detail)

    async def describe_device(self, device_id: str) -> DeviceStatus:
        """What is known of a device. Raises Refused(UNKNOWN_RECIPIENT)."""
        return await self.devices.describe(device_id)

    async def describe_channel(self, name: str) -> ChannelStatus:
        """The state of a channel's log. Raises Refused(UNKNOWN_RECIPIENT) if nothing was ever published or followed there."""
        kind_of(name)
        head = await self._store.peek(name)
        if head is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no such channel", channel=name)
        return ChannelStatus(name, head, self._fanout.followers(name))
