"""The thread of the store: which tasks share a batch, and that none is left behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from streampush.errors import StoreUnavailable
from streampush.store.sqlite.worker import Report, Task, ThreadExecutor

MAX_QUEUE = 8
MAX_BATCH = 3


class Recorder:
    """A runner that keeps the arguments of each batch; while it is held it waits in its thread, as for a disk."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.closed = False
        self.free = threading.Event()
        self.free.set()
        self.began = threading.Event()

    def run(self, tasks: Sequence[Task[Any]]) -> Report:
        self.began.set()
        self.free.wait(10)
        self.batches.append([task.arguments[0] for task in tasks])
        return Report([task.arguments[0] for task in tasks])

    def close(self) -> None:
        self.closed = True


class ThreadExecutorTests(TestCase):
    def setUp(self) -> None:
        self.recorder = Recorder()
        self.executor = self.make(lambda report, waiting: None)

    def make(self, observe: Any) -> ThreadExecutor:
        executor = ThreadExecutor(
            "test", self.recorder, observe, reactor, max_queue=MAX_QUEUE, max_batch=MAX_BATCH, patient=("patient",)
        )
        executor.start()
        self.addCleanup(executor.stop)
        self.addCleanup(self.recorder.free.set)
        return executor

    def submit(self, *names: str) -> Deferred[list[str]]:
        return gatherResults([self.executor.submit("kind", name) for name in names])

    async def test_what_is_asked_for_in_one_turn_is_one_batch(self) -> None:
        self.assertEqual(await self.submit("a", "b", "c"), ["a", "b", "c"])
        self.assertEqual(self.recorder.batches, [["a", "b", "c"]])

    async def test_what_is_asked_for_during_a_batch_is_the_next_one(self) -> None:
        self.recorder.free.clear()
        first = self.submit("a")
        second: Deferred[list[str]] = Deferred()

        def ask_for_more() -> None:
            if self.recorder.began.is_set():
                self.submit("b", "c").chainDeferred(second)
                self.recorder.free.set()
            else:
                reactor.callLater(0, ask_for_more)

        ask_for_more()
        self.assertEqual((await first, await second), (["a"], ["b", "c"]))
        self.assertEqual(self.recorder.batches, [["a"], ["b", "c"]])

    async def test_batch_is_bounded_and_the_rest_follows_in_order(self) -> None:
        self.assertEqual(await self.submit("a", "b", "c", "d", "e", "f", "g"), list("abcdefg"))
        self.assertEqual(self.recorder.batches, [["a", "b", "c"], ["d", "e", "f"], ["g"]])

    async def test_more_than_the_queue_takes_is_refused_at_once(self) -> None:
        waiting = self.submit(*map(str, range(MAX_QUEUE)))
        self.failureResultOf(self.executor.submit("kind", "more"), StoreUnavailable)
        self.assertEqual(self.executor.waiting, MAX_QUEUE)
        await waiting
        self.assertEqual(self.executor.waiting, 0)

    async def test_patient_task_goes_with_the_next_batch_of_others(self) -> None:
        patient = self.executor.submit("patient", "a")
        later: Deferred[list[str]] = Deferred()
        reactor.callLater(0, lambda: reactor.callLater(0, lambda: self.submit("b").chainDeferred(later)))
        self.assertEqual((await patient, await later), ("a", ["b"]))
        self.assertEqual(self.recorder.batches, [["a", "b"]])

    async def test_patient_task_is_done_by_itself_after_a_while(self) -> None:
        self.assertEqual(await self.executor.submit("patient", "a"), "a")
        self.assertEqual(await self.executor.submit("patient", "b"), "b")

    async def test_stop_does_not_wait_for_a_patient_task(self) -> None:
        patient = self.executor.submit("patient", "a")
        stopped = self.executor.stop()
        self.assertEqual([call for call in reactor.getDelayedCalls() if call.getTime() - reactor.seconds() < 5], [])
        self.assertTrue(await stopped)
        self.assertEqual(self.successResultOf(patient), "a")

    async def test_stop_does_what_was_asked_for_before_it(self) -> None:
        results = self.submit("a", "b", "c", "d")
        self.assertTrue(await self.executor.stop())
        self.assertEqual(self.successResultOf(results), ["a", "b", "c", "d"])
        self.assertTrue(self.recorder.closed)
        self.failureResultOf(self.executor.submit("kind", "late"), StoreUnavailable)

    async def test_stop_without_work_ends_the_thread(self) -> None:
        self.assertTrue(await self.executor.stop())
        self.assertTrue(self.recorder.closed)

    async def test_started_again_it_works_again(self) -> None:
        await self.executor.stop()
        self.executor.start()
        self.assertEqual(await self.submit("a"), ["a"])

    async def test_work_goes_on_behind_an_observer_that_failed(self) -> None:
        reports: list[Report] = []

        def observe(report: Report, waiting: int) -> None:
            reports.append(report)
            if len(reports) == 1:
                raise RuntimeError("a bug of the observer")

        executor = self.make(observe)
        answered = [executor.submit("kind", name) for name in "abc"]
        self.assertEqual(await executor.submit("kind", "d"), "d")
        self.assertEqual([self.successResultOf(result) for result in answered], ["a", "b", "c"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
