"""Which channels devices follow: because they ask, because they asked for good, or because a backend has subscribed them.

A durable subscription is stored: whenever the device is connected it follows the channel, and what is published while it is
away is found, for its cursor is stored before anybody is told. It is no right: the rules (`delivery.subscribe`) count at every
connect. docs/protocol.md section 10.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from twisted.internet.defer import Deferred

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.bus import Order, OrderKind
from streampush.push.channels import Kind, kind_of, may_subscribe, own_channels, unknown_device
from streampush.push.connections import Connections
from streampush.push.cursors import CursorWriter
from streampush.push.delivery import Attachment
from streampush.push.elsewhere import Elsewhere
from streampush.push.ports import PushMetrics, Scheduler
from streampush.push.recovery import locate, wants
from streampush.push.store_ports import Store
from streampush.push.turns import Turns
from streampush.push.values import ChannelRules, CursorMove, Principal, SubscribeRequest, Subscription, SubscriptionRefused

SLICE = 64
"""Channels of one device that are looked at in one turn of the reactor while it connects: about a millisecond."""


class Subscriptions:
    """`at_most`: channels that one device may follow. `rules`: what a device may follow that is not connected."""

    def __init__(
        self,
        store: Store,
        cursors: CursorWriter,
        connections: Connections,
        metrics: PushMetrics,
        wall_ms: Callable[[], int],
        at_most: int,
        rules: ChannelRules,
        call_soon: Scheduler,
        elsewhere: Elsewhere,
    ) -> None:
        self._elsewhere = elsewhere
        self._store = store
        self._cursors = cursors
        self._connections = connections
        self._metrics = metrics
        self._wall_ms = wall_ms
        self._at_most = at_most
        self._rules = rules
        self._call_soon = call_soon
        self._first_places = Turns()  # a device and channel at a time
        self._turns = Turns()  # a device and channel at a time: what is stored and what is followed change together

    # -------------------------------------------------------------------------------------------------- a device connects

    async def resume(self, attachment: Attachment, wanted: Sequence[SubscribeRequest]) -> list[Subscription | SubscriptionRefused]:
        """The device follows its own channels, its durable ones and the wanted ones. Gives what it is to be told, in that order.

        Nothing is delivered before `Attachment.begin` was called. Many channels take several turns of the reactor. Raises
        StoreUnavailable: a device that cannot be told what it follows had better come again.
        """
        principal = attachment.principal
        attachment.durable = frozenset(row.channel for row in await self._store.subscriptions(principal.name))
        by_channel = {channel: SubscribeRequest(channel) for channel in (*own_channels(principal), *sorted(attachment.durable))}
        by_channel.update((request.channel, request) for request in wanted)
        results: dict[str, Subscription | SubscriptionRefused] = {}
        allowed: list[SubscribeRequest] = []
        for number, request in enumerate(by_channel.values()):
            await self._breathe(number)
            try:
                if number >= self._at_most:
                    raise self._too_many()
                self._check_right(principal, request.channel)
                allowed.append(request)
            except Refused as refused:
                self._metrics.refused(refused.code)
                results[request.channel] = SubscriptionRefused(request.channel, refused.code, refused.detail)
        for number, found in enumerate(await self._locate(principal.name, allowed)):
            await self._breathe(number)
            place = results[found.channel] = replace(found, durable=found.channel in attachment.durable)
            attachment.follow(place)
        return [results[channel] for channel in by_channel]

    async def _breathe(self, number: int) -> None:
        """Lets others have their turn after each SLICE steps."""
        if number and number % SLICE == 0:
            turn: Deferred[None] = Deferred()
            self._call_soon(lambda: turn.callback(None))
            await turn

    async def follow_own(self, attachment: Attachment, channel: str) -> None:
        """A connected device follows one of its own channels more, and is told so."""
        (subscription,) = await self._locate(attachment.principal.name, [SubscribeRequest(channel)])
        if channel in own_channels(attachment.principal):
            attachment.follow_unasked(subscription, self._at_most)

    # ------------------------------------------------------------------------------------------------------ a device asks

    async def subscribe(self, attachment: Attachment, request: SubscribeRequest) -> Subscription:
        """Where delivery on the channel begins; the caller follows the result at once. Raises Refused: FORBIDDEN,
        QUOTA_EXCEEDED, UNKNOWN_RECIPIENT, STORE_UNAVAILABLE.
        """
        channel = request.channel
        try:
            self._check_count(attachment, channel)
            self._check_right(attachment.principal, channel)
            if request.durable and kind_of(channel)[0] is Kind.TOPIC:  # its own ones it follows in any case
                return await self._subscribe_for_good(attachment, request)
            (found,) = await self._locate(attachment.principal.name, [request])
            self._check_count(attachment, channel)  # others were located meanwhile
            return replace(found, durable=channel in attachment.durable)
        except Refused as refused:
            self._metrics.refused(refused.code)
            raise

    async def _subscribe_for_good(self, attachment: Attachment, request: SubscribeRequest) -> Subscription:
        principal, channel = attachment.principal, request.channel
        async with self._turns.of(f"{principal.name} {channel}"):
            added = await self._add(principal, channel)
            found = await self._place(principal.name, request)
            try:
                self._check_count(attachment, channel)
            except Refused:
                if added:
                    await self._store.remove_subscription(principal.name, channel)
                raise
            attachment.durable |= {channel}
            return found

    async def unsubscribe(self, attachment: Attachment, channel: str) -> None:
        """Ends delivery, and a durable subscription, and forgets the cursor. Raises Refused: NOT_SUBSCRIBED, FORBIDDEN for the
        device's own channels, STORE_UNAVAILABLE: then a durable one may still be there."""
        name = attachment.principal.name
        if channel in own_channels(attachment.principal):
            raise Refused(Code.FORBIDDEN, "a device always follows its own channels", channel=channel)
        if not attachment.unfollow(channel) and channel not in attachment.durable:
            raise Refused(Code.NOT_SUBSCRIBED, channel=channel)
        if channel not in attachment.durable:
            await self._forget_cursor(name, channel)
            return
        async with self._turns.of(f"{name} {channel}"):
            await self._store.remove_subscription(name, channel)
            attachment.durable -= {channel}
            await self._forget_cursor(name, channel)

    # ----------------------------------------------------------------------------------------------------- a backend asks

    async def add(self, device_id: str, channel: str) -> bool:
        """Subscribes a device to a topic for good; True if it was not. Connected, it follows the topic at once and is told so;
        away, it will find what is published from now on.

        Raises Refused: UNKNOWN_RECIPIENT for a device that was never seen or what is no name of a channel, FORBIDDEN for what is
        no topic or what `delivery.subscribe` does not allow the device, QUOTA_EXCEEDED, STORE_UNAVAILABLE.
        """
        try:
            self._check_topic(channel)
            async with self._turns.of(f"{device_id} {channel}"):
                return await self._add_for(device_id, channel)
        except Refused as refused:
            self._metrics.refused(refused.code)
            raise

    async def _add_for(self, device_id: str, channel: str) -> bool:
        record = await self._store.device(device_id)
        if record is None:
            raise unknown_device()
        principal = Principal("device", device_id, record.user_id, may_subscribe=self._rules)
        self._check_right(principal, channel)
        added = await self._add(principal, channel)
        found = await self._place(device_id, SubscribeRequest(channel))
        connected = self._connections.get(device_id)
        if connected is not None:
            connected.attachment.follow_unasked(found, self._at_most)
        else:
            await self._elsewhere.tell(Order(OrderKind.FOLLOW, device_id, channel))
        return added

    async def follow_added(self, device_id: str, channel: str) -> None:
        """Another node has stored the durable subscription: connected here, the device follows the channel. Raises
        StoreUnavailable."""
        connected = self._connections.get(device_id)
        if connected is not None:
            connected.attachment.follow_unasked(await self._place(device_id, SubscribeRequest(channel)), self._at_most)

    def leave_removed(self, device_id: str, channel: str) -> bool:
        """The durable subscription was ended: connected here, the device is told so. False if it is not connected."""
        connected = self._connections.get(device_id)
        if connected is None:
            return False
        connected.attachment.end_unasked(SubscriptionRefused(channel, Code.NOT_SUBSCRIBED, "ended by a backend"))
        return True

    async def remove(self, device_id: str, channel: str) -> bool:
        """Ends a durable subscription; False if there was none. Connected, the device is told so.

        Raises Refused: UNKNOWN_RECIPIENT for a device that was never seen, STORE_UNAVAILABLE.
        """
        kind_of(channel)
        async with self._turns.of(f"{device_id} {channel}"):
            if await self._store.device(device_id) is None:
                raise unknown_device()
            if not await self._store.remove_subscription(device_id, channel):
                return False
            if not self.leave_removed(device_id, channel):
                await self._elsewhere.tell(Order(OrderKind.LEAVE, device_id, channel))
            await self._forget_cursor(device_id, channel)
            return True

    # ------------------------------------------------------------------------------------------------------------- inside

    def _too_many(self) -> Refused:
        return Refused(Code.QUOTA_EXCEEDED, f"at most {self._at_most} subscriptions")

    def _check_count(self, attachment: Attachment, channel: str) -> None:
        if channel not in attachment.feeds and len(attachment.feeds) >= self._at_most:
            raise self._too_many()

    def _check_right(self, principal: Principal, channel: str) -> None:
        if not may_subscribe(principal, channel):
            raise Refused(Code.FORBIDDEN, f"{principal.name} may not subscribe here (delivery.subscribe)", channel=channel)

    def _check_topic(self, channel: str) -> None:
        if kind_of(channel)[0] is not Kind.TOPIC:
            raise Refused(
                Code.FORBIDDEN, "only topics are subscribed to: a device follows its own channels by itself", channel=channel
            )

    async def _add(self, principal: Principal, channel: str) -> bool:
        """The subscription is stored from now on; False if it was."""
        at_most = max(0, self._at_most - len(own_channels(principal)))
        return await self._store.add_subscription(principal.name, channel, self._wall_ms(), at_most)

    async def _place(self, device_id: str, request: SubscribeRequest) -> Subscription:
        """Where delivery on a durable subscription begins. The place is stored, or what is published until the device comes again
        would be skipped. Behind a loss it is not: that has to be named until the device has heard of it."""
        (found,) = await self._locate(device_id, [request])
        if not found.loss:
            await self._store.record((self._begun(device_id, found),))
        return replace(found, durable=True)

    def _begun(self, device_id: str, found: Subscription) -> CursorMove:
        """The cursor that belongs to the place."""
        place = found.offset, found.processed, found.attempts
        return CursorMove(device_id, found.channel, found.epoch, *place, self._wall_ms(), found.offset - found.unsaved)

    async def _locate(self, device_id: str, requests: Sequence[SubscribeRequest]) -> list[Subscription]:
        """Where delivery on each channel begins.

        A first place is stored before the device hears of it: it may come back without its position, also behind a crash. One
        connection of the device does so at a time; another, that is gone already maybe, must not store a later place after it.
        """
        found = await self._survey(device_id, requests)
        first = [number for number, (_, is_first) in enumerate(found) if is_first]
        if first:
            async with AsyncExitStack() as turns:
                for channel in sorted({requests[number].channel for number in first}):
                    await turns.enter_async_context(self._first_places.of(f"{device_id} {channel}"))
                again = await self._survey(device_id, [requests[number] for number in first])
                moves = [self._begun(device_id, place) for place, is_first in again if is_first]
                if moves:
                    await self._store.record(moves)
            for number, one in zip(first, again, strict=True):
                found[number] = one
        places = [place for place, _ in found]
        for place in places:
            if place.loss:
                self._metrics.positions_lost(place.loss.name.lower())
        return places

    async def _survey(self, device_id: str, requests: Sequence[SubscribeRequest]) -> list[tuple[Subscription, bool]]:
        """Where delivery on each channel begins, all as of one moment, and whether that would be the first place stored."""
        pending = [self._cursors.pending(device_id, request.channel) for request in requests]
        surveys = await self._store.survey(device_id, list(map(wants, requests, pending)))
        found: list[tuple[Subscription, bool]] = []
        for number, (request, survey, move) in enumerate(zip(requests, surveys, pending, strict=True)):
            await self._breathe(number)
            place = locate(request, survey, move)
            found.append((place, not place.loss and survey.cursor is None and move is None))
        return found

    async def _forget_cursor(self, device_id: str, channel: str) -> None:
        self._cursors.forget(device_id, channel)
        await self._store.forget_cursor(device_id, channel)
