"""Rates over several nodes, with a store in memory and a clock of the test."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from streampush.config import PublishConfig
from streampush.errors import StoreUnavailable
from streampush.protocol.codes import Code
from streampush.push.limits import Level, TokenBucket
from streampush.push.shared_rates import PAUSE, SharedRate
from streampush.push.values import Principal, PublishRequest
from tests.push.world import ANYTHING, World, device, refuses


class Buckets:
    """See push.shared_rates.RateStore. Answers at once, or when `answer` is called; `away`: not at all. `now`: the clock of all."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[tuple[str, int]] = []
        self.away = False
        self.holds = False
        self._held: list[Deferred[None]] = []
        self._buckets: dict[str, TokenBucket] = {}

    async def take_tokens(self, bucket: str, wanted: int, rate: float, burst: int) -> tuple[int, float]:
        self.asked.append((bucket, wanted))
        if self.holds:
            held: Deferred[None] = Deferred()
            self._held.append(held)
            await held
        if self.away:
            raise StoreUnavailable("away")
        known = self._buckets.setdefault(bucket, TokenBucket(rate, burst, self.now))
        taken = min(wanted, int(known.level(self.now)))
        known.take(self.now, taken)
        return taken, (1 - known.level(self.now)) / rate if taken < wanted else 0.0

    async def look_at_tokens(self, bucket: str, rate: float, burst: int) -> float:
        if self.away:
            raise StoreUnavailable("away")
        known = self._buckets.get(bucket)
        return float(burst) if known is None else known.level(self.now)

    def answer(self) -> None:
        held, self._held = self._held, []
        for one in held:
            one.callback(None)


class Nodes:
    """So many nodes with one rate."""

    def __init__(self, count: int, rate: float, burst: int, **options: Any) -> None:
        self.store = Buckets()
        self.failures: list[BaseException] = []
        self.nodes = [
            SharedRate(self.store, rate, burst, clock=lambda: self.store.now, spawn=self._spawn, **options) for _ in range(count)
        ]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: self.failures.append(failure.value))

    def ask(self, node: int = 0, key: str = "p") -> list[float]:
        """The answer, once it is there."""
        answers: list[float] = []
        Deferred.fromCoroutine(self.nodes[node].take(key)).addCallback(answers.append)
        return answers

    def take(self, node: int = 0, key: str = "p") -> float:
        (answer,) = self.ask(node, key)
        return answer

    def let_through(self, count: int, node: int = 0) -> int:
        return sum(self.take(node) == 0 for _ in range(count))


def test_two_nodes_let_through_what_one_may() -> None:
    nodes = Nodes(2, 10.0, 20)
    assert (nodes.let_through(30, 0), nodes.let_through(30, 1)) == (20, 0)
    nodes.store.now += 1.0
    assert nodes.let_through(30, 0) + nodes.let_through(30, 1) == 10


def test_most_requests_ask_nobody() -> None:
    nodes = Nodes(1, 1_000.0, 1_000)
    assert nodes.nodes[0].chunk == 100
    assert nodes.let_through(40) == 40
    assert nodes.store.asked == [("p", 100)]
    assert nodes.let_through(20) == 20
    assert nodes.store.asked == [("p", 100)] * 2  # the next chunk is there before it is needed


def test_who_finds_none_waits_for_the_answer_and_goes_on_in_order() -> None:
    nodes = Nodes(1, 1.0, 20)
    nodes.store.holds = True
    answers = [nodes.ask() for _ in range(3)]
    assert answers == [[], [], []]
    nodes.store.holds = False
    nodes.store.answer()
    assert (nodes.take(), len(nodes.store.asked)) == (0.0, 2)  # two tokens are a chunk
    assert answers == [[0.0]] * 3


def test_a_node_that_was_given_too_little_says_when_and_does_not_ask_before() -> None:
    nodes = Nodes(1, 2.0, 4)
    assert nodes.let_through(4) == 4
    assert nodes.take() == 0.5
    asked = len(nodes.store.asked)
    nodes.store.now += 0.25
    assert nodes.take() == 0.25
    assert len(nodes.store.asked) == asked
    nodes.store.now += 0.25
    assert nodes.take() == 0.0


def test_a_fast_one_that_is_above_its_rate_costs_some_questions_a_second() -> None:
    nodes = Nodes(1, 5_000.0, 10)
    step = 0.001
    passed = 0
    for _ in range(1000):
        passed += nodes.let_through(8)
        nodes.store.now += step
    assert len(nodes.store.asked) <= 1.1 / PAUSE
    assert passed <= 10 + 5_000


def test_while_the_store_is_away_nothing_is_refused_and_then_it_counts_again() -> None:
    nodes = Nodes(1, 1.0, 10)
    nodes.store.away = True
    assert nodes.let_through(100) == 100
    nodes.store.away = False
    assert nodes.let_through(100) == 10
    assert nodes.failures == []


def test_a_fault_of_the_store_lets_those_that_wait_go_on() -> None:
    nodes = Nodes(1, 1.0, 10)

    async def fails(*arguments: Any) -> tuple[int, float]:
        raise ValueError("a fault")

    nodes.store.take_tokens = fails  # type: ignore[method-assign]
    assert nodes.take() == 0.0
    assert [type(failure) for failure in nodes.failures] == [ValueError]


def test_keys_have_buckets_of_their_own_in_bounded_number() -> None:
    nodes = Nodes(1, 1.0, 10, max_keys=2)
    for key in ("a", "b", "a", "c"):
        assert nodes.take(key=key) == 0.0
    assert list(nodes.nodes[0]._hands) == ["a", "c"]


@settings(max_examples=50)
@given(
    st.floats(0.5, 2_000.0),
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 200), st.floats(0.0, 2.0)), max_size=40),
)
def test_all_together_never_exceed_the_rate(rate: float, burst: int, steps: list[tuple[int, int, float]]) -> None:
    nodes = Nodes(3, rate, burst)
    passed, begun_at = 0, nodes.store.now
    for node, count, seconds in steps:
        passed += nodes.let_through(count, node)
        assert passed <= burst + rate * (nodes.store.now - begun_at) + 1e-6
        nodes.store.now += seconds
    for one in nodes.nodes:
        assert all(hand.tokens <= 2 * one.chunk for hand in one._hands.values())


# ------------------------------------------------------------------------------------------------------------- the service


PUBLISHER = Principal("publisher", "backend", may_publish=ANYTHING)


def test_a_publisher_is_limited_over_all_nodes_and_the_probe_is_not() -> None:
    buckets = Buckets()
    worlds = [World(publish=PublishConfig(publisher_rate=1.0, publisher_burst=3), rates=buckets) for _ in range(2)]
    for world in (worlds[0], worlds[1], worlds[0]):
        world.publish("news")
    with refuses(Code.MESSAGE_RATE_EXCEEDED):
        worlds[1].publish("news")
    assert worlds[1].metrics.named("refused") == [(Code.MESSAGE_RATE_EXCEEDED,)]
    probe = Principal("probe", "$probe", may_publish=ANYTHING)
    worlds[1].run(worlds[1].service.publish(probe, PublishRequest("$probe.x", b"")))
    assert {bucket for bucket, _ in buckets.asked} == {"publisher:backend"}


def test_a_device_that_goes_from_node_to_node_is_limited_and_that_is_shown() -> None:
    buckets = Buckets()
    worlds = [World(publish=PublishConfig(device_rate=1.0, device_burst=2), rates=buckets) for _ in range(3)]
    for world in worlds[:2]:
        world.run(world.service.charge(device("d")))
    with refuses(Code.MESSAGE_RATE_EXCEEDED):
        worlds[2].run(worlds[2].service.charge(device("d")))
    levels = [world.run(world.service._publishing.device_level("d")) for world in worlds]
    assert levels == [Level(1.0, 2, 0.0, 0, shared=True), Level(1.0, 2, 0.0, 0, shared=True), Level(1.0, 2, 0.0, 1, shared=True)]
    buckets.away = True
    assert worlds[0].run(worlds[0].service._publishing.device_level("d")) == Level(1.0, 2, 1.0, 0)


def test_what_a_node_has_in_hand_of_a_rate_counts_as_left() -> None:
    buckets = Buckets()
    first, second = (World(publish=PublishConfig(device_rate=1.0, device_burst=50), rates=buckets) for _ in range(2))
    first.run(first.service.charge(device("d")))  # takes a chunk of 5
    assert first.run(first.service._publishing.device_level("d")) == Level(1.0, 50, 49.0, 0, shared=True)
    assert second.run(second.service._publishing.device_level("d")) == Level(1.0, 50, 45.0, 0, shared=True)


def test_publications_that_wait_for_the_rate_keep_their_order() -> None:
    buckets = Buckets()
    buckets.holds = True
    world = World(rates=buckets)
    for number in range(5):
        request = PublishRequest("news", str(number).encode())
        world.spawn(_ignored(world.service.publish(PUBLISHER, request)))
    assert world.run(world.memory.head("news")).top_offset == 0
    buckets.answer()
    entries = world.run(world.memory.read("news", 0, 10, 1000)).publications
    assert [entry.payload for entry in entries] == [b"0", b"1", b"2", b"3", b"4"]


async def _ignored(work: Coroutine[Any, Any, object]) -> None:
    await work
