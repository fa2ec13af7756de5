"""The parts of the application, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streampush.config import DeliveryConfig, PublishConfig
from streampush.protocol.terms import Milestone
from streampush.push.alarm import Alarm
from streampush.push.backlog import Backlog
from streampush.push.connections import Connections
from streampush.push.cursors import CursorWriter
from streampush.push.delivery import Attachment, DeliverySurroundings
from streampush.push.devices import Devices
from streampush.push.elsewhere import Elsewhere
from streampush.push.explaining import Explainer
from streampush.push.fanout import FanOut
from streampush.push.follow_ups import FollowUps
from streampush.push.left_behind import LeftBehind
from streampush.push.presence import Presence
from streampush.push.publishing import Publishing
from streampush.push.rates import Rates
from streampush.push.reading import ReadQueue
from streampush.push.recall import Recalls
from streampush.push.receipts import Receipts
from streampush.push.redelivery import Patience
from streampush.push.schedule import Schedule
from streampush.push.standing import Standings
from streampush.push.subscriptions import Subscriptions
from streampush.push.surroundings import Surroundings
from streampush.push.turns import Turns
from streampush.push.values import (
    Appended,
    ChannelRules,
    CursorMove,
    Mark,
    Undeliverable,
)


class Parts:
    """Makes all parts of one node's application, and carries to the others what one of them notices."""

    def __init__(self, around: Surroundings, publish: PublishConfig, delivery: DeliveryConfig) -> None:
        self._around = around
        store = around.store
        turns = Turns()
        self.receipts = self._make_receipts(publish)
        self.fanout = self._make_fanout()
        elsewhere = Elsewhere(store, around.bus, around.run)
        self.cursors = CursorWriter(
            store, around.call_soon, around.spawn, around.retry_later, around.metrics, self._recorded, self._cleared
        )
        self.schedule = self._make_schedule()
        self.publishing = self._make_publishing(publish)
        self.recalls = self._make_recalls()
        self.presence = self._make_presence(turns)
        self.delivery = self._make_delivery(delivery)
        self.connections = Connections(self.delivery, self.presence, around.run, around.wall_ms, self._follow_own)
        self.subscriptions = self._make_subscriptions(delivery, elsewhere)
        self.backlog = Backlog(store, self.cursors, delivery.page_bytes)
        self.devices = Devices(
            store,
            self.cursors,
            turns,
            self.connections,
            self.presence,
            self.backlog,
            elsewhere,
            around.wall_ms,
            self._standing_changed,
        )
        self.follow_ups = self._make_follow_ups()
        self.explainer = self._make_explainer(delivery)
        self.left_behind = LeftBehind(
            store, self.cursors, around.metrics, clock=around.clock, call_later=around.call_later, spawn=around.spawn
        )

    # -------------------------------------------------------------------------------------------- each needs those made before it

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
            self.fanout,
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
            self.fanout,
            publish,
            around.metrics,
            clock=around.clock,
            wall_ms=around.wall_ms,
            new_id=around.new_id,
            scheduled=self.schedule.expect,
            falls_back=self._falls_back,
            rates=Rates(publish, around.rates, around.clock, around.spawn),
            keeps_alerts=lambda: around.sender is not None and around.sender.ready,
        )

    def _make_recalls(self) -> Recalls:
        around = self._around
        return Recalls(
            around.store,
            self.fanout,
            self.publishing,
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
            run=around.run,
            wall_ms=around.wall_ms,
            call_soon=around.call_soon,
            spawn=around.spawn,
            retry_later=around.retry_later,
            begun=lambda device_id, generation: self.connections.begun(device_id, generation),
            overtaken=lambda device_id, session_id: self.connections.overtaken(device_id, session_id),
        )

    def _make_delivery(self, delivery: DeliveryConfig) -> DeliverySurroundings:
        around = self._around
        return DeliverySurroundings(
            around.store,
            self.fanout,
            ReadQueue(delivery.max_reads, around.call_soon, around.spawn),
            self.cursors,
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
            self.cursors,
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
            rate=self.publishing.device_level,
            run=around.run,
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
            Standings(around.store, self.cursors, self.connections, around.run, around.wall_ms),
            self.devices.drop_token,
            around.metrics,
            shared=around.bus.shared,
            wall_ms=around.wall_ms,
            call_soon=around.call_soon,
            call_later=around.call_later,
            spawn=around.spawn,
            retry_later=around.retry_later,
        )

    # ------------------------------------------------------------------------------------- what one part tells, and who hears it

    def _falls_back(self, at_ms: int) -> None:
        if self.follow_ups is not None:
            self.follow_ups.expect(at_ms)

    def _written(self, channel: str, epoch: str, first: int, last: int, connections: int) -> None:
        """Messages of a topic, of some of which receipts are wanted, were written to so many connections."""
        now_ms = self._around.wall_ms()
        self.cursors.mark(Mark("", channel, epoch, first, last, Milestone.WRITTEN, now_ms, connections))

    def _cleared(self, notices: Sequence[Appended]) -> None:
        """Messages were recalled because a device has processed them."""
        self.recalls.cleared(notices)
        for notice in notices:
            self.withdraw(notice.publication.recalls)

    def withdraw(self, message_id: str) -> None:
        """The message was recalled: what waits to be pushed of it need not be any more."""
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

    async def _follow_own(self, attachment: Attachment, channel: str) -> None:
        await self.subscriptions.follow_own(attachment, channel)
