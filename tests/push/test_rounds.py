from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streampush.errors import StoreUnavailable
from streampush.push.rounds import Rounds


class RoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.under_way: list[Deferred[None]] = []
        self.failures: list[type[BaseException]] = []
        self.rounds = Rounds(10.0, self.work, call_later=self.clock.callLater, spawn=self.spawn)

    async def work(self) -> None:
        self.under_way.append(Deferred())
        await self.under_way[-1]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: self.failures.append(failure.type))

    def waits(self) -> list[float]:
        return [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]

    def test_the_next_begins_an_interval_after_the_last_is_over(self) -> None:
        self.rounds.start()
        self.clock.advance(10)
        self.clock.advance(35)
        self.assertEqual((len(self.under_way), self.waits()), (1, []))
        self.under_way[0].callback(None)
        self.assertEqual(self.waits(), [10.0])

    def test_a_store_that_is_away_ends_a_round_and_no_more(self) -> None:
        self.rounds.start()
        self.clock.advance(10)
        self.under_way[0].errback(StoreUnavailable("away"))
        self.assertEqual((self.waits(), self.failures), ([10.0], []))

    def test_another_failure_is_handed_on_and_the_rounds_go_on(self) -> None:
        self.rounds.start()
        self.clock.advance(10)
        self.under_way[0].errback(ZeroDivisionError())
        self.assertEqual((self.waits(), self.failures), ([10.0], [ZeroDivisionError]))

    def test_starting_twice_is_harmless_also_while_a_round_is_under_way(self) -> None:
        self.rounds.start()
        self.rounds.start()
        self.assertEqual(self.waits(), [10.0])
        self.clock.advance(10)
        self.rounds.start()
        self.assertEqual(self.waits(), [])

    def test_stopped_it_leaves_no_timer_and_begins_none_behind_its_last_round(self) -> None:
        self.rounds.start()
        self.rounds.stop()
        self.assertEqual(self.waits(), [])
        self.rounds.start()
        self.clock.advance(10)
        self.rounds.stop()
        self.under_way[0].callback(None)
        self.assertEqual(self.waits(), [])
