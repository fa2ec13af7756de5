"""What the server, the REST API and the probe call: publishing, attaching devices, and questions about both."""

from __future__ import annotations

from collections.abc import Sequence

from streampush.config import DeliveryConfig, PublishConfig
from streampush.errors import Refused
from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.terms import Start
from streampush.push.channels import kind_of
from streampush.push.dead_letters import DeadLetters
from streampush.push.delivery import Attachment
from streampush.push.parts import Parts
from streampush.push.ports import Link
from streampush.push.recovery import locate, wants
from streampush.push.surroundings import Surroundings
from streampush.push.values import (
    ChannelStatus,
    Close,
    ConnectionInfo,
    DeviceStatus,
    Principal,
    Published,
    PublishRequest,
    PushToken,
    Recalled,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)


class PushService:
    """The application of one node. What backends ask about devices is asked of its parts."""

    def __init__(self, around: Surroundings, publish: PublishConfig, delivery: DeliveryConfig) -> None:
        self._around = around
        self._store = around.store
        self._parts = parts = Parts(around, publish, delivery)
        self._cursors = parts.cursors
        self._publishing = parts.publishing
        self.fanout = parts.fanout
        self.receipts = parts.receipts
        self.presence = parts.presence
        self.connections = parts.connections
        self.subscriptions = parts.subscriptions
        self.backlog = parts.backlog
        self.devices = parts.devices
        self.follow_ups = parts.follow_ups
        self.explainer = parts.explainer
        self.left_behind = parts.left_behind
        self.dead_letters = DeadLetters(around.store, self.publish)
        self._stopping = ""

    # ------------------------------------------------------------------------------------------------ beginning and ending

    def start(self) -> None:
        """Scheduled messages go out from now on, and those with an alert are followed up."""
        self._parts.schedule.start()
        if self.follow_ups is not None:
            self.follow_ups.start()

    def await_devices(self, seconds: float) -> None:
        """Devices go from one process to the next on the same ports: for so long an alert gives those that are away the time that
        a connected one has to acknowledge its message."""
        if self.follow_ups is not None:
            self.follow_ups.await_devices(seconds)

    def stop(self) -> None:
        """Scheduled messages, and what is to be followed up, wait in the store for the next start."""
        self._parts.schedule.stop()
        if self.follow_ups is not None:
            self.follow_ups.stop()

    # ------------------------------------------------------------------------------------------------------- publishing

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores a message, lets it be delivered, and says where it is in its channel. Raises Refused."""
        self._refuse_when_stopping(request.channel)
        return await self._publishing.publish(principal, request)

    async def recall(self, principal: Principal, message_id: str) -> Recalled:
        """Takes a message back: see push/recall.py. Raises Refused."""
        self._refuse_when_stopping("")
        recalled = await self._parts.recalls.recall(principal, message_id)
        self.receipts.changed(message_id)  # of a scheduled one there is no notice
        self._parts.withdraw(message_id)
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
        attachment = Attachment(principal, link, info, self._parts.delivery, known=False)
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
        return ChannelStatus(name, head, self.fanout.followers(name))
