"""What the server, the REST API and the probe call: publishing, attaching devices, and questions about both."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from streampush.config import DeliveryConfig, PublishConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Start
from streampush.push.channels import kind_of, may_subscribe, own_channels
from streampush.push.cursors import CursorWriter
from streampush.push.delivery import Attachment, DeliverySurroundings
from streampush.push.fanout import FanOut
from streampush.push.ports import Encoder, Link, PushMetrics, Scheduler, Spawner, Store
from streampush.push.publishing import Publishing
from streampush.push.recovery import locate
from streampush.push.values import (
    ChannelCursor,
    ChannelStatus,
    ConnectionInfo,
    DeviceRecord,
    DeviceStatus,
    Principal,
    Published,
    PublishRequest,
    PushToken,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)

MAX_REMEMBERED_CLOSES = 100_000
"""Devices whose last close is remembered for GET /v1/devices/{id}."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service needs of the process it lives in. `retry_later` calls its argument after a pause."""

    store: Store
    encode: Encoder
    metrics: PushMetrics
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    new_id: Callable[[int], str]
    call_soon: Scheduler
    retry_later: Callable[[Callable[[], None]], object]
    spawn: Spawner


@dataclass(frozen=True, slots=True)
class _Close:
    code: int
    detail: str
    at_ms: int


class PushService:
    """The application of one node."""

    def __init__(self, around: Surroundings, publish: PublishConfig, delivery: DeliveryConfig) -> None:
        self._around = around
        self._limits = delivery
        self._store = around.store
        self._fanout = FanOut(around.encode, around.call_soon, around.clock, around.metrics)
        self._cursors = CursorWriter(around.store, around.call_soon, around.spawn, around.retry_later)
        self._publishing = Publishing(
            around.store,
            self._fanout,
            publish,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            new_id=around.new_id,
        )
        self._delivery = DeliverySurroundings(
            around.store,
            self._fanout,
            around.encode,
            around.metrics,
            around.call_soon,
            around.spawn,
            self._cursors.move,
            around.retry_later,
            delivery.page_messages,
            delivery.page_bytes,
        )
        self._stopping = ""
        self._attachments: dict[str, Attachment] = {}
        self._connected_at_ms: dict[str, int] = {}
        self._closes: OrderedDict[str, _Close] = OrderedDict()

    # ------------------------------------------------------------------------------------------------------- publishing

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores a message, lets it be delivered, and says where it is in its channel. Raises Refused."""
        if self._stopping:
            self._around.metrics.refused(Code.DRAINING)
            raise Refused(Code.DRAINING, self._stopping, channel=request.channel, retry_after=1.0)
        return await self._publishing.publish(principal, request)

    def refuse_publishing(self, detail: str) -> None:
        """From now on publishers are sent elsewhere (DRAINING): what they gave us now would hardly be delivered."""
        self._stopping = detail

    def charge(self, principal: Principal) -> None:
        """Counts a request of a device against its rate. Raises Refused(MESSAGE_RATE_EXCEEDED)."""
        self._publishing.charge_device(principal)

    # --------------------------------------------------------------------------------------------------------- devices

    def attach(self, principal: Principal, link: Link, info: ConnectionInfo) -> Attachment:
        """A device has connected. An older connection of the same device is closed with REPLACED."""
        older = self._attachments.get(principal.name)
        attachment = Attachment(principal, link, info, self._delivery)
        self._attachments[principal.name] = attachment
        self._connected_at_ms[principal.name] = self._around.wall_ms()
        if older is not None:
            older.detach()
            older.close(Code.REPLACED, f"replaced by session {info.session_id}")
        return attachment

    async def watch(self, principal: Principal, channel: str, link: Link, info: ConnectionInfo) -> Attachment:
        """An attachment of the server's own, on any channel, from the newest publication on. It is no device."""
        attachment = Attachment(principal, link, info, self._delivery)
        attachment.follow(await locate(self._store, principal.name, SubscribeRequest(channel, start=Start.LATEST)))
        return attachment

    async def remember(self, principal: Principal) -> None:
        """The device is known from now on, so that messages to it, and to its user, can be stored. Raises Refused."""
        now_ms = self._around.wall_ms()
        record = await self._store.device(principal.name)
        if record is None:
            record = DeviceRecord(principal.name, principal.user_id, now_ms, now_ms)
        else:
            record = replace(record, user_id=principal.user_id, last_seen_ms=now_ms)
        await self._store.remember_device(record)

    async def register_token(self, principal: Principal, token: PushToken | None) -> None:
        """Keeps the device's push token, or forgets it. Raises Refused(STORE_UNAVAILABLE)."""
        record = await self._store.device(principal.name)
        if record is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no device of this id was ever seen")
        await self._store.remember_device(replace(record, push_token=token))

    async def resume(self, attachment: Attachment, wanted: Sequence[SubscribeRequest]) -> list[Subscription | SubscriptionRefused]:
        """Where delivery begins on the device's own channels and on the wanted ones, in that order.

        Nothing is delivered before `Attachment.follow` was called with a result, so that the device can be told first.
        """
        by_channel = {channel: SubscribeRequest(channel) for channel in own_channels(attachment.principal)}
        by_channel.update((request.channel, request) for request in wanted)
        results: list[Subscription | SubscriptionRefused] = []
        for number, request in enumerate(by_channel.values()):
            try:
                if number >= self._limits.max_subscriptions:
                    raise Refused(Code.QUOTA_EXCEEDED, f"at most {self._limits.max_subscriptions} subscriptions")
                results.append(await self._locate(attachment, request))
            except Refused as refused:
                self._around.metrics.refused(refused.code)
                results.append(SubscriptionRefused(request.channel, refused.code, refused.detail))
        return results

    async def subscribe(self, attachment: Attachment, request: SubscribeRequest) -> Subscription:
        """As `resume`, for one channel; the caller follows the result at once.

        Raises Refused: FORBIDDEN, QUOTA_EXCEEDED, UNKNOWN_RECIPIENT, STORE_UNAVAILABLE.
        """
        try:
            self._check_count(attachment, request.channel)
            subscription = await self._locate(attachment, request)
            self._check_count(attachment, request.channel)  # others were located meanwhile
            return subscription
        except Refused as refused:
            self._around.metrics.refused(refused.code)
            raise

    def _check_count(self, attachment: Attachment, channel: str) -> None:
        feeds = attachment.feeds
        if channel not in feeds and len(feeds) >= self._limits.max_subscriptions:
            raise Refused(Code.QUOTA_EXCEEDED, f"at most {self._limits.max_subscriptions} subscriptions")

    async def _locate(self, attachment: Attachment, request: SubscribeRequest) -> Subscription:
        principal = attachment.principal
        if not may_subscribe(principal, request.channel):
            detail = f"{principal.name} may not subscribe here (delivery.subscribe)"
            raise Refused(Code.FORBIDDEN, detail, channel=request.channel)
        pending = self._cursors.pending(principal.name, request.channel)
        subscription = await locate(self._store, principal.name, request, pending)
        if subscription.loss:
            self._around.metrics.positions_lost(subscription.loss.name.lower())
        return subscription

    async def unsubscribe(self, attachment: Attachment, channel: str) -> None:
        """Ends delivery and forgets the cursor. Raises Refused(NOT_SUBSCRIBED), or FORBIDDEN for the device's own channels."""
        if channel in own_channels(attachment.principal):
            raise Refused(Code.FORBIDDEN, "a device always follows its own channels", channel=channel)
        if not attachment.unfollow(channel):
            raise Refused(Code.NOT_SUBSCRIBED, channel=channel)
        self._cursors.forget(attachment.principal.name, channel)
        await self._store.forget_cursor(attachment.principal.name, channel)

    def detach(self, attachment: Attachment, code: int, detail: str) -> None:
        """The device's connection is gone, for this reason. Detaching twice is harmless."""
        attachment.detach()
        device_id = attachment.principal.name
        if self._attachments.get(device_id) is not attachment:
            return
        del self._attachments[device_id]
        del self._connected_at_ms[device_id]
        self._closes[device_id] = _Close(code, detail, self._around.wall_ms())
        self._closes.move_to_end(device_id)
        if len(self._closes) > MAX_REMEMBERED_CLOSES:
            self._closes.popitem(last=False)

    # -------------------------------------------------------------------------------------------------------- questions

    def connected_devices(self) -> int:
        return len(self._attachments)

    def disconnect_device(self, device_id: str, detail: str) -> bool:
        """Closes the device's connection (advice: reconnect); False if it has none."""
        attachment = self._attachments.get(device_id)
        if attachment is None:
            return False
        attachment.close(Code.CONNECTION_TIMED_OUT, detail)
        return True

    async def describe_device(self, device_id: str) -> DeviceStatus:
        """What is known of a device. Raises Refused(UNKNOWN_RECIPIENT)."""
        record = await self._store.device(device_id)
        if record is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no device of this id was ever seen")
        close = self._closes.get(device_id, _Close(0, "", 0))
        status = DeviceStatus(
            device_id,
            record.user_id,
            connected=False,
            last_seen_ms=max(record.last_seen_ms, close.at_ms),
            token_registered=record.push_token is not None,
            last_close_code=close.code,
            last_close_detail=close.detail,
        )
        attachment = self._attachments.get(device_id)
        if attachment is None:
            return replace(status, channels=await self._stored_cursors(device_id))
        info = attachment.info
        return replace(
            status,
            connected=True,
            session_id=info.session_id,
            address=info.address,
            connected_at_ms=self._connected_at_ms[device_id],
            last_seen_ms=self._around.wall_ms(),
            app=info.app,
            app_version=info.app_version,
            state=attachment.state,
            round_trip=attachment.round_trip,
            channels=attachment.cursors(),
        )

    async def _stored_cursors(self, device_id: str) -> tuple[ChannelCursor, ...]:
        """How far a device that is away has come on each channel that it has a cursor of."""
        rows = []
        for channel, cursor in (await self._store.cursors(device_id)).items():
            head = await self._store.head(channel)
            acknowledged = cursor.offset if cursor.epoch == head.epoch else 0
            rows.append(ChannelCursor(channel, acknowledged, acknowledged, head.top_offset))
        return tuple(rows)

    async def describe_channel(self, name: str) -> ChannelStatus:
        """The state of a channel's log. Raises Refused(UNKNOWN_RECIPIENT) if nothing was ever published or followed there."""
        kind_of(name)
        head = await self._store.peek(name)
        if head is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no such channel", channel=name)
        return ChannelStatus(name, head, self._fanout.followers(name))
