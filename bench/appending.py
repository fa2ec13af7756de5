"""The store by itself: appends through its thread, so many in flight, without a network and without a server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bench.dialects import TOPIC, LoadError
from bench.publishers import Round
from bench.report import percentile
from bench.slow_disk import SlowRunner
from streampush.config import DeliveryConfig, StoreConfig
from streampush.push import ids
from streampush.push.values import Draft
from streampush.store.sqlite.batches import APPEND, make_writer
from streampush.store.sqlite.file import prepare
from streampush.store.sqlite.worker import Report, Runner, ThreadExecutor


class Inbox:
    """As much of a reactor as the store's thread needs: calls are made by `turn`, in the thread that asks for it."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:
        self._calls.put((callable, args))

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any:
        """Behind what waits: only the end of a turn is asked for here."""
        self.callFromThread(callable, *args)

    def turn(self) -> None:
        """Waits for a call, and makes it."""
        callable, args = self._calls.get()
        callable(*args)


class BusyInbox(Inbox):
    """Its thread computes while it waits, as a reactor's does that has much to do."""

    def turn(self) -> None:
        while self._calls.empty():
            pass
        super().turn()


class Appends:
    """A file of its own, and a loop that keeps `in_flight` appends to one topic under way."""

    def __init__(self, path: Path, max_batch: int, slower_by: float = 0.0, *, inbox: Inbox | None = None) -> None:
        prepare(str(path), lambda: ids.random_id(os.urandom), self._now_ms())
        runner: Runner = make_writer(str(path), StoreConfig().sized(), DeliveryConfig().max_dead_letters)
        if slower_by:
            runner = SlowRunner(runner, slower_by)
        self._inbox = inbox or Inbox()
        limit = StoreConfig().max_queue
        self._executor = ThreadExecutor("bench", runner, self._observe, self._inbox, max_queue=limit, max_batch=max_batch)
        self._executor.start()
        self._latencies: list[float] = []
        self._left = 0
        self._fault: Exception | None = None

    def run(self, messages: int, in_flight: int, payload: bytes) -> Round:
        """Appends so many messages in all. Raises LoadError."""
        self._latencies.clear()
        self._left = messages
        began_at = time.perf_counter()
        for _ in range(min(in_flight, messages)):
            self._begin(payload)
        while len(self._latencies) < messages:
            self._inbox.turn()
            if self._fault is not None:
                raise LoadError(f"the store refuses: {self._fault}")
        seconds = time.perf_counter() - began_at
        return Round(seconds, percentile(self._latencies, 0.5), percentile(self._latencies, 0.99))

    def _begin(self, payload: bytes) -> None:
        self._left -= 1
        began_at = time.perf_counter()
        now_ms = self._now_ms()
        draft = Draft(TOPIC, ids.message_id(now_ms, os.urandom), payload, now_ms, publisher="publisher:bench")

        def ended(outcome: object) -> None:
            self._latencies.append(time.perf_counter() - began_at)
            if self._left:
                self._begin(payload)

        def failed(failure: Any) -> None:
            self._fault = failure.value

        self._executor.submit(APPEND, draft, now_ms).addCallbacks(ended, failed)

    def _observe(self, report: Report, waiting: int) -> None:
        """Nobody watches."""

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000
