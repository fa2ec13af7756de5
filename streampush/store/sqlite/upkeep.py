"""What the reactor's thread does for the store on disk: sweeps, tries again after a fault, and knows whether it works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streampush.errors import StoreUnavailable
from streampush.store.sqlite.file import GONE, SLOW
from streampush.store.sqlite.store import SqliteStore
from streampush.store.sqlite.worker import Report

INTERVAL = 1.0
"""Seconds between two sweeps, and between two tries while the disk fails."""

BUSY_INTERVAL = 0.05
"""Seconds to the next sweep if the last one left something to do: other work has its turn between them."""

FULL = "full"
"""The kind of fault that is over only when there is room for more than the next operation."""

SLOW_AFTER = 5.0
"""Seconds of one batch after which the disk counts as hanging."""


class StoreMetrics(Protocol):
    """What is counted of the store on disk."""

    def store_batch(self, operations: int, seconds: float) -> None:
        """A batch was committed."""

    def store_fault(self, kind: str) -> None:
        """A batch failed, or the file was found to be gone, or the disk slow; `kind` is one of file.FAULT_KINDS."""


class Watch:
    """Observes something that may fail, one of the two threads say: "" in `reason` while it works."""

    _log = Logger(namespace="streampush.store")

    def __init__(self, what: str, metrics: StoreMetrics, *, counts: bool) -> None:
        """`what` the store does then, as "writes"; `counts`: batches are counted."""
        self.reason = ""
        self._what = what
        self._metrics = metrics
        self._counts = counts
        self._since = 0.0
        self._kind = ""

    def __call__(self, report: Report, waiting: int) -> None:
        """See worker.Observer."""
        if report.bug is not None:
            self._metrics.store_fault("other")
            self._log.error("an operation on the store failed: {problem}", problem=repr(report.bug))
        if report.fault is not None:
            self._metrics.store_fault(report.fault[0])
            self._failed(*report.fault)
            return
        if self._kind != FULL:  # there a small thing succeeds, and the next one does not: that is for `touch` to say
            self.works_again()
        if self._counts:
            self._metrics.store_batch(len(report.outcomes), report.seconds)

    def works_again(self) -> None:
        """What failed has succeeded."""
        if self.reason:
            self._log.info("the store {what} again, after {seconds:.1f} s", what=self._what, seconds=monotonic() - self._since)
            self.reason = self._kind = ""

    def _failed(self, kind: str, text: str) -> None:
        if not self.reason:
            self._since = monotonic()
        if kind != self._kind:  # it is tried again every second, and each publish fails, too: one line is enough
            self._log.error("the store cannot {what}: {problem}", what=self._what.rstrip("s"), problem=text)
        self.reason, self._kind = text, kind


class Upkeep:
    """Between `start` and `stop` of a store that works in threads."""

    _log = Logger(namespace="streampush.store")

    def __init__(self, clock: IReactorTime, store: SqliteStore, writes: Watch, reads: Watch, metrics: StoreMetrics) -> None:
        self._clock = clock
        self._store = store
        self._writes = writes
        self._reads = reads
        self._place = Watch("writes", metrics, counts=False)  # whether the file is where it was
        self._pace = Watch("answers", metrics, counts=False)  # whether the disk keeps up
        self._call: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None
        self._running = False

    def reason(self, now: float) -> str:
        """A check for observe.health: why the store does not work, or nothing."""
        for watch in (self._place, self._writes, self._reads):
            if watch.reason:
                return watch.reason
        return self._late()

    def _late(self) -> str:
        """Why the disk does not keep up with what is asked of it, or nothing."""
        for executor in (self._store.writer, self._store.reader):
            seconds = executor.busy_seconds()
            if seconds > SLOW_AFTER:
                return f"the disk has not answered for {seconds:.0f} s"
            if executor.waiting >= self._store.max_queue:
                return f"{executor.waiting} operations wait for the disk, as many as may (store.max_queue)"
        return ""

    def start(self) -> None:
        """Begins."""
        self._running = True
        self._call = self._clock.callLater(INTERVAL, self._turn)
        self._watching = self._clock.callLater(INTERVAL, self._watch_pace)

    def stop(self) -> None:
        """Leaves no timer behind; what is under way ends by itself."""
        self._running = False
        for call in (self._call, self._watching):
            if call is not None:
                call.cancel()
        self._call = self._watching = None

    def _watch_pace(self) -> None:
        """Says once that the disk does not keep up, and once that it does again; a turn may be waiting for it."""
        self._watching = self._clock.callLater(INTERVAL, self._watch_pace)
        late = self._late()
        if not late:
            self._pace.works_again()
        elif not self._pace.reason:
            self._pace(Report((), fault=(SLOW, late)), 0)

    def _turn(self) -> None:
        self._call = None
        turn = Deferred.fromCoroutine(self._work())
        turn.addErrback(lambda failure: self._log.failure("the upkeep of the store failed", failure=failure))
        turn.addCallback(self._again)  # not before: tries must not pile up behind a disk that hangs

    async def _work(self) -> bool:
        """One sweep, or one try; whether there is more to do at once."""
        await self._try(self._reads, self._store.status)
        if not self._place.reason:  # else nothing is written
            await self._try(self._writes, self._store.touch)
            if self._writes.reason:
                return False
        try:
            return not await self._is_gone() and await self._store.sweep()
        except StoreUnavailable:
            return False  # said and counted by the watch

    async def _try(self, watch: Watch, work: Callable[[], Awaitable[object]]) -> None:
        """Sees whether what has failed succeeds now."""
        if watch.reason:
            with suppress(StoreUnavailable):  # said and counted by the watch
                await work()
                watch.works_again()

    async def _is_gone(self) -> bool:
        """Whether the file is no longer where it was. Somebody must see to that; here it is only looked at again and again."""
        gone = await self._store.look()
        if not gone:
            self._place.works_again()
        elif gone != self._place.reason:
            self._place(Report((), fault=(GONE, gone)), 0)
        return bool(gone)

    def _again(self, more: bool | None) -> None:
        if self._running:
            self._call = self._clock.callLater(BUSY_INTERVAL if more else INTERVAL, self._turn)
