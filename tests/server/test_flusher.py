from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streampush.server.flusher import WriteFlusher


class Written:
    """A Flushable that notes what is asked of it."""

    def __init__(self, *, flush: Callable[[], object] = lambda: None, lost: Callable[[], object] = lambda: None) -> None:
        self.flushed = 0
        self.reasons: list[Failure] = []
        self._flush = flush
        self._lost = lost

    def flush(self) -> None:
        self.flushed += 1
        self._flush()

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason)
        self._lost()


class WriteFlusherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.flusher = WriteFlusher(lambda call: self.clock.callLater(0, call))

    def test_many_transports_are_flushed_by_one_call_after_the_turn(self) -> None:
        transports = [Written() for _ in range(100)]
        for transport in transports:
            self.flusher.add(transport)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual(sum(transport.flushed for transport in transports), 0)
        self.clock.advance(0)
        self.assertEqual([transport.flushed for transport in transports], [1] * 100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_added_while_flushing_has_the_next_turn(self) -> None:
        second = Written()
        seen: list[int] = []

        def write_to_second() -> None:
            self.flusher.add(second)
            seen.append(second.flushed)

        self.flusher.add(Written(flush=write_to_second))
        self.flusher.flush()
        self.assertEqual((seen, second.flushed, len(self.clock.getDelayedCalls())), ([0], 0, 2))
        self.clock.advance(0)
        self.assertEqual(second.flushed, 1)

    def test_transport_that_raises_is_ended_and_the_others_are_flushed(self) -> None:
        broken, good = Written(flush=lambda: 1 // 0), Written()
        self.flusher.add(broken)
        self.flusher.add(good)
        self.clock.advance(0)
        self.assertEqual(good.flushed, 1)
        self.assertEqual([reason.type for reason in broken.reasons], [ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_transport_that_raises_even_when_it_is_ended_does_not_stop_the_others(self) -> None:
        broken, good = Written(flush=lambda: 1 // 0, lost=lambda: [].pop()), Written()
        self.flusher.add(broken)
        self.flusher.add(good)
        self.clock.advance(0)
        self.assertEqual(good.flushed, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, IndexError)), 2)
