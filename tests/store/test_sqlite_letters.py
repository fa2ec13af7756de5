"""Dead letters go in small steps, too: when their device is forgotten, and when fewer are to be kept than there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streampush.push.values import DeviceRecord, Undeliverable
from streampush.store.sqlite import SqliteStore
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.retention import STEP, units
from streampush.store.sqlite.worker import Report
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, ROOMY, done, draft

SIZE = 200_000
"""Bytes of a payload: 49 units of work."""
AT_ONCE = -(-STEP // units(SIZE))


class Steps:
    """Counts batches, and how many letters went in each."""

    def __init__(self) -> None:
        self.store: SqliteStore | None = None
        self.held = 0
        self.dropped: list[int] = []

    def __call__(self, report: Report, waiting: int) -> None:
        if self.store is None:
            return
        held = done(self.store.status()).dead_letters
        self.dropped.append(self.held - held)
        self.held = held

    def watch(self, store: SqliteStore) -> None:
        self.held = done(store.status()).dead_letters
        self.store = store


@pytest.fixture
def path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield Path(folder) / "store.db"


def make(path: Path, steps: Steps, max_dead_letters: int = 1000) -> SqliteStore:
    store = SqliteStore(str(path), ROOMY, lambda: NOW_MS, lambda: "epoch", max_dead_letters=max_dead_letters, observe_writes=steps)
    store.open()
    return store


def bury(store: SqliteStore, offset: int) -> Any:
    return done(store.record([], [], [Undeliverable("d", "news", "epoch", offset, 10, "why", NOW_MS)]))


def fill(store: SqliteStore, count: int) -> None:
    done(store.remember_device(DeviceRecord("d", "u")))
    for offset in range(1, count + 1):
        done(store.append(draft("news", payload=bytes(SIZE))))
        bury(store, offset)


def test_a_device_with_many_large_letters_is_forgotten_in_small_steps(path: Path) -> None:
    steps = Steps()
    store = make(path, steps)
    fill(store, 30)
    steps.watch(store)
    assert done(store.forget_device("d"))
    assert (sum(steps.dropped), max(steps.dropped)) == (30, AT_ONCE)
    assert steps.dropped[-1] == 0  # the device itself
    assert done(store.device("d")) is None
    done(store.stop())
    assert examine(str(path)).faults == ()


def test_a_device_without_letters_is_forgotten_in_one_step(path: Path) -> None:
    steps = Steps()
    store = make(path, steps)
    fill(store, 0)
    steps.watch(store)
    assert done(store.forget_device("d"))
    assert not done(store.forget_device("d"))
    assert len(steps.dropped) == 2
    done(store.stop())


def test_fewer_letters_than_there_are_is_reached_in_small_steps(path: Path) -> None:
    store = make(path, Steps())
    fill(store, 30)
    done(store.stop())
    steps = Steps()
    store = make(path, steps, max_dead_letters=2)
    steps.watch(store)
    for _ in range(5):
        bury(store, 30)
    assert max(steps.dropped) <= AT_ONCE
    assert done(store.status()).dead_letters == 2
    done(store.stop())
    assert examine(str(path)).faults == ()
