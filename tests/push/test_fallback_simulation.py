"""Any order of publishing, connecting, acknowledging, crashes, answers and failing stores: each device's push ends in one way.

What must hold, whatever happens:

1. When a push goes out, the store has no acknowledgement of it, the message is not over, and the token is the device's.
2. A push of a message to a device always has the same id, and no other push has it.
3. A process that got a final answer for a push does not send it again; unless it is one of a topic, of which results are only
   counted, and the store lost the answer to a lease.
4. In the end there is no work left, and every device that a message was for has one result: pushed to, cancelled or not sent; none
   only where the message itself is over. Results are true: who is said to have acknowledged has, and what is said to be delivered
   was.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from streampush.config import StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.terms import Outcome
from streampush.push import user_messages
from streampush.push.delivery import Attachment
from streampush.push.due import LONGEST_WAIT
from streampush.push.leasing import LEASE
from streampush.push.store_ports import Store
from streampush.push.values import (
    Alert,
    DeviceRecord,
    MessageRecord,
    Published,
    PushAnswer,
    PushOrder,
    PushOutcome,
    PushToken,
)
from streampush.store.memory import MemoryStore
from tests.push.fallback_world import FakeSender, FallbackWorld
from tests.push.world import PUBLISHER, World

DEVICES = ("a", "b", "c")
CHANNELS = ("device:a", "device:b", "user:u", "news")
FRAGILE = frozenset(
    {"message", "reach", "reach_with", "reach_users", "subscribers", "devices_of_user", "record_pushes", "drop_token"}
    | {"outbox_lease", "outbox_release", "outbox_complete", "outbox_replace", "outbox_branch", "outbox_next_ms"}
    | {"outbox_hasten"}
)
"""What only follow-ups ask of the store, but for `message`."""

ANSWERS = (
    PushAnswer(PushOutcome.DELIVERED, apns_id="id"),
    PushAnswer(PushOutcome.REJECTED, "BadTopic", "id"),
    PushAnswer(PushOutcome.REJECTED, "Unregistered", "id", token_dead_at_ms=1 << 40),
    PushAnswer(PushOutcome.NOT_SENT, "no connection", again_in=3.0),
    PushAnswer(PushOutcome.UNKNOWN, "no answer", "id"),
)


HELD = PushAnswer(PushOutcome.NOT_SENT, "credential stopped", again_in=300.0, held=True)
"""Only where there are reloads, which the scenarios of the fixed seeds do not have."""


class FlakyStore:
    """The store in memory, of which some calls fail, before they take effect or behind it, while `share` is above 0."""

    def __init__(self, store: Store, random: Random) -> None:
        self._store = store
        self._random = random
        self.share = 0.0

    def __getattr__(self, name: str) -> Any:
        known = getattr(self._store, name)
        if name not in FRAGILE:
            return known

        async def call(*args: Any, **named: Any) -> Any:
            if self._random.random() < self.share:
                raise StoreUnavailable("before")
            result = await known(*args, **named)
            if self._random.random() < self.share / 2:
                raise StoreUnavailable("behind")
            return result

        return call


@dataclass
class CheckingSender(FakeSender):
    """Looks, at each push, whether it may go out. `finals`: which pushes have had a final answer, of this process."""

    check: Callable[[PushOrder], None] = lambda order: None
    random: Random = field(default_factory=lambda: Random(0))
    finals: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    choices: tuple[PushAnswer, ...] = ANSWERS

    async def send(self, order: PushOrder) -> PushAnswer:
        assert order.push_id not in self.finals or order.channel == "news", "sent again behind a final answer"
        self.check(order)
        if order.token.topic in self.busy:
            return PushAnswer(PushOutcome.NOT_SENT, "busy", again_in=2.0)
        if self.slow and self.random.random() < 0.5:
            self.waiting.append(Deferred())
            await self.waiting[-1]
        answer = self.usual if not self.slow else self.random.choice(self.choices)
        if answer.again_in is None:
            self.finals.add(order.push_id)
            if answer.outcome is PushOutcome.DELIVERED:
                self.delivered.add(order.push_id)
        return answer


class Scenario:
    """One seed: a store that lives on, processes that come and go, and what was asked of them."""

    def __init__(self, seed: int, *, reloads: bool = False) -> None:
        self.random = Random(seed)
        self.reloads = reloads
        self.worlds: list[FallbackWorld] = []
        self.memory = MemoryStore(StoreConfig(), lambda: self.world.wall_ms(), lambda: "epoch")
        self.store = FlakyStore(self.memory, self.random)
        self.published: list[Published] = []
        self.ids: dict[str, tuple[str, str]] = {}
        self.delivered: set[tuple[str, str]] = set()
        self.answered: dict[tuple[str, str], int] = {}  # device and channel: up to where, on any connection, also if it was lost
        self.online: dict[str, Attachment] = {}
        self.begin(1000.0)
        for name in DEVICES:
            self.register(name)
            self.now(self.world.service.subscriptions.add(name, "news"))

    @property
    def world(self) -> FallbackWorld:
        return self.worlds[-1]

    def begin(self, at: float) -> None:
        """A process begins."""
        choices = (*ANSWERS, HELD) if self.reloads else ANSWERS
        sender = CheckingSender(check=self.check, random=self.random, slow=True, choices=choices)
        world = FallbackWorld(store=self.store, sender=sender, start=False)  # type: ignore[arg-type]  # it is one, by its look
        world.now, world.memory = at, self.memory
        world.ids = 1000 * len(self.worlds)
        self.worlds.append(world)
        world.service.start()
        world.settle()

    def now(self, work: Coroutine[Any, Any, Any]) -> Any:
        return World.run(self.world, work)

    def check(self, order: PushOrder) -> None:
        known = self.ids.setdefault(order.push_id, (order.message_id, order.device_id))
        assert known == (order.message_id, order.device_id)
        record = self.record(order.message_id)
        assert record is not None
        assert not record.recalled_at_ms
        assert not record.superseded_by
        assert not 0 < record.expires_at_ms <= self.world.wall_ms()
        assert not self.has(order.device_id, record), "pushed behind its acknowledgement"
        device = self.now(self.memory.device(order.device_id))
        assert device.push_token == order.token

    def record(self, message_id: str) -> MessageRecord | None:
        found: MessageRecord | None = self.now(self.memory.message(message_id, 100))
        return found

    def has(self, device_id: str, record: MessageRecord) -> bool:
        """Whether the device has acknowledged the message, as the store has it, or the process before it is stored."""
        cursor = self.now(self.memory.cursors(device_id)).get(record.channel)
        return cursor is not None and cursor.epoch == record.epoch and cursor.offset >= record.offset

    # ------------------------------------------------------------------------------------------------------ what happens

    def register(self, name: str) -> None:
        user = "u" if name != "c" else ""
        known = self.now(self.memory.device(name)) or DeviceRecord(name, user)
        has_token = self.random.random() < 0.8
        token = PushToken(f"{name}{self.random.random()}".encode(), "app", sandbox=False) if has_token else None
        self.now(self.memory.remember_device(DeviceRecord(name, known.user_id, push_token=token)))

    def publish(self) -> None:
        random = self.random
        after_ms = random.choice((0, 0, 300, 20_000))
        alert = Alert(title="t", fallback_after_ms=after_ms, only_when_away=not after_ms and random.random() < 0.2)
        ttl, key = random.choice((0.0, 0.0, 4.0, 60.0)), random.choice(("", "", "k"))
        delay = random.choice((0, 0, 0, 5_000))
        due = self.world.wall_ms() + delay if delay else 0
        channel = random.choice(CHANNELS)
        self.published.append(self.world.alert(channel, alert, ttl=ttl, collapse_key=key, deliver_at_ms=due))

    def connect(self) -> None:
        name = self.random.choice(DEVICES)
        self.online[name], _ = self.world.online(name, "u" if name != "c" else "")

    def disconnect(self) -> None:
        if self.online:
            name = self.random.choice(sorted(self.online))
            self.world.offline(self.online.pop(name))

    def acknowledge(self) -> None:
        if not self.online:
            return
        attachment = self.online[self.random.choice(sorted(self.online))]
        outcome = self.random.choice((Outcome.DELIVERED, Outcome.PROCESSED, Outcome.REJECTED, Outcome.RETRY_LATER))
        for channel, feed in attachment.feeds.items():
            if feed.sent > feed.done and self.random.random() < 0.7:
                offset = self.random.randint(feed.done + 1, feed.sent)
                attachment.acknowledge(channel, offset, outcome)
                place = attachment.principal.name, channel
                self.answered[place] = max(self.answered.get(place, 0), offset - (outcome is Outcome.RETRY_LATER))
        if self.random.random() < 0.8:
            self.world.settle()

    def recall(self) -> None:
        if self.published:
            try:
                self.now(self.world.service.recall(PUBLISHER, self.random.choice(self.published).message_id))
            except Refused:
                return  # it was recalled before it went out

    def answer(self) -> None:
        waiting = self.world.sender.waiting
        if waiting:
            waiting.popleft().callback(ANSWERS[0])
            self.world.settle()

    def crash(self) -> None:
        old = self.world
        self.online.clear()
        self.now(self.memory.forget_run("node"))
        self.note_delivered(old)
        self.begin(old.now)

    def mend(self) -> None:
        """A reload: the key is another one, and perhaps the app slower or faster."""
        sender = self.world.sender
        sender.busy = self.random.choice((set(), {"app"}))
        sender.mended()
        self.world.settle()

    def flake(self) -> None:
        self.store.share = self.random.choice((0.0, 0.0, 0.3))

    def note_delivered(self, world: FallbackWorld) -> None:
        assert isinstance(world.sender, CheckingSender)
        self.delivered |= {self.ids[push_id] for push_id in world.sender.delivered}

    def pass_time(self) -> None:
        self.world.advance(self.random.choice((0.0, 0.1, 1.0, 6.0, LEASE)))
        self.world.pause()

    def run(self, steps: int) -> None:
        acts = [self.publish] * 4 + [self.connect] * 3 + [self.acknowledge] * 4 + [self.pass_time] * 4 + [self.answer] * 3
        acts += [self.disconnect, self.recall, self.crash, self.flake, lambda: self.register(self.random.choice(DEVICES))]
        acts += [self.mend] * 2 * self.reloads
        for _ in range(steps):
            self.random.choice(acts)()
            assert self.world.failures == []

    # ---------------------------------------------------------------------------------------------------------- the end

    def finish(self) -> None:
        """All goes well from now on; what waits comes to its end."""
        self.store.share = 0.0
        self.world.sender.slow = False
        self.world.sender.busy.clear()
        for attachment in self.online.values():
            self.world.offline(attachment)
        self.online.clear()
        for _ in range(6):
            while self.world.sender.waiting:
                self.answer()
            self.world.pause()
            self.world.advance(LEASE + LONGEST_WAIT)
        assert self.world.failures == []
        self.note_delivered(self.world)
        assert self.now(self.memory.status()).outbox == 0

    def verdict(self) -> None:
        for published in self.published:
            record = self.record(published.message_id)
            if record is None or not record.offset or published.channel == "news":
                continue
            is_over = bool(record.recalled_at_ms or record.superseded_by or record.expires_at_ms)
            rows = {row.device_id: row.push for row in record.devices if row.push is not None}
            meant = {"a", "b"} if published.channel == "user:u" else {published.channel.partition(":")[2]}
            assert rows.keys() <= meant
            assert is_over or rows.keys() == meant
            for name, push in rows.items():
                if push.outcome is PushOutcome.DELIVERED:
                    assert (published.message_id, name) in self.delivered
                elif push.reason == "acknowledged":
                    assert self.has(name, record) or self.answered[name, record.channel] >= record.offset
                elif push.outcome is PushOutcome.CANCELLED:
                    assert is_over


def test_a_fixed_seed_pushes_cancels_and_gives_up() -> None:
    """The scenarios are not empty."""
    outcomes: set[str] = set()
    for seed in range(12):
        scenario = Scenario(seed)
        scenario.run(60)
        scenario.finish()
        for world in scenario.worlds:
            outcomes |= {call[0] for call in world.metrics.named("fell_back")}
    assert outcomes == {"delivered", "rejected", "not_sent", "unknown", "cancelled"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
@example(254)  # answered behind what was put off, on a connection whose end lost that
def test_each_devices_push_ends_in_one_way_whatever_happens(seed: int) -> None:
    scenario = Scenario(seed)
    scenario.run(60)
    scenario.finish()
    scenario.verdict()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
def test_each_devices_push_ends_in_one_way_also_when_each_device_of_a_user_has_work_of_its_own(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_messages, "FEW_DEVICES", 1)
        scenario = Scenario(seed)
        scenario.run(60)
        scenario.finish()
        scenario.verdict()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
def test_each_devices_push_ends_in_one_way_also_with_reloads_and_apps_that_have_had_their_share(seed: int) -> None:
    scenario = Scenario(seed, reloads=True)
    scenario.run(60)
    scenario.finish()
    scenario.verdict()
