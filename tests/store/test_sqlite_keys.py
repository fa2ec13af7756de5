"""Idempotency keys on disk: what is counted of them stays right, and limits that were lowered are reached in small steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.push.values import Draft, Idempotency
from streampush.store.sqlite import SqliteStore
from streampush.store.sqlite.checking import examine
from streampush.store.sqlite.keys import FORGET_AT_LEAST
from streampush.store.sqlite.worker import InlineExecutor, Task
from tests.store.folders import quick_folder
from tests.store.sqlite_file import NOW_MS, done, draft, opened

LIMITS = StoreConfig()


@pytest.fixture
def path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield Path(folder) / "store.db"


def keep(store: SqliteStore, *names: tuple[str, str], ttl_ms: int = 1000) -> None:
    """Publishes with these scopes and keys, as one batch."""
    append(store, *(draft(idempotency=Idempotency(scope, key, b"f", NOW_MS + ttl_ms)) for scope, key in names))


def append(store: SqliteStore, *drafts: Draft) -> None:
    """Appends these as one batch."""
    writer = store.writer
    assert isinstance(writer, InlineExecutor)
    report = writer.run([Task[Any]("append", (one, NOW_MS)) for one in drafts])
    assert (report.fault, report.bug) == (None, None)
    assert not [outcome for outcome in report.outcomes if isinstance(outcome, Refused)]


def counted(path: Path) -> dict[str, int]:
    """What the file says of its keys, by publisher; and of all."""
    with closing(sqlite3.connect(path)) as db:
        scopes = dict(db.execute("SELECT name, keys FROM scopes").fetchall())
        return {**scopes, "all": db.execute("SELECT keys FROM store").fetchone()[0]}


def test_keys_that_go_for_newer_ones_of_others_are_counted_and_so_are_their_publishers(path: Path) -> None:
    with opened(path, replace(LIMITS, max_idempotency_keys_total=4)) as store:
        keep(store, ("p", "1"), ("p", "2"), ("q", "1"))
        keep(store, ("r", "1"), ("r", "2"), ("p", "3"))  # p loses both, and has a new one
        assert counted(path) == {"p": 1, "q": 1, "r": 2, "all": 4}
        keep(store, ("s", "1"), ("s", "2"), ("s", "3"))  # q and r are gone
        assert counted(path) == {"p": 1, "s": 3, "all": 4}
    assert examine(str(path)).faults == ()


def test_a_batch_larger_than_all_keys_leaves_its_newest(path: Path) -> None:
    with opened(path, replace(LIMITS, max_idempotency_keys_total=3)) as store:
        keep(store, *((f"device:{number}", "k") for number in range(50)))
        assert counted(path) == {"device:47": 1, "device:48": 1, "device:49": 1, "all": 3}
        keep(store, ("device:0", "k"), ("device:49", "k"))
        assert counted(path) == {"device:0": 1, "device:48": 1, "device:49": 1, "all": 3}
    assert examine(str(path)).faults == ()


def test_expired_keys_that_are_swept_are_counted_off(path: Path) -> None:
    with opened(path, replace(LIMITS, max_idempotency_keys_total=4)) as store:
        keep(store, ("p", "1"), ("q", "1"), ttl_ms=0)
        keep(store, ("p", "2"))
        done_sweep(store)
        assert counted(path) == {"p": 1, "all": 1}
        keep(store, ("p", "3"), ("q", "2"), ("q", "3"))
        assert counted(path) == {"p": 2, "q": 2, "all": 4}
    assert examine(str(path)).faults == ()


def done_sweep(store: SqliteStore) -> None:
    results: list[bool] = []
    store.sweep().addCallback(results.append)
    assert results


def test_limits_that_were_lowered_are_reached_in_small_steps(path: Path) -> None:
    with opened(path) as store:
        for number in range(4):
            keep(store, *((f"p{number}", f"{number}-{key}") for key in range(300)))
        assert counted(path)["all"] == 1200
    with opened(path, replace(LIMITS, max_idempotency_keys=50, max_idempotency_keys_total=200)) as store:
        before, turns = 1200, 0
        while before > 200:
            keep(store, ("p3", f"new-{turns}"))
            held = counted(path)["all"]
            assert before - held <= 2 * (FORGET_AT_LEAST + 2)
            before, turns = held, turns + 1
        assert turns > 3
    assert examine(str(path)).faults == ()


def test_the_key_of_a_batch_that_was_refused_twice_is_one(path: Path) -> None:
    with opened(path, replace(LIMITS, max_idempotency_keys_total=2)) as store:
        keep(store, ("p", "1"), ("p", "1"), ("p", "1"), ("q", "1"))
        assert counted(path) == {"p": 1, "q": 1, "all": 2}


def test_a_key_that_went_while_a_full_store_looked_for_room_is_counted_when_it_comes_again(path: Path) -> None:
    """The expired key makes way for a newer one in the middle of its batch, before its own request is looked at."""
    with opened(path, replace(LIMITS, max_idempotency_keys=1, max_bytes=2000)) as store:
        keep(store, ("p", "old"), ttl_ms=0)
        done(store.append(draft("other", payload=b"x" * 1500, expires_at_ms=NOW_MS - 1)))
        newer = draft("other", idempotency=Idempotency("p", "newer", b"f", NOW_MS + 1000))
        again = draft("other", payload=b"y" * 1000, idempotency=Idempotency("p", "old", b"f", NOW_MS + 1000))
        append(store, newer, again)
        assert counted(path) == {"p": 1, "all": 1}
    assert examine(str(path)).faults == ()
