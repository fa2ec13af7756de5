"""Fills a store's file in this process, before a server opens it: as the server would, many operations to a commit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streampush.config import DeliveryConfig, StoreConfig
from streampush.push import ids
from streampush.push.values import DeviceRecord, Draft
from streampush.store.sqlite.batches import make_writer
from streampush.store.sqlite.file import prepare
from streampush.store.sqlite.worker import Task

BATCH = 2_000

ROOMY: Mapping[str, Any] = {
    "history_messages": 10_000_000,
    "history_bytes": 1 << 40,
    "max_channels": 10_000_000,
    "max_devices": 10_000_000,
    "max_bytes": 1 << 44,
}
"""Settings of a store that drops nothing and refuses nothing in a benchmark."""


class Filling:
    """A store's file, made if it is not there. Use it as a context manager: then everything is in the file itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        prepare(str(path), lambda: ids.random_id(os.urandom), self._now_ms())
        self._writer = make_writer(str(path), StoreConfig(**ROOMY), DeliveryConfig().max_dead_letters)

    def append(self, channel: str, payload: bytes, count: int) -> None:
        """So many messages to one channel."""
        self.append_each((channel for _ in range(count)), payload)

    def append_each(self, channels: Iterable[str], payload: bytes) -> None:
        """One message to each channel."""
        self._do(Task("append", (self._draft(channel, payload), self._now_ms())) for channel in channels)

    def remember(self, device_ids: Iterable[str]) -> None:
        """Devices that were seen."""
        now_ms = self._now_ms()
        self._do(Task("remember_device", (DeviceRecord(name, first_seen_ms=now_ms, last_seen_ms=now_ms),)) for name in device_ids)

    def subscribe(self, device_ids: Iterable[str], channel: str) -> None:
        """Durable subscriptions."""
        now_ms = self._now_ms()
        self._do(Task("add_subscription", (name, channel, now_ms, 1000)) for name in device_ids)

    def _do(self, tasks: Iterator[Task[Any]]) -> None:
        while batch := list(islice(tasks, BATCH)):
            for outcome in self._writer.run(batch).outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

    def _draft(self, channel: str, payload: bytes) -> Draft:
        now_ms = self._now_ms()
        return Draft(channel, ids.message_id(now_ms, os.urandom), payload, now_ms, publisher="publisher:bench")

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
