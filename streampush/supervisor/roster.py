"""The workers of a supervisor as a table of states, without IO. Time is an input, and what is to be done is the output.

Theory of operation. Each worker is a number from 1 on; its process comes and goes. The shell tells what happened (a question was
answered, or not; a process ended) and calls `advance` when something has happened or `deadline` has come. `advance` gives the
orders that are due, each once: start a process, ask it, stop it, kill it.

The first worker is started alone. If its process refuses to start, with status 1 behind a line that says why, so would all the
others: the supervisor gives up with the same status. As soon as the first has answered, or died otherwise, the others follow.

A worker that dies is started again after a wait that doubles with each death and is drawn at random, so that several do not come
up in step. A worker that was up for long begins with the first wait again. One that was asked to leave, by a person and not by
the supervisor, has not failed: another is started at once.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from streampush.backoff import doubled
from streampush.supervised import DRAINING
from streampush.supervisor.times import SILENT_ASKS, Times

REFUSED_START: Final = 1
"""The exit status of a process that cannot start, and has said why."""


class State(Enum):
    """Where a worker stands; the values are those of the metric's label."""

    BACKOFF = "backoff"  # no process; waits for its start
    STARTING = "starting"  # a process that has not been ready yet
    READY = "ready"
    UNREADY = "unready"  # was ready, and says now that it should get no traffic
    HUNG = "hung"  # does not answer, and is being ended
    DRAINING = "draining"  # was told to stop
    GONE = "gone"  # no process, and there will be none


class Happened(Enum):
    """What the table knows."""

    STARTED = "started"
    SAID_READY = "said ready"
    SAID_UNREADY = "said unready"
    SILENT = "silent"
    DIED = "died"
    TOLD_TO_STOP = "told to stop"


class Reason(Enum):
    """Why a worker had to be started again; the values are those of the metric's label."""

    EXIT = "exit"  # it ended by itself, with whatever status
    SIGNAL = "signal"  # it was killed: by a person, by the kernel for want of memory, by its own crash
    HUNG = "hung"  # it did not answer, and was killed by the supervisor
    START = "start"  # it died before it had answered once
    LEFT = "left"  # it drained and ended because it was asked to


TABLE: Final = MappingProxyType(
    {
        (State.BACKOFF, Happened.STARTED): State.STARTING,
        (State.BACKOFF, Happened.TOLD_TO_STOP): State.GONE,
        (State.STARTING, Happened.SAID_READY): State.READY,
        (State.STARTING, Happened.SAID_UNREADY): State.STARTING,
        (State.STARTING, Happened.SILENT): State.HUNG,
        (State.STARTING, Happened.DIED): State.BACKOFF,
        (State.STARTING, Happened.TOLD_TO_STOP): State.DRAINING,
        (State.READY, Happened.SAID_READY): State.READY,
        (State.READY, Happened.SAID_UNREADY): State.UNREADY,
        (State.READY, Happened.SILENT): State.HUNG,
        (State.READY, Happened.DIED): State.BACKOFF,
        (State.READY, Happened.TOLD_TO_STOP): State.DRAINING,
        (State.UNREADY, Happened.SAID_READY): State.READY,
        (State.UNREADY, Happened.SAID_UNREADY): State.UNREADY,
        (State.UNREADY, Happened.SILENT): State.HUNG,
        (State.UNREADY, Happened.DIED): State.BACKOFF,
        (State.UNREADY, Happened.TOLD_TO_STOP): State.DRAINING,
        (State.HUNG, Happened.DIED): State.BACKOFF,
        (State.HUNG, Happened.TOLD_TO_STOP): State.DRAINING,
        (State.DRAINING, Happened.DIED): State.GONE,
    }
)
"""What is not in it does not happen, but for answers that come too late, which change nothing."""

_ASKED: Final = frozenset({State.STARTING, State.READY, State.UNREADY})
ALIVE: Final = _ASKED | {State.HUNG, State.DRAINING}
"""States of a worker that has a process."""


@dataclass(frozen=True, slots=True)
class Start:
    """A process is to be made for this worker."""

    number: int


@dataclass(frozen=True, slots=True)
class Park:
    """This worker will not be back soon: what waits in its queues is to be reset, and nothing more let in."""

    number: int


@dataclass(frozen=True, slots=True)
class Avoid:
    """No new connections are to go to these workers, and to no others: they send theirs away, and end or refuse."""

    numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Ask:
    """The worker is to be asked whether it is ready; `answered` or `unanswered` must follow, unless it dies."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker is to be told to drain. `early`: it has not answered yet, so that it may not know what it is told."""

    number: int
    early: bool


@dataclass(frozen=True, slots=True)
class Hurry:
    """The worker is to be told that its drain may take no longer."""

    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """This signal is to be sent to the worker's process."""

    number: int
    signal: signal.Signals


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No worker can start, and all are gone: the supervisor is to end with the status of those that cannot start."""


@dataclass(frozen=True, slots=True)
class Over:
    """All workers are gone, as they were told."""


Order = Start | Park | Avoid | Ask | Stop | Hurry | Kill | GiveUp | Over


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: by itself with a status, or by a signal (`status` is None then)."""

    status: int | None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit status {self.status}"
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"


@dataclass(slots=True)
class Worker:
    """One of them. `incarnation` counts its processes; `reasons` is what it said last against being ready."""

    number: int
    state: State = State.BACKOFF
    due: float = math.inf
    """When something is to be done: a start, a question, a kill."""
    incarnation: int = 0
    heard: bool = False
    """Its process has answered."""
    started_at: float = 0.0
    silent: int = 0
    deaths: int = 0
    """In a row, each soon behind a start."""
    reasons: tuple[str, ...] = ()
    leaving: bool = False
    """It, or the process before it, said last that it sends its connections away."""
    busy_until: float = 0.0
    """Of one that leaves: to tell many thousands is all that a process can do, and no answer does not mean that it hangs."""


@dataclass(slots=True)
class Restarted:
    """What `died` tells, for log and metrics. `wait`: seconds until the next process is started."""

    reason: Reason
    wait: float


class Roster:
    """`workers` are the table's rows, `restarts` counts by reason. `random` gives numbers from 0 to 1."""

    def __init__(self, number: int, times: Times, random: Callable[[], float]) -> None:
        self.workers: Final = tuple(Worker(each) for each in range(1, number + 1))
        self.restarts: Final = dict.fromkeys(Reason, 0)
        self.stopping = False
        self._times = times
        self._random = random
        self._orders: list[Order] = []
        self._led = False  # the first worker has shown that one can start, or has failed otherwise than by refusing to
        self._ended = False
        self._avoided: frozenset[int] = frozenset()

    def worker(self, number: int) -> Worker:
        """The one with this number, from 1 on."""
        return self.workers[number - 1]

    # --------------------------------------------------------------------------------------------------------- what happened

    def begin(self, now: float) -> None:
        """The first worker is to be started."""
        self.workers[0].due = now

    def answered(self, number: int, reasons: tuple[str, ...], now: float) -> None:
        """A worker answered: it is ready, or for these reasons not. Harmless if it comes too late."""
        worker = self.worker(number)
        if worker.state not in _ASKED:
            return
        worker.heard, worker.silent, worker.reasons = True, 0, reasons
        leaving = any(reason.startswith(f"{DRAINING}:") for reason in reasons)
        if leaving and not worker.leaving:
            worker.busy_until = now + self._times.stop_deadline
        worker.leaving = leaving
        self._move(worker, Happened.SAID_UNREADY if reasons else Happened.SAID_READY)
        worker.due = now + self._times.ask_interval
        self._lead(now)

    def unanswered(self, number: int, now: float) -> None:
        """A worker did not answer a question in time. Harmless if it comes too late."""
        worker = self.worker(number)
        if worker.state not in _ASKED:
            return
        if worker.leaving and now < worker.busy_until:
            worker.due = now + self._times.ask_interval
            return
        worker.silent += 1
        late = worker.silent >= SILENT_ASKS if worker.heard else now >= worker.started_at + self._times.start_deadline
        if not late:
            worker.due = now + self._times.ask_interval
            return
        self._move(worker, Happened.SILENT)
        self._orders.append(Kill(number, signal.SIGTERM))
        worker.due = now + self._times.end_deadline

    def died(self, number: int, death: Death, now: float) -> Restarted | None:
        """A worker's process has ended. Tells why and after how long there will be another; None if there will be none."""
        worker = self.worker(number)
        before = worker.state
        refused = not self._led and death.status == REFUSED_START and not worker.heard
        self._move(worker, Happened.DIED)
        worker.reasons, worker.due = (), math.inf
        if worker.state is State.GONE:
            return None
        if refused:
            self._give_up()
            return None
        reason = _reason(before, worker, death)
        self.restarts[reason] += 1
        wait = 0.0 if reason is Reason.LEFT else self._next_wait(worker, now)
        worker.due = now + wait
        if wait > self._times.queue_patience and len(self.workers) > 1:
            self._orders.append(Park(number))
        self._lead(now)
        return Restarted(reason, wait)

    def stop(self, now: float) -> None:
        """All are to drain, together: the whole node stops. Stopping twice is to `hurry`."""
        self.stopping = True
        for worker in self.workers:
            if worker.state in (State.DRAINING, State.GONE):
                continue
            had_process, heard, hung = worker.state in ALIVE, worker.heard, worker.state is State.HUNG
            self._move(worker, Happened.TOLD_TO_STOP)
            if not had_process:
                worker.due = math.inf
                continue
            if not hung:  # that has its SIGTERM, and keeps its deadline
                self._orders.append(Stop(worker.number, early=not heard))
                worker.due = now + self._times.stop_deadline

    def hurry(self, now: float) -> None:
        """The drain that is under way is to take no longer than it must."""
        for worker in self.workers:
            if worker.state is State.DRAINING:
                self._orders.append(Hurry(worker.number))
                worker.due = min(worker.due, now + self._times.hurry_deadline)

    # -------------------------------------------------------------------------------------------------------- what is to be done

    def advance(self, now: float) -> tuple[Order, ...]:
        """The orders that are due, each once."""
        for worker in self.workers:
            if worker.due <= now:
                self._orders.append(self._due(worker, now))
        if not self._ended and self.stopping and all(worker.state is State.GONE for worker in self.workers):
            self._ended = True
            self._orders.append(Over())
        self._avoid()
        orders, self._orders = tuple(self._orders), []
        return orders

    @property
    def deadline(self) -> float:
        """When `advance` is to be called at the latest; infinity: when something has happened."""
        return min(worker.due for worker in self.workers)

    def states(self) -> dict[State, int]:
        """How many workers are in each state, those without any included."""
        counts = dict.fromkeys(State, 0)
        for worker in self.workers:
            counts[worker.state] += 1
        return counts

    # ------------------------------------------------------------------------------------------------------------------- inside

    def _avoid(self) -> None:
        leaving = frozenset(worker.number for worker in self.workers if worker.leaving)
        avoided = leaving if len(leaving) < len(self.workers) else frozenset()
        if avoided != self._avoided:
            self._avoided = avoided
            self._orders.append(Avoid(avoided))

    def _due(self, worker: Worker, now: float) -> Order:
        if worker.state is State.BACKOFF:
            self._move(worker, Happened.STARTED)
            worker.incarnation += 1
            worker.heard, worker.silent, worker.started_at, worker.reasons = False, 0, now, ()
            worker.busy_until = 0.0
            worker.due = now + self._times.ask_interval
            return Start(worker.number)
        worker.due = math.inf  # until the answer, or the death
        if worker.state in _ASKED:
            return Ask(worker.number)
        return Kill(worker.number, signal.SIGKILL)

    def _next_wait(self, worker: Worker, now: float) -> float:
        if now - worker.started_at >= self._times.steady_after:
            worker.deaths = 0
        wait = doubled(self._times.first_wait, worker.deaths, self._times.longest_wait) * (0.5 + self._random() / 2)
        worker.deaths += 1
        return wait

    def _lead(self, now: float) -> None:
        if not self._led:
            self._led = True
            for worker in self._others():
                worker.due = now

    def _others(self) -> Iterator[Worker]:
        return (worker for worker in self.workers[1:] if worker.state is State.BACKOFF)

    def _give_up(self) -> None:
        self.stopping = self._ended = True
        for worker in self.workers:
            worker.state, worker.due = State.GONE, math.inf
        self._orders.append(GiveUp())

    @staticmethod
    def _move(worker: Worker, happened: Happened) -> None:
        worker.state = TABLE[worker.state, happened]


def _reason(before: State, worker: Worker, death: Death) -> Reason:
    if before is State.HUNG:
        return Reason.HUNG
    if not worker.heard:
        return Reason.START
    if death.status == 0 or death.signal in (signal.SIGTERM, signal.SIGINT):  # twistd drains first, and then ends by the signal
        return Reason.LEFT
    return Reason.SIGNAL if death.signal is not None else Reason.EXIT
