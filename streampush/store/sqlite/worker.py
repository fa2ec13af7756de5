"""A thread that does work in batches, and the way of work to it and of results back; or the same without a thread.

The reactor's thread hands tasks over and gets all results of a batch in one call. The queue is bounded: what is above is
refused at once. The thread takes everything that waits, up to a batch, so that many operations share one commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall

from streampush.errors import StoreUnavailable

T = TypeVar("T")

STOP_TIMEOUT = 10.0
"""Seconds that a stop waits for a thread that hangs in the disk."""


class Task(Generic[T]):
    """One operation. `kind` says which of the runner's methods does it, with `arguments`."""

    __slots__ = ("arguments", "deferred", "kind")

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind = kind
        self.arguments = arguments
        self.deferred: Deferred[T] = Deferred()


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a batch: a result or an exception for each task, in their order.

    `fault`: a kind of file.FAULT_KINDS and its text, if the disk failed; `bug`: an error of ours that failed single tasks.
    """

    outcomes: Sequence[Any]
    fault: tuple[str, str] | None = None
    bug: Exception | None = None
    seconds: float = 0.0


class Runner(Protocol):
    """Does batches, in one thread; never raises."""

    def run(self, tasks: Sequence[Task[Any]]) -> Report:
        """Does them all, or none."""

    def close(self) -> None:
        """Lets go of everything; called in the same thread, as the last."""


class Observer(Protocol):
    """Is told, in the reactor's thread, what came of each batch."""

    def __call__(self, report: Report, waiting: int) -> None: ...


class Executor(Protocol):
    """Where tasks are done."""

    def submit(self, kind: str, *arguments: Any) -> Deferred[Any]:
        """Does one task. Fails with StoreUnavailable, at once if there is no room."""

    def start(self) -> None:
        """Takes tasks from now on."""

    def stop(self) -> Deferred[bool]:
        """Finishes what waits and takes no more; False if that took too long, and what was left failed."""

    def busy_seconds(self) -> float:
        """For how long the batch under way has been."""

    @property
    def waiting(self) -> int:
        """Tasks without a result."""


class InlineExecutor:
    """Does each task at once, in the calling thread: for tests that need every step to be the same each time."""

    waiting = 0

    def __init__(self, runner: Runner, observe: Observer) -> None:
        self._runner = runner
        self._observe = observe
        self._stopped = False

    def submit(self, kind: str, *arguments: Any) -> Deferred[Any]:
        if self._stopped:
            return fail(StoreUnavailable("the store is stopped"))
        report = self._runner.run([Task(kind, arguments)])
        self._observe(report, 0)
        outcome = report.outcomes[0]
        return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)

    def start(self) -> None:
        self._stopped = False

    def stop(self) -> Deferred[bool]:
        self._stopped = True
        self._runner.close()
        return succeed(True)

    def busy_seconds(self) -> float:
        return 0.0


class ReactorThreads(Protocol):
    """The part of a reactor that is needed here."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> object: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> IDelayedCall: ...


class ThreadExecutor:
    """Does tasks in a thread of its own. `max_queue`: tasks without a result; `max_batch`: tasks of one batch."""

    def __init__(
        self,
        name: str,
        runner: Runner,
        observe: Observer,
        reactor: ReactorThreads,
        *,
        max_queue: int,
        max_batch: int,
    ) -> None:
        self._name = name
        self._runner = runner
        self._observe = observe
        self._reactor = reactor
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._queue: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._waiting: dict[Task[Any], None] = {}
        self._refusal = "the store is not started"
        self._began_at = 0.0  # of the batch under way, 0: none
        self._stopping: Deferred[bool] | None = None
        self._timeout: IDelayedCall | None = None

    # -------------------------------------------------------------------------------------------- in the reactor's thread

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def busy_seconds(self) -> float:
        began_at = self._began_at
        return monotonic() - began_at if began_at else 0.0

    def submit(self, kind: str, *arguments: Any) -> Deferred[Any]:
        if self._refusal:
            return fail(StoreUnavailable(self._refusal))
        if len(self._waiting) >= self._max_queue:
            return fail(StoreUnavailable(f"{self._max_queue} operations wait for the disk, the limit (store.max_queue)"))
        task: Task[Any] = Task(kind, arguments)
        self._waiting[task] = None
        self._queue.put(task)
        return task.deferred

    def start(self) -> None:
        self._refusal = ""
        # A daemon: a thread that hangs in the disk must not keep the process.
        threading.Thread(target=self._work, name=f"streampush-store-{self._name}", daemon=True).start()

    def stop(self) -> Deferred[bool]:
        if self._refusal:
            return succeed(True)
        self._refusal = "the store is stopped"
        self._queue.put(None)
        self._stopping = Deferred()
        self._timeout = self._reactor.callLater(STOP_TIMEOUT, self._give_up)
        return self._stopping

    def _deliver(self, batch: Sequence[Task[Any]], report: Report) -> None:
        for task in batch:
            self._waiting.pop(task, None)
        self._observe(report, len(self._waiting))
        for task, outcome in zip(batch, report.outcomes, strict=True):
            if task.deferred.called:
                continue  # it was given up
            if isinstance(outcome, Exception):
                task.deferred.errback(outcome)
            else:
                task.deferred.callback(outcome)

    def _ended(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.callback(True)

    def _give_up(self) -> None:
        stopping, self._stopping = self._stopping, None
        given_up, self._waiting = self._waiting, {}
        for task in given_up:
            task.deferred.errback(StoreUnavailable("the disk does not answer, and the store is stopped"))
        if stopping is not None:
            stopping.callback(False)

    # ------------------------------------------------------------------------------------------------ in the own thread

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if batch:
                self._began_at = monotonic()
                report = self._runner.run(batch)
                self._began_at = 0.0
                self._reactor.callFromThread(self._deliver, batch, report)
        self._runner.close()
        self._reactor.callFromThread(self._ended)

    def _take(self) -> tuple[list[Task[Any]], bool]:
        """Everything that waits, up to a batch; waits for the first. Whether it is the last."""
        task = self._queue.get()
        batch: list[Task[Any]] = []
        while task is not None:
            batch.append(task)
            if len(batch) >= self._max_batch:
                return batch, False
            try:
                task = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True
