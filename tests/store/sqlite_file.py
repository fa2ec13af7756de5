"""Files of stores for tests: filled, damaged, and used by a process of their own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from streampush.config import StoreConfig
from streampush.push.values import CursorMove, DeviceRecord, Draft, Idempotency, Publication
from streampush.store.sqlite import SqliteStore

NOW_MS = 1_800_000_000_000
ROOMY = StoreConfig(history_messages=1_000_000, history_bytes=1 << 40, max_bytes=1 << 40)

_NUMBERS = count(1)


def done(work: Coroutine[Any, Any, Any]) -> Any:
    """What a store without threads gives at once; raises what it raises."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


@contextmanager
def opened(path: Path, limits: StoreConfig | None = None, now_ms: int = NOW_MS) -> Iterator[SqliteStore]:
    """The store of the file, without threads."""
    store = SqliteStore(str(path), limits or StoreConfig(), lambda: now_ms, lambda: f"epoch-{next(_NUMBERS)}")
    store.open()
    try:
        yield store
    finally:
        done(store.stop())


def draft(
    channel: str = "news", message_id: str = "", payload: bytes = b"payload", published_at_ms: int = NOW_MS, **fields: Any
) -> Draft:
    """A draft with an id of its own."""
    return Draft(channel, message_id or f"id-{next(_NUMBERS)}", payload, published_at_ms, **fields)


def fill(store: SqliteStore, messages: int = 20, payload: bytes = b"payload" * 100) -> None:
    """Something in every table that an operator may have."""
    done(store.remember_device(DeviceRecord("d", "u")))
    done(store.add_subscription("d", "news", NOW_MS, 10))
    for number in range(1, messages + 1):
        done(store.append(draft("news", f"m{number}", payload)))
    epoch = done(store.head("news")).epoch
    done(store.append(draft("device:d", "to-d", idempotency=Idempotency("p", "key", b"1", NOW_MS + 1000))))
    done(store.append(draft("news", "collapsed", collapse_key="k", version=3)))
    done(store.append(draft("news", "later", deliver_at_ms=NOW_MS + 5000)))
    done(store.record([CursorMove("d", "news", epoch, messages // 2, 1, 0, NOW_MS)]))
    done(store.outbox_add("push", "key", b"body", NOW_MS))


def everything(store: SqliteStore, channel: str) -> Iterator[Publication]:
    """All that can be read of the channel."""
    after = 0
    while True:
        page = done(store.read(channel, after, 500, 1 << 30))
        yield from page.publications
        if page.next_offset >= page.head.top_offset:
            return
        after = page.next_offset


def change(path: Path, statement: str) -> None:
    """Alters a file behind the store's back."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()


def damage(path: Path, page: int, size: int = 4096) -> None:
    """Overwrites a page (the first is 1) with noise."""
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))


def root_page(path: Path, name: str) -> int:
    """Where a table or index begins."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0])


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `streampush` in a process of its own: another open of the file in the same process would end SQLite's locks."""
    script = Path(sys.executable).with_name("streampush")
    return subprocess.run([str(script), *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd, check=False)
