"""A thread that does work in batches, and the way of work to it and of results back; or the same without a thread.

The reactor's thread hands over everything that was asked for in a turn as one batch, so that many operations share one commit, and
gets all their results in one call. While a batch is under way the next one gathers: a thread that were woken for each single task
would do it by itself, and the two threads would spend their time on passing the interpreter's lock to and fro (three publishes
in four, when 64 are in flight). The number of tasks is bounded: what is above is refused at once.

Tasks that nobody waits for are patient: they go with the next batch of others, or after a while by themselves.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall

from streampush.errors import StoreUnavailable

T = TypeVar("T")

STOP_TIMEOUT = 10.0
"""Seconds that a stop waits for a thread that hangs in the disk."""

PATIENCE = 0.02
"""Seconds that a patient task waits for others to share their commit."""


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
        outcome = self.run([Task(kind, arguments)]).outcomes[0]
        return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)

    def run(self, tasks: Sequence[Task[Any]]) -> Report:
        """Does them as one batch; nobody is told but the observer."""
        report = self._runner.run(tasks)
        self._observe(report, 0)
        return report

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
    """Does tasks in a thread of its own. `max_queue`: tasks without a result; `max_batch`: tasks of one batch; `patient`: kinds
    of tasks that may wait for PATIENCE."""

    def __init__(
        self,
        name: str,
        runner: Runner,
        observe: Observer,
        reactor: ReactorThreads,
        *,
        max_queue: int,
        max_batch: int,
        patient: Collection[str] = (),
    ) -> None:
        self._name = name
        self._runner = runner
        self._observe = observe
        self._reactor = reactor
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._patient = patient
        self._queue: SimpleQueue[Sequence[Task[Any]] | None] = SimpleQueue()
        self._gathered: deque[Task[Any]] = deque()  # not handed over yet
        self._urgent = 0  # of these, how many are not patient
        self._waited_enough: IDelayedCall | None = None  # for others; while there are patient ones only
        self._waiting: dict[Task[Any], None] = {}  # without a result
        self._promised = False  # a batch is under way, or will be handed over at the end of this turn
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
        self._gathered.append(task)
        self._urgent += kind not in self._patient
        if not self._promised:
            self._promise()
        return task.deferred

    def _promise(self) -> None:
        """The thread has nothing to do: something has gathered for it."""
        if self._urgent:
            self._promised = True
            self._stop_waiting()
            self._reactor.callLater(0, self._hand_over)
        elif self._waited_enough is None:
            self._waited_enough = self._reactor.callLater(PATIENCE, self._hand_over)

    def start(self) -> None:
        self._refusal = ""
        # A daemon: a thread that hangs in the disk must not keep the process.
        threading.Thread(target=self._work, name=f"streampush-store-{self._name}", daemon=True).start()

    def stop(self) -> Deferred[bool]:
        if self._refusal:
            return succeed(True)
        self._refusal = "the store is stopped"
        self._stopping = Deferred()
        self._timeout = self._reactor.callLater(STOP_TIMEOUT, self._give_up)
        if not self._promised:
            self._hand_over()
        return self._stopping

    def _hand_over(self) -> None:
        """Gives the thread what has gathered, up to a batch; or its end, if there is nothing left to come."""
        self._stop_waiting()
        gathered = self._gathered
        self._promised = bool(gathered)
        if gathered:
            batch = [gathered.popleft() for _ in range(min(len(gathered), self._max_batch))]
            self._urgent -= sum(task.kind not in self._patient for task in batch)
            self._queue.put(batch)
        elif self._refusal:
            self._queue.put(None)

    def _stop_waiting(self) -> None:
        waited_enough, self._waited_enough = self._waited_enough, None
        if waited_enough is not None and waited_enough.active():
            waited_enough.cancel()

    def _deliver(self, batch: Sequence[Task[Any]], report: Report) -> None:
        for task in batch:
            self._waiting.pop(task, None)
        try:
            self._observe(report, len(self._waiting))
        finally:
            self._answer(batch, report)
            self._go_on()

    def _go_on(self) -> None:
        """The thread has done a batch."""
        if self._urgent or self._refusal:
            self._hand_over()
        else:
            self._promised = False
            if self._gathered:
                self._promise()

    def _answer(self, batch: Sequence[Task[Any]], report: Report) -> None:
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
        self._gathered.clear()
        self._urgent = 0
        for task in given_up:
            task.deferred.errback(StoreUnavailable("the disk does not answer, and the store is stopped"))
        if stopping is not None:
            stopping.callback(False)

    # ------------------------------------------------------------------------------------------------ in the own thread

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            self._began_at = monotonic()
            report = self._runner.run(batch)
            self._began_at = 0.0
            self._reactor.callFromThread(self._deliver, batch, report)
        self._runner.close()
        self._reactor.callFromThread(self._ended)
