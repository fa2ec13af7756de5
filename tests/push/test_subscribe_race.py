"""Subscribing without a gap: whatever is published, collapsed, recalled, or expires while the store answers, and in whatever order
its calls take effect and finish, the device sees each channel as the log has it. Rule: live and history are one sequence."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from streampush.config import DeliveryConfig, StoreConfig
from streampush.protocol.terms import Outcome, Start
from streampush.push.values import ConnectionInfo, Position, PublishRequest, SubscribeRequest, Subscription
from streampush.store.memory import MemoryStore
from tests.push.world import PUBLISHER, RecordingLink, World, device
from tests.store.slow import Call, SlowStore

EVERYTHING = 1_000_000


class Race:
    """A device subscribes while the store is slow and publishers are busy."""

    def __init__(self, window: int, page: int) -> None:
        self.memory = MemoryStore(StoreConfig(), lambda: self.world.wall_ms(), lambda: "epoch")
        self.store = SlowStore(self.memory)
        self.world = World(store=self.store, delivery=DeliveryConfig(page_messages=page))
        self.link = RecordingLink()
        self.attachment = self.world.service.attach(device("d"), self.link, ConnectionInfo("s", "", window, EVERYTHING))
        self.attachment.begin()
        self.offsets: dict[str, int] = {}  # of every entry that was answered, by id
        self.ids: list[str] = []
        self.subscription: Subscription | None = None
        self.gone_before: set[str] = set()
        self.surveyed_at = 0.0

    # --------------------------------------------------------------------------------------------------------- what happens

    def publish(self, key: str, ttl: float) -> None:
        self.world.spawn(self._publish(PublishRequest("news", b"x", collapse_key=key, ttl=ttl)))

    def published(self, key: str, ttl: float) -> None:
        """At once, and offered to who follows."""
        self.publish(key, ttl)
        self.finish(-1)
        self.world.turn()

    async def _publish(self, request: PublishRequest) -> None:
        answer = await self.world.service.publish(PUBLISHER, request)
        self.offsets[answer.message_id] = answer.offset
        self.ids.append(answer.message_id)

    def recall(self, number: int) -> None:
        if self.ids:
            self.world.spawn(self._recall(self.ids[number % len(self.ids)]))

    async def _recall(self, message_id: str) -> None:
        answer = await self.world.service.recall(PUBLISHER, message_id)
        if answer.notice_id:
            self.offsets[answer.notice_id] = answer.notice_offset

    def subscribe(self, number: int) -> None:
        """From the beginning, or behind something that was answered."""
        self.gone_before = set(self.offsets) - set(self.readable(0))
        request = SubscribeRequest("news", start=Start.EARLIEST)
        if number and self.ids:
            message_id = self.ids[number % len(self.ids)]
            request = SubscribeRequest("news", Position("epoch", self.offsets[message_id], message_id))
        self.world.spawn(self._subscribe(request))

    async def _subscribe(self, request: SubscribeRequest) -> None:
        self.subscription = await self.world.service.subscribe(self.attachment, request)
        self.attachment.follow(self.subscription)

    def call(self, number: int) -> Call | None:
        return self.store.calls[number % len(self.store.calls)] if self.store.calls else None

    def act(self, number: int) -> None:
        call = self.call(number)
        if call is not None:
            if call.name == "survey" and call.effect is None:
                self.surveyed_at = self.world.now
            call.act()

    def finish(self, number: int) -> None:
        self.act(number)
        call = self.call(number)
        if call is not None:
            self.store.calls.remove(call)
            call.finish()

    def fail(self, number: int) -> None:
        """Only the log can be read again by itself."""
        call = self.call(number)
        if call is not None and call.name == "read" and call.effect is None:
            self.store.calls.remove(call)
            call.fail()

    def read(self, _: int) -> None:
        """A page is read, and is still on its way."""
        for call in self.store.calls:
            if call.name == "read":
                call.act()

    def answer(self, _: int) -> None:
        """Pages arrive."""
        for call in [call for call in self.store.calls if call.name == "read"]:
            self.store.calls.remove(call)
            call.finish()

    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    def turn(self, _: int) -> None:
        self.world.turn()

    def acknowledge(self, _: int) -> None:
        delivered = self.link.offsets("news")
        if delivered:
            self.attachment.acknowledge("news", delivered[-1], Outcome.DELIVERED)

    def comes_to_rest(self) -> None:
        """The store answers everything, and the device acknowledges what it gets."""
        for _ in range(1_000):
            if not (self.store.calls or self.world.turns or self.world.later):
                if self.attachment.feeds["news"].live:
                    return
                self.acknowledge(0)
            while self.store.calls:
                self.finish(0)
            self.world.settle()
            self.world.pause()
        raise AssertionError("delivery is stuck")

    def readable(self, behind: int) -> dict[str, int]:
        page = self.world.run(self.memory.read("news", behind, EVERYTHING, EVERYTHING))
        return {publication.message_id: publication.offset for publication in page.publications}


TIMES = st.sampled_from([0.0, 1.0, 5.0])
NUMBERS = st.integers(0, 7)
STEPS = ("recall", "act", "finish", "finish", "fail", "turn", "turn", "read", "answer", "acknowledge")
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["publish", "published"]), st.sampled_from(["", "", "a", "b"]), TIMES),
    st.tuples(
        st.sampled_from(["recall", "act", "finish", "finish", "fail", "turn", "turn", "read", "answer", "acknowledge"]), NUMBERS
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0])),
)
COURSE = st.lists(ACTIONS, max_size=25)


def play(race: Race, course: list[tuple[Any, ...]]) -> None:
    for action, *arguments in course:
        getattr(race, action)(*arguments)


_READ_IS_OVERTAKEN = [("finish", -1), ("turn", 0), ("read", 0), ("published", "", 0.0), ("answer", 0)]


@example([("published", "", 0.0)], 0, _READ_IS_OVERTAKEN, 100, 100)
@given(COURSE, NUMBERS, COURSE, st.sampled_from([1, 3, 100]), st.sampled_from([1, 2, 100]))
def test_device_that_subscribes_sees_what_the_log_has_without_gap_repeat_or_ghost(
    before: list[tuple[Any, ...]], start: int, meanwhile: list[tuple[Any, ...]], window: int, page: int
) -> None:
    race = Race(window, page)
    play(race, before)
    race.subscribe(start)
    play(race, meanwhile)
    while race.subscription is None:
        race.finish(0)
        race.world.settle()
    race.comes_to_rest()
    assert not race.world.failures
    check(race, race.subscription)


def check(race: Race, subscription: Subscription) -> None:
    delivered = [(frame.message_id, frame.offset) for frame in race.link.frames]
    offsets = [offset for _, offset in delivered]
    assert offsets == sorted(set(offsets)), "a repeat, or out of order"
    assert all(race.offsets[message_id] == offset for message_id, offset in delivered)
    assert not offsets or offsets[0] > subscription.offset
    assert not race.gone_before & {message_id for message_id, _ in delivered}, "what was gone before is delivered"
    missing = set(race.readable(subscription.offset)) - {message_id for message_id, _ in delivered}
    assert not missing, "a gap"
    check_end_of_backlog(race.link, subscription)
    if subscription.recovered:
        at_most_expired(race, subscription, {message_id for message_id, _ in delivered})


def check_end_of_backlog(link: RecordingLink, subscription: Subscription) -> None:
    """It comes once, behind all that was there when the device subscribed, and before everything else."""
    frames = iter(link.frames)
    behind: list[int] = []
    ends: list[int] = []
    for event in link.events:
        if event[0] == "deliver":
            behind += [next(frames).offset for _ in range(event[1])]
        elif event[0] == "backlog_end":
            ends.append(event[2])
            assert all(offset <= event[2] for offset in behind)
            behind.clear()
    (end,) = ends
    assert end >= subscription.top_offset
    assert all(offset > end for offset in behind)


def at_most_expired(race: Race, subscription: Subscription, delivered: set[str]) -> None:
    """A position was called proven: what is missing behind it was superseded, recalled, or has expired only since then."""
    for message_id, offset in race.offsets.items():
        if subscription.offset < offset <= subscription.top_offset and message_id not in delivered:
            record = race.world.run(race.memory.message(message_id, 0))
            assert record is not None
            left_out = record.superseded_by or record.recalled_at_ms
            assert left_out or record.expires_at_ms > race.surveyed_at * 1000


def test_subscribe_that_the_store_cannot_answer_leaves_nothing_behind() -> None:
    race = Race(100, 100)
    failed: list[Any] = []
    work = Deferred.fromCoroutine(race.world.service.subscribe(race.attachment, SubscribeRequest("news")))
    work.addErrback(lambda failure: failed.append(failure.value))
    race.store.fail("survey")
    assert (len(failed), race.attachment.feeds, race.world.fanout.followers("news")) == (1, {}, 0)
