"""A node under random use: slow and failing store, small windows, lost room, reconnects, trimming, expiry, lost logs.

Every scenario is a seed. The model keeps what was really appended (`Truth`) and checks each delivery against it as it is
written; in the end everything is made well again and must come to rest with nothing missing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from random import Random

import pytest

from streampush.config import DeliveryConfig, PublishConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason, Outcome, Start
from streampush.push.delivery import Attachment
from streampush.push.values import (
    Accepted,
    ConnectionInfo,
    DeviceRecord,
    Draft,
    Position,
    Principal,
    Publication,
    PublishRequest,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)
from streampush.store.memory import MemoryStore
from tests.push.world import PUBLISHER, World, decode, device
from tests.store.slow import SlowStore

TOPICS = ("news", "sport")
DEVICES = (device("d1", "u"), device("d2", "u"), device("d3"))
CHANNELS = (*TOPICS, "user:u", "device:d1", "device:d3")


class SocketBroken(Exception):
    """Raised by a link on purpose."""


class Truth(MemoryStore):
    """Remembers everything that was ever appended, by channel and epoch, and can lose a log."""

    def __init__(self, world: Simulation, limits: StoreConfig) -> None:
        super().__init__(limits, world.wall_ms, world.new_epoch)
        self._world = world
        self.entries: dict[tuple[str, str], dict[int, Publication]] = defaultdict(dict)

    async def append(self, draft: Draft) -> Accepted:
        accepted = await super().append(draft)
        assert accepted.appended is not None
        self.entries[draft.channel, accepted.epoch][accepted.offset] = accepted.appended.publication
        return accepted

    def lose(self, channel: str) -> None:
        log = self._logs.channels.pop(channel, None)
        if log is not None:
            self._space.used -= log.size
            self._logs.epoch = self._world.new_epoch()


class Phone:
    """A device's own memory, which outlives its connections."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.got: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.begun: dict[tuple[str, str], int] = {}  # where the device first followed
        self.positions: dict[str, Position] = {}
        self.held: dict[str, tuple[str, int]] = {}
        self.careful = True  # never began in front of its stored cursor
        self.link: ModelLink | None = None


class ModelLink:
    """One connection. Checks what is written to it."""

    def __init__(self, world: Simulation, phone: Phone, messages: int, size: int) -> None:
        self.world = world
        self.phone = phone
        self.window_messages = messages
        self.window_bytes = size
        self.room = True
        self.alive = True
        self.ready = False  # Welcome is out
        self.attachment: Attachment | None = None
        self.epoch: dict[str, str] = {}
        self.last: dict[str, int] = {}
        self.proven: dict[str, tuple[int, int]] = {}  # recovered: up to this offset, asked at this time
        self.open: dict[str, dict[int, tuple[str, int]]] = defaultdict(dict)  # offset: id, size; not acknowledged

    # ------------------------------------------------------------------------------------------------- see push.ports.Link

    def has_room(self) -> bool:
        return self.room

    def deliver(self, frames: bytes, messages: int) -> None:
        assert self.alive, "written to a connection that is gone"
        assert self.room, "written into a full buffer"
        decoded = decode(frames)
        assert len(decoded) == messages
        for frame in decoded:
            self._check(frame.channel, frame.offset, frame.message_id)
            self.open[frame.channel][frame.offset] = frame.message_id, frame.size
        count = sum(len(entries) for entries in self.open.values())
        size = sum(size for entries in self.open.values() for _, size in entries.values())
        assert count <= self.window_messages, "more messages than the window"
        assert size <= self.window_bytes or count == 1, "more bytes than the window"
        self.world.inside_deliver(self)

    def _check(self, channel: str, offset: int, message_id: str) -> None:
        epoch, last = self.epoch[channel], self.last[channel]
        entries = self.world.truth.entries[channel, epoch]
        assert offset > last, "not in order"
        assert entries[offset].message_id == message_id, "another message"
        now_ms = self.world.wall_ms()
        top, asked_ms = self.proven.get(channel, (0, 0))
        for missing in range(last + 1, offset):
            expires_at_ms = entries[missing].expires_at_ms
            assert 0 < expires_at_ms <= now_ms, f"{channel} {missing} is missing and no loss was named"
            assert missing > top or expires_at_ms > asked_ms, "recovered, and yet something had expired"
        self.last[channel] = offset
        self.phone.got[channel, epoch].add(offset)

    def backlog_end(self, channel: str, offset: int) -> None:
        assert self.alive
        assert offset >= self.last[channel]

    def wake_by(self, deadline: float) -> None:
        assert self.alive

    def repositioned(self, subscription: Subscription | SubscriptionRefused) -> None:
        assert self.alive
        assert isinstance(subscription, Subscription)
        channel = subscription.channel
        assert subscription.loss is not LossReason.UNSPECIFIED
        if subscription.loss is LossReason.TRIMMED:
            assert subscription.epoch == self.epoch[channel]
            assert 0 < subscription.lost_at_most <= subscription.offset  # what is held may be lost, too
        else:
            assert subscription.epoch != self.epoch[channel]
            self.open[channel].clear()
        self.begins(subscription)

    def close(self, code: Code, detail: str) -> None:
        self.gone()

    # ------------------------------------------------------------------------------------------------------------- model

    def begins(self, subscription: Subscription) -> None:
        """The device is told where it is on a channel."""
        channel = subscription.channel
        self.epoch[channel], self.last[channel] = subscription.epoch, subscription.offset
        self.phone.begun.setdefault((channel, subscription.epoch), subscription.offset)
        self.phone.positions[channel] = Position(subscription.epoch, subscription.offset, subscription.message_id)

    def gone(self) -> None:
        if self.alive:
            self.alive = False
            if self.phone.link is self:
                self.phone.link = None
            assert self.attachment is not None
            self.world.service.detach(self.attachment, 0, "gone")

    def acknowledge(self, channel: str, offset: int, outcome: Outcome) -> None:
        """The device has processed what it has up to here, and remembers it as its position."""
        assert self.attachment is not None
        epoch = self.epoch[channel]
        message_id = self.open[channel][offset][0]
        for done in [one for one in self.open[channel] if one <= offset]:
            del self.open[channel][done]
        position = self.phone.positions.get(channel)
        if outcome is Outcome.RETRY_LATER:
            if self.phone.careful and channel not in self.phone.held:
                self.phone.held[channel] = epoch, offset
        elif channel not in self.phone.held and (position is None or position.epoch != epoch or position.offset < offset):
            self.phone.positions[channel] = Position(epoch, offset, message_id)
        self.attachment.acknowledge(channel, offset, outcome, epoch)


class Simulation(World):
    """One scenario."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.now = 1000.0
        self.epochs = 0
        limits = StoreConfig(history_messages=random.choice((3, 8, 1000)), history_age=random.choice((0.05, 1000.0)))
        self.truth = Truth(self, limits)
        self.slow = SlowStore(self.truth)
        pages = DeliveryConfig(page_messages=random.choice((1, 3, 64)), page_bytes=random.choice((1024, 64 * 1024)))
        super().__init__(store=self.slow, publish=PublishConfig(), delivery=pages)
        self.phones = [Phone(principal) for principal in DEVICES]
        for phone in self.phones:
            self.run(self.truth.remember_device(DeviceRecord(phone.principal.name, phone.principal.user_id)))
        self.calm = False
        self.hostile = random.random() < 0.5  # links that close, acknowledge or break inside deliver
        self.outage = 0.0
        self.haste = random.choice((1, 4, 30))  # calls of the store in a step

    # ----------------------------------------------------------------------------------------------------------- actions

    def step(self) -> None:
        action = self.random.choices(
            (
                self.publishes,
                self.acts,
                self.connects,
                self.disconnects,
                self.turns_once,
                self.stores,
                self.passes_time,
                self.loses,
            ),
            (15, 40, 2, 1, 25, 40, 4, 0.2),
        )[0]
        action()
        for phone in self.phones:
            attachment = phone.link.attachment if phone.link else None
            assert attachment is None or len(attachment._pump) <= len(attachment.feeds)

    def publishes(self) -> None:
        random = self.random
        payload = b"x" * random.choice((0, 1, 10, 10, 500))
        request = PublishRequest(random.choice(CHANNELS), payload, ttl=random.choice((0, 0, 0, 0.005, 0.05)))
        self.spawn(self._publish(request))

    async def _publish(self, request: PublishRequest) -> None:
        try:
            await self.service.publish(PUBLISHER, request)
        except Refused as refused:
            assert refused.code in (Code.STORE_UNAVAILABLE, Code.UNKNOWN_RECIPIENT)

    def connects(self) -> None:
        phone = self.random.choice(self.phones)
        if phone.link is None or self.random.random() < 0.3:
            self.connect(phone)

    def connect(self, phone: Phone) -> None:
        random = self.random
        link = ModelLink(self, phone, random.choice((1, 2, 5, 100)), random.choice((60, 200, 1000, 100_000)))
        info = ConnectionInfo("session", "192.0.2.1", link.window_messages, link.window_bytes)
        older, phone.link = phone.link, link
        link.attachment = self.service.attach(phone.principal, link, info)
        assert older is None or not older.alive
        wanted = [self._resume_at(link, channel) for channel in CHANNELS if channel in TOPICS or random.random() < 0.5]
        wanted = [request for request in wanted if request.channel in TOPICS or request.channel in self._own(phone)]
        self.spawn(self._resume(link, wanted))

    def _own(self, phone: Phone) -> list[str]:
        own = [f"device:{phone.principal.name}"]
        return [*own, f"user:{phone.principal.user_id}"] if phone.principal.user_id else own

    def _resume_at(self, link: ModelLink, channel: str) -> SubscribeRequest:
        random = self.random
        position = link.phone.positions.get(channel)
        if position is None or random.random() < 0.4:
            return SubscribeRequest(channel)
        if random.random() < 0.1:
            link.phone.careful = False
            wrong = random.choice(
                (replace(position, epoch="other"), replace(position, message_id="other"), replace(position, offset=999))
            )
            return SubscribeRequest(channel, wrong)
        return SubscribeRequest(channel, position)

    async def _resume(self, link: ModelLink, wanted: list[SubscribeRequest]) -> None:
        assert link.attachment is not None
        asked_ms = self.wall_ms()
        requests = {request.channel: request for request in wanted}
        held, link.phone.held = link.phone.held, {}
        try:
            await self.service.remember(link.phone.principal)
            results = await self.service.resume(link.attachment, wanted)
        except Refused as refused:
            assert refused.code is Code.STORE_UNAVAILABLE
            link.close(refused.code, refused.detail)
            return
        for result in results:
            if isinstance(result, Subscription) and link.alive:
                self._told(link, requests.get(result.channel, SubscribeRequest(result.channel)), result, asked_ms, held)
        link.attachment.begin()
        link.ready = link.alive

    def _told(
        self, link: ModelLink, request: SubscribeRequest, result: Subscription, asked_ms: int, held: dict[str, tuple[str, int]]
    ) -> None:
        channel, position = result.channel, request.position
        if result.recovered:
            assert result.loss is LossReason.UNSPECIFIED
            link.proven[channel] = result.top_offset, asked_ms
            if position is not None:
                assert (position.epoch, position.offset) == (result.epoch, result.offset)
                entries = self.truth.entries[channel, result.epoch]
                assert not position.offset or entries[position.offset].message_id == position.message_id
        elif position is not None:
            assert result.loss is not LossReason.UNSPECIFIED, "neither proven nor lost"
        if link.phone.careful and position is None and channel in held and held[channel][0] == result.epoch and not result.loss:
            assert result.offset < held[channel][1], "the cursor went past what is wanted again"
        link.begins(result)

    def disconnects(self) -> None:
        phone = self.random.choice(self.phones)
        if phone.link is not None:
            phone.link.gone()

    def acts(self) -> None:
        """A connected device does something."""
        link = self.random.choice(self.phones).link
        if link is None or not link.ready:
            return
        assert link.attachment is not None
        choice = self.random.random()
        if choice < 0.8:
            self._acknowledges(link)
        elif choice < 0.85:
            link.window_messages = self.random.choice((1, 3, 50))
            link.window_bytes = self.random.choice((60, 300, 10_000))
            link.attachment.credit(link.window_messages, link.window_bytes)
        elif choice < 0.88:
            link.room = False
        elif choice < 0.96:
            link.room = True
            link.attachment.room_again()
        elif choice < 0.97:
            self.spawn(self._unsubscribe(link, self.random.choice(TOPICS)))
        else:
            self.spawn(self._subscribe(link, self.random.choice(TOPICS), self.random.choice(list(Start))))

    def _acknowledges(self, link: ModelLink) -> None:
        open_channels = [channel for channel, entries in link.open.items() if entries]
        if open_channels:
            channel = self.random.choice(open_channels)
            offset = self.random.choice(list(link.open[channel]))
            outcomes = (Outcome.DELIVERED, Outcome.PROCESSED, Outcome.REJECTED, Outcome.RETRY_LATER)
            link.acknowledge(channel, offset, self.random.choices(outcomes, (5, 5, 1, 1))[0])

    async def _unsubscribe(self, link: ModelLink, channel: str) -> None:
        assert link.attachment is not None
        link.phone.positions.pop(channel, None)
        link.phone.held.pop(channel, None)
        link.open.pop(channel, None)
        for key in [key for key in link.phone.begun if key[0] == channel]:
            del link.phone.begun[key]
        try:
            await self.service.unsubscribe(link.attachment, channel)
        except Refused as refused:
            assert refused.code in (Code.NOT_SUBSCRIBED, Code.STORE_UNAVAILABLE)

    async def _subscribe(self, link: ModelLink, channel: str, start: Start) -> None:
        assert link.attachment is not None
        try:
            result = await self.service.subscribe(link.attachment, SubscribeRequest(channel, start=start))
        except Refused as refused:
            assert refused.code is Code.STORE_UNAVAILABLE
            return
        if link.alive:
            key = channel, result.epoch  # what it skips is not missed; what it asks for again is not kept for the next connection
            link.phone.begun[key] = max(result.offset, link.phone.begun.get(key, 0))
            link.phone.held.pop(channel, None)
            link.phone.careful = False
            link.proven.pop(channel, None)
            link.open.pop(channel, None)
            link.begins(result)
        link.attachment.follow(result)

    def inside_deliver(self, link: ModelLink) -> None:
        """What the far side of a link may do before `deliver` returns."""
        if self.calm or not self.hostile:
            return
        choice = self.random.random()
        if choice < 0.03:
            link.gone()
        elif choice < 0.06:
            link.room = False
        elif choice < 0.2:
            self._acknowledges(link)
        elif choice < 0.22:
            raise SocketBroken

    def turns_once(self) -> None:
        self.guarded_turn()

    def guarded_turn(self) -> None:
        """As World.turn; a reactor logs what a call raises and goes on."""
        turns, self.turns[:] = list(self.turns), []
        for work in turns:
            try:
                work()
            except SocketBroken:
                assert self.hostile
        assert all(isinstance(failure, SocketBroken) for failure in self.failures), self.failures

    def stores(self) -> None:
        """The store gets on with some of its calls, or fails them."""
        for _ in range(min(self.haste, len(self.slow.calls))):
            self._one_call()

    def _one_call(self) -> None:
        call = self.random.choice(self.slow.calls)
        if call.effect is None and self.random.random() < self.outage:
            self.slow.calls.remove(call)
            call.fail()
        elif self.random.random() < 0.3:
            call.act()
        else:
            self.slow.calls.remove(call)
            call.finish()

    def passes_time(self) -> None:
        self.now += self.random.choice((0.001, 0.01, 0.03))
        self.outage = self.random.choice((0.0, 0.0, 0.0, 0.9))
        if self.random.random() < 0.3:
            later, self.later[:] = list(self.later), []
            for work in later:
                work()
        self.truth.sweep(2)

    def loses(self) -> None:
        self.truth.lose(self.random.choice(CHANNELS))

    # --------------------------------------------------------------------------------------------------------------- end

    def rest(self) -> None:
        """Everything is well again and comes to rest."""
        self.calm = True
        self.outage = 0.0
        for phone in self.phones:
            if phone.link is None:
                self.connect(phone)
        for _ in range(3000):
            busy = bool(self.turns or self.slow.calls or self.later)
            self.guarded_turn()
            while self.slow.calls:
                self.slow.finish()
            later, self.later[:] = list(self.later), []
            for work in later:
                work()
            for phone in self.phones:
                busy = self._serve(phone) or busy
            if not busy:
                return
        raise AssertionError("it never comes to rest")

    def _serve(self, phone: Phone) -> bool:
        link = phone.link
        if link is None:
            self.connect(phone)
            return True
        assert link.attachment is not None
        busy = False
        if not link.room:
            link.room = busy = True
            link.attachment.room_again()
        for channel, entries in list(link.open.items()):
            if entries:
                link.acknowledge(channel, max(entries), Outcome.PROCESSED)
                busy = True
        return busy

    def nothing_is_missing(self) -> None:
        now_ms = self.wall_ms()
        for phone in self.phones:
            assert phone.link is not None
            assert phone.link.attachment is not None
            attachment = phone.link.attachment
            for channel, feed in attachment.feeds.items():
                head = self.truth._logs.head(channel)
                assert feed.live or head.epoch != feed.epoch, f"{phone.principal.name} {channel} never went live"
                if head.epoch != feed.epoch:
                    continue  # lost when all were live: they hear of it with the next publication
                assert feed.sent == head.top_offset
                begun = phone.begun[channel, feed.epoch]
                entries = self.truth.entries[channel, feed.epoch]
                for offset in range(max(begun, head.floor_offset) + 1, head.top_offset + 1):
                    if not 0 < entries[offset].expires_at_ms <= now_ms:
                        assert offset in phone.got[channel, feed.epoch], f"{phone.principal.name} never got {channel} {offset}"
            assert (attachment._open_messages, attachment._open_bytes, len(attachment._pump)) == (0, 0, 0)

    def nothing_is_left(self) -> None:
        for phone in self.phones:
            assert phone.link is not None
            phone.link.gone()
        self.guarded_turn()
        while self.slow.calls:
            self.slow.finish()
        assert self.fanout._channels == {}
        assert self.fanout._due == []
        assert self.service.connected_devices() == 0
        assert not self.service._cursors._due
        assert not self.service._cursors._begun


def simulate(seed: int, steps: int = 300) -> Simulation:
    simulation = Simulation(seed)
    for _ in range(steps):
        simulation.step()
    simulation.rest()
    simulation.nothing_is_missing()
    simulation.nothing_is_left()
    return simulation


@pytest.mark.parametrize("block", range(10))
def test_nothing_is_lost_repeated_or_stuck_whatever_happens(block: int) -> None:
    for seed in range(block * 30, block * 30 + 30):
        try:
            simulate(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
