"""The thread of the store over a disk that is slow or hangs, and what becomes of the single operations of a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streampush.errors import Refused, StoreUnavailable
from streampush.push.values import Accepted
from streampush.store.sqlite.worker import STOP_TIMEOUT, InlineExecutor, Report, Task, ThreadExecutor
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, draft, opened

PATIENCE = 30.0
"""Seconds after which a thread that should have come counts as lost."""


class Reactor(Clock):
    """What comes from threads is done when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]  # as a reactor
        self._calls.put(lambda: callable(*args))

    def turn(self) -> None:
        """Does the next call, when it comes."""
        self._calls.get(timeout=PATIENCE)()


class Slow:
    """A runner that waits for the test before each batch, and answers each task with its kind."""

    def __init__(self) -> None:
        self.may_run = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.closed = False

    def run(self, tasks: Sequence[Task[Any]]) -> Report:
        self.begun.release()
        self.may_run.acquire(timeout=PATIENCE)
        self.batches.append([task.kind for task in tasks])
        return Report([task.kind for task in tasks])

    def close(self) -> None:
        self.closed = True


class ThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.runner = Slow()
        self.seen: list[tuple[int, int]] = []
        self.executor = ThreadExecutor(
            "test",
            self.runner,
            lambda report, waiting: self.seen.append((len(report.outcomes), waiting)),
            self.reactor,
            max_queue=5,
            max_batch=3,
        )

    def start(self) -> None:
        self.executor.start()
        self.addCleanup(self.end)

    def end(self) -> None:
        """Leaves no thread behind."""
        self.executor.stop()
        self.reactor.advance(0)
        self.runner.may_run.release(100)
        while not self.runner.closed:
            self.reactor.turn()

    def submit(self, *kinds: str) -> list[Deferred[Any]]:
        """In one turn of the reactor."""
        submitted = [self.executor.submit(kind) for kind in kinds]
        self.reactor.advance(0)
        return submitted

    def test_room_comes_back_with_the_results(self) -> None:
        self.start()
        self.submit("a", "b", "c", "d", "e")
        self.runner.may_run.release(5)
        while self.executor.waiting:
            self.reactor.turn()
        self.assertNoResult(self.executor.submit("f"))

    def test_nothing_is_taken_before_the_start(self) -> None:
        self.failureResultOf(self.executor.submit("a"), StoreUnavailable)

    def test_a_stop_gives_up_a_disk_that_hangs_and_tells_who_waits(self) -> None:
        self.start()
        waiting = self.submit("a", "b")
        stopping = self.executor.stop()
        self.reactor.advance(STOP_TIMEOUT)
        self.assertIs(self.successResultOf(stopping), False)
        for one in waiting:
            self.failureResultOf(one, StoreUnavailable)

    def test_results_that_come_after_a_stop_gave_up_are_ignored(self) -> None:
        self.start()
        (waiting,) = self.submit("a")
        self.executor.stop()
        self.reactor.advance(STOP_TIMEOUT)
        self.failureResultOf(waiting, StoreUnavailable)
        self.runner.may_run.release(5)
        while not self.runner.closed:
            self.reactor.turn()
        self.assertEqual(self.seen, [(1, 0)])

    def test_it_says_for_how_long_the_disk_has_not_answered(self) -> None:
        self.start()
        self.assertEqual(self.executor.busy_seconds(), 0.0)
        self.submit("a")
        self.assertTrue(self.runner.begun.acquire(timeout=PATIENCE))
        self.assertGreater(self.executor.busy_seconds(), 0.0)
        self.runner.may_run.release()
        self.reactor.turn()
        self.assertEqual(self.executor.busy_seconds(), 0.0)


class BatchTests(SynchronousTestCase):
    """Of what shares a transaction, each has an answer of its own."""

    def setUp(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        context = opened(Path(folder.name) / "store.db")
        self.store = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def run_batch(self, *tasks: Task[Any]) -> Report:
        writer = self.store.writer
        assert isinstance(writer, InlineExecutor)
        return writer.run(tasks)

    def append(self, channel: str, **fields: Any) -> Task[Any]:
        return Task("append", (draft(channel, **fields), NOW_MS))

    def test_what_is_refused_changes_nothing_and_keeps_nobody_from_being_stored(self) -> None:
        report = self.run_batch(self.append("news"), self.append("device:nobody"), self.append("news"))
        kinds = [type(outcome) for outcome in report.outcomes]
        self.assertEqual(kinds, [Accepted, Refused, Accepted])
        self.assertEqual([report.outcomes[index].appended.publication.offset for index in (0, 2)], [1, 2])
        self.assertEqual(done(self.store.status()).publications, 2)

    def test_a_message_that_begins_its_channel_can_be_recalled_in_the_same_batch(self) -> None:
        done(self.store.append(draft("news", "later", deliver_at_ms=NOW_MS + 1)))
        report = self.run_batch(Task("fire_due", (NOW_MS + 1, 10)), Task("recall", ("later", "notice", NOW_MS + 1, NOW_MS + 1)))
        self.assertEqual((report.fault, report.bug), (None, None))
        self.assertEqual(report.outcomes[1].publication.recalls, "later")

    def test_an_error_of_ours_fails_its_own_operation_only(self) -> None:
        report = self.run_batch(self.append("news"), Task("sweep", ("no time",)), self.append("news"))
        self.assertIsInstance(report.outcomes[1], StoreUnavailable)
        self.assertIsInstance(report.bug, TypeError)
        self.assertIsNone(report.fault)
        self.assertEqual([report.outcomes[index].offset for index in (0, 2)], [1, 2])
        self.assertEqual(done(self.store.head("news")).top_offset, 2)
