"""The probe on a store that is slow, refuses, or does not answer; time is a Clock."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.observe.metrics import Metrics
from streampush.server.probe import KEPT, START_AGAIN, Probe
from streampush.server.wire import encode_delivery
from streampush.store.memory import MemoryStore
from tests.push.world import World
from tests.store.slow import SlowStore


class ProbeTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = SlowStore(MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch"))
        self.world = World(store=self.store, encoder=encode_delivery)
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry, "1")
        self.arrived: list[float] = []
        self.probe = Probe(
            self.clock,  # type: ignore[arg-type]  # Clock is an IReactorTime, which Twisted has not told mypy
            self.world.service,
            metrics,
            self.world.spawn,
            node_name="test",
            interval=5.0,
            arrived_at=self.arrived.append,
        )
        started = Deferred.fromCoroutine(self.probe.start())
        self.store.finish("survey")
        self.successResultOf(started)
        self.addCleanup(self.probe.stop)

    def count(self, result: str) -> float:
        return self.registry.get_sample_value("streampush_probes_total", {"result": result}) or 0.0

    def settle(self, *, append: bool = True) -> None:
        """The store answers everything that it is asked, appends only if wanted."""
        while True:
            self.world.settle()
            names = [call.name for call in self.store.calls if append or call.name != "append"]
            if not names:
                return
            self.store.finish(names[0])

    def test_a_message_that_came_through_counts_and_makes_ready(self) -> None:
        self.clock.advance(2.0)
        self.settle()
        self.assertEqual((self.count("ok"), self.count("failed"), self.arrived), (1, 0, [2.0]))

    def test_each_interval_without_an_answer_of_the_store_is_a_failure(self) -> None:
        self.settle(append=False)
        self.clock.pump([5.0, 5.0])
        self.assertEqual((self.count("ok"), self.count("failed"), self.arrived), (0, 2, []))

    def test_a_store_that_does_not_answer_is_asked_once(self) -> None:
        self.clock.pump([5.0] * 10)
        self.assertEqual([call.name for call in self.store.calls].count("append"), 1)

    def test_a_message_that_is_slower_than_an_interval_still_comes_through(self) -> None:
        self.settle(append=False)
        self.clock.advance(5.0)
        self.clock.advance(1.0)
        self.settle()
        self.clock.advance(4.0)
        self.assertEqual((self.count("ok"), self.count("failed"), self.arrived), (1, 1, [6.0]))

    def test_messages_that_take_longer_than_an_interval_on_their_way_count_when_they_come(self) -> None:
        self.world.settle()
        self.store.finish("append")  # stored, and still to be read for the probe's session
        for _ in range(3):
            self.world.settle()
            self.clock.advance(5.0)
            self.store.finish("append")
        self.settle()
        self.assertEqual((self.count("ok"), self.count("failed")), (4, 3))

    def test_one_that_was_lost_is_not_waited_for_when_a_later_one_has_come(self) -> None:
        self.settle()
        session = self.probe._session
        deliver, session.deliver = session.deliver, lambda frames, messages: None  # type: ignore[method-assign]
        self.clock.advance(5.0)
        self.settle()
        session.deliver = deliver  # type: ignore[method-assign]
        self.clock.pump([5.0, 0.0])
        self.settle()
        self.clock.advance(5.0)
        self.assertEqual((self.count("ok"), self.count("failed")), (2, 1))

    def test_those_that_never_come_are_not_kept(self) -> None:
        self.settle()
        self.probe._session.deliver = lambda frames, messages: None  # type: ignore[method-assign]
        for _ in range(2 * KEPT):
            self.clock.advance(5.0)
            self.settle()
        self.assertEqual(len(self.probe._under_way), KEPT)

    def test_a_refusal_is_one_failure_and_the_next_message_is_published(self) -> None:
        self.settle(append=False)
        self.store.fail("append")
        self.clock.advance(5.0)
        self.settle()
        self.assertEqual((self.count("ok"), self.count("failed"), self.arrived), (1, 1, [5.0]))

    def test_what_it_is_refused_for_is_said_once_until_it_came_through(self) -> None:
        with capturedLogs() as events:
            for refused in (True, True, False, True):
                self.settle(append=False)
                (self.store.fail if refused else self.store.finish)("append")
                self.settle(append=False)
                self.clock.advance(5.0)
        self.assertEqual([event["code"] for event in events if event.get("code")], [3008, 3008])
        self.assertEqual(self.count("ok"), 1)

    def test_it_begins_when_a_store_that_failed_at_the_start_works_again(self) -> None:
        self.settle()
        self.probe.stop()
        other = self.other()
        self.world.spawn(other.start())
        self.store.fail("survey")
        self.arrived.clear()
        self.clock.advance(START_AGAIN)  # however long the interval
        self.settle()
        self.assertEqual(len(self.arrived), 1)
        other.stop()

    def test_one_that_is_stopped_while_the_store_is_asked_leaves_nothing_behind(self) -> None:
        self.settle()
        self.probe.stop()
        other = self.other()
        self.world.spawn(other.start())
        other.stop()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def other(self) -> Probe:
        """A probe that is not started."""
        return Probe(
            self.clock,  # type: ignore[arg-type]  # Clock is an IReactorTime, which Twisted has not told mypy
            self.world.service,
            Metrics(CollectorRegistry(), "1"),
            self.world.spawn,
            node_name="other",
            interval=5.0,
            arrived_at=self.arrived.append,
        )
