"""What the server, the REST API and the probe call: publishing, attaching devices, and questions about both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from streampush.config import DeliveryConfig, PublishConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import CODES, Advice, Code
from streampush.protocol.terms import Start
from streampush.push.alarm import Alarm
from streampush.push.channels import kind_of, may_subscribe, own_channels
from streampush.push.cursors import CursorWriter
from streampush.push.delivery import Attachment, DeliverySurroundings
from streampush.push.fanout import FanOut
from streampush.push.ports import Delayer, Encoder, Link, PushMetrics, Scheduler, Spawner, Store
from streampush.push.publishing import Publishing
from streampush.push.recall import Recalls
from streampush.push.receipts import Receipts
from streampush.push.recovery import locate, wants
from streampush.push.schedule import Schedule
from streampush.push.values import (
    Appended,
    ChannelCursor,
    ChannelStatus,
    Close,
    ConnectionInfo,
    DeviceRecord,
    DeviceStatus,
    Principal,
    Published,
    PublishRequest,
    PushToken,
    Recalled,
    Session,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service needs of the process it lives in. `retry_later` calls its argument after a pause; `node` is its name."""

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


class _Stay:
    """One connection of a device, for presence: `generation` is 0 until the store has told it."""

    __slots__ = ("close", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self.close: Close | None = None


class PushService:
    """The application of one node."""

    def __init__(self, around: Surroundings, publish: PublishConfig, delivery: DeliveryConfig) -> None:
        self._around = around
        self._limits = delivery
        self._store = around.store
        self.receipts = Receipts(
            around.store,
            max_watched=publish.max_watched,
            clock=around.clock,
            wall_ms=around.wall_ms,
            spawn=around.spawn,
            alarm=Alarm(around.clock, around.call_later),
            retry_later=around.retry_later,
        )
        self._fanout = FanOut(around.encode, around.call_soon, around.clock, around.metrics, self.receipts.appended)
        self._cursors = CursorWriter(
            around.store, around.call_soon, around.spawn, around.retry_later, around.metrics, self.receipts.recorded, self._cleared
        )
        self._schedule = Schedule(
            around.store,
            self._fanout,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            call_later=around.call_later,
            spawn=around.spawn,
        )
        self._publishing = Publishing(
            around.store,
            self._fanout,
            publish,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            new_id=around.new_id,
            scheduled=self._schedule.expect,
        )
        self._recalls = Recalls(
            around.store,
            self._fanout,
            self._publishing,
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
            around.wall_ms,
        )
        self._stopping = ""
        self._attachments: dict[str, Attachment] = {}
        self._connected_at_ms: dict[str, int] = {}
        self._stays: dict[str, _Stay] = {}

    def start(self) -> None:
        """Scheduled messages go out from now on."""
        self._schedule.start()

    def stop(self) -> None:
        """Scheduled messages wait in the store for the next start."""
        self._schedule.stop()

    # ------------------------------------------------------------------------------------------------------- publishing

    async def publish(self, principal: Principal, request: PublishRequest) -> Published:
        """Stores a message, lets it be delivered, and says where it is in its channel. Raises Refused."""
        self._refuse_when_stopping(request.channel)
        return await self._publishing.publish(principal, request)

    def _cleared(self, notices: Sequence[Appended]) -> None:
        """Messages were recalled because a device has processed them."""
        self._recalls.cleared(notices)

    async def recall(self, principal: Principal, message_id: str) -> Recalled:
        """Takes a message back: see push/recall.py. Raises Refused."""
        self._refuse_when_stopping("")
        recalled = await self._recalls.recall(principal, message_id)
        self.receipts.changed(message_id)  # of a scheduled one there is no notice
        return recalled

    def _refuse_when_stopping(self, channel: str) -> None:
        if self._stopping:
            self._around.metrics.refused(Code.DRAINING)
            raise Refused(Code.DRAINING, self._stopping, channel=channel, retry_after=1.0)

    def refuse_publishing(self, detail: str) -> None:
        """From now on publishers are sent elsewhere (DRAINING): what they gave us now would hardly be delivered."""
        self._stopping = detail

    async def settle(self) -> bool:
        """Stores what devices have reached; for the end of the node. False if the store could not take it."""
        return await self._cursors.settle()

    def charge(self, principal: Principal) -> None:
        """Counts a request of a device against its rate. Raises Refused(MESSAGE_RATE_EXCEEDED)."""
        self._publishing.charge_device(principal)

    # --------------------------------------------------------------------------------------------------------- devices

    def attach(self, principal: Principal, link: Link, info: ConnectionInfo) -> Attachment:
        """A device has connected. An older connection of the same device is closed with REPLACED."""
        older = self._attachments.get(principal.name)
        attachment = Attachment(principal, link, info, self._delivery)
        self._attachments[principal.name] = attachment
        now_ms = self._connected_at_ms[principal.name] = self._around.wall_ms()
        if older is not None:
            older.detach()
            older.close(Code.REPLACED, f"replaced by session {info.session_id}")
        stay = self._stays[principal.name] = _Stay()
        session = Session(
            principal.name,
            info.session_id,
            self._around.node,
            principal.user_id,
            info.address,
            info.app,
            info.app_version,
            now_ms,
        )
        self._around.spawn(self._begin_session(session, stay))
        return attachment

    async def _begin_session(self, session: Session, stay: _Stay) -> None:
        try:
            stay.generation = await self._store.begin_session(session)
        except StoreUnavailable:
            return  # the device cannot be remembered either then, and is told to come again
        if stay.close is not None:
            await self._end_session(session.device_id, stay.generation, stay.close)

    async def _end_session(self, device_id: str, generation: int, close: Close) -> None:
        try:
            await self._store.end_session(device_id, generation, close)
        except StoreUnavailable:

            def again() -> None:
                self._around.spawn(self._end_session(device_id, generation, close))

            self._around.retry_later(again)

    async def watch(self, principal: Principal, channel: str, link: Link, info: ConnectionInfo) -> Attachment:
        """An attachment of the server's own, on any channel, from the newest publication on. It is no device."""
        attachment = Attachment(principal, link, info, self._delivery)
        request = SubscribeRequest(channel, start=Start.LATEST)
        (survey,) = await self._store.survey(principal.name, [wants(request)])
        attachment.follow(locate(request, survey))
        return attachment

    async def remember(self, principal: Principal) -> None:
        """The device is known from now on, so that messages to it, and to its user, can be stored. Raises Refused.

        The user that its certificate names wins over the one that it was bound to.
        """
        now_ms = self._around.wall_ms()
        record = await self._store.device(principal.name)
        if record is None:
            record = DeviceRecord(principal.name, principal.user_id, now_ms, now_ms)
        else:
            record = replace(record, user_id=principal.user_id or record.user_id, last_seen_ms=now_ms)
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
        principal = attachment.principal
        by_channel = {channel: SubscribeRequest(channel) for channel in own_channels(principal)}
        by_channel.update((request.channel, request) for request in wanted)
        results: dict[str, Subscription | SubscriptionRefused] = {}
        allowed: list[SubscribeRequest] = []
        for number, request in enumerate(by_channel.values()):
            try:
                if number >= self._limits.max_subscriptions:
                    raise Refused(Code.QUOTA_EXCEEDED, f"at most {self._limits.max_subscriptions} subscriptions")
                self._check_right(principal, request.channel)
                allowed.append(request)
            except Refused as refused:
                results[request.channel] = self._refused(request, refused)
        try:
            results.update((found.channel, found) for found in await self._locate(principal.name, allowed))
        except Refused as refused:
            results.update((request.channel, self._refused(request, refused)) for request in allowed)
        return [results[channel] for channel in by_channel]

    def _refused(self, request: SubscribeRequest, refused: Refused) -> SubscriptionRefused:
        self._around.metrics.refused(refused.code)
        return SubscriptionRefused(request.channel, refused.code, refused.detail)

    async def subscribe(self, attachment: Attachment, request: SubscribeRequest) -> Subscription:
        """As `resume`, for one channel; the caller follows the result at once.

        Raises Refused: FORBIDDEN, QUOTA_EXCEEDED, UNKNOWN_RECIPIENT, STORE_UNAVAILABLE.
        """
        try:
            self._check_count(attachment, request.channel)
            self._check_right(attachment.principal, request.channel)
            (subscription,) = await self._locate(attachment.principal.name, [request])
            self._check_count(attachment, request.channel)  # others were located meanwhile
            return subscription
        except Refused as refused:
            self._around.metrics.refused(refused.code)
            raise

    def _check_count(self, attachment: Attachment, channel: str) -> None:
        feeds = attachment.feeds
        if channel not in feeds and len(feeds) >= self._limits.max_subscriptions:
            raise Refused(Code.QUOTA_EXCEEDED, f"at most {self._limits.max_subscriptions} subscriptions")

    def _check_right(self, principal: Principal, channel: str) -> None:
        if not may_subscribe(principal, channel):
            raise Refused(Code.FORBIDDEN, f"{principal.name} may not subscribe here (delivery.subscribe)", channel=channel)

    async def _locate(self, device_id: str, requests: Sequence[SubscribeRequest]) -> list[Subscription]:
        """Where delivery on each channel begins, all as of one moment."""
        pending = [self._cursors.pending(device_id, request.channel) for request in requests]
        surveys = await self._store.survey(device_id, list(map(wants, requests, pending)))
        found = list(map(locate, requests, surveys, pending))
        for subscription in found:
            if subscription.loss:
                self._around.metrics.positions_lost(subscription.loss.name.lower())
        return found

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
        stay = self._stays.pop(device_id)
        advice = CODES[Code(code)].advice if code in CODES else Advice.UNSPECIFIED
        stay.close = Close(code, advice, detail, self._around.wall_ms())
        if stay.generation:
            self._around.spawn(self._end_session(device_id, stay.generation, stay.close))

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
        close = record.last_close or Close(0, Advice.UNSPECIFIED, "", 0)
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
