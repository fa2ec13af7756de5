"""Rows and values: how publications lie in the tables, and SQL that does much in one step.

Every step of SQLite lets go of the interpreter's lock and has to wait for it afterwards, up to a switch interval if the reactor's
thread is busy. So many rows are written by one statement of many VALUES, and read as one JSON text: what counts is steps, not rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from streampush.protocol.terms import Priority
from streampush.push.values import Publication
from streampush.store.packing import CLEAR_ON_PROCESSED, WANTS_RECEIPT, unpack_headers

OFFSET_BITS = 39
MAX_OFFSET = (1 << OFFSET_BITS) - 1
"""Publications of one channel: ten thousand a second for more than a year."""

MAX_CHANNELS = (1 << (63 - OFFSET_BITS)) - 1
"""Channels of one file."""

CHUNKS = (64, 56, 48, 40, 32, 24, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""Rows in one statement: up to 71 take two steps, and the sizes are few enough that SQLite keeps each of them prepared."""


def entry_id(channel: int, offset: int) -> int:
    """The key of an entry."""
    return channel << OFFSET_BITS | offset


def offset_of(entry: int) -> int:
    """The offset of an entry by its key."""
    return entry & MAX_OFFSET


PUBLICATION_COLUMNS = "message_id, published_at, expires_at, content_type, headers, priority, collapse_key, recalls, flags"
"""In the order in which `publication` takes them."""


def publication(channel: str, offset: int, payload: bytes, row: Sequence[Any]) -> Publication:
    """A publication from its PUBLICATION_COLUMNS."""
    message_id, published_at, expires_at, content_type, headers, priority, collapse_key, recalls, flags = row
    return Publication(
        channel,
        offset,
        message_id,
        payload,
        published_at,
        expires_at,
        content_type,
        unpack_headers(headers),
        Priority(priority),
        collapse_key,
        recalls,
        bool(flags & WANTS_RECEIPT),
        bool(flags & CLEAR_ON_PROCESSED),
    )


@lru_cache(maxsize=256)
def _values(head: str, tail: str, width: int, count: int) -> str:
    row = f"({','.join('?' * width)})"
    return f"{head} {','.join([row] * count)} {tail}"


def write_many(db: sqlite3.Connection, head: str, rows: Sequence[Sequence[Any]], tail: str = "") -> None:
    """Executes `head (?, ...), (?, ...) ... tail` for all rows, in few steps."""
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            chunk = rows[start : start + size]
            db.execute(_values(head, tail, len(chunk[0]), size), tuple(chain.from_iterable(chunk)))
            start += size


def read_many(db: sqlite3.Connection, query: str, keys: Sequence[Sequence[Any]]) -> list[Any]:
    """The JSON lists that a query gives for all keys, in few steps: `SELECT json_group_array(...) FROM wanted CROSS JOIN ...`, with
    `wanted (a, b)` for the keys, which are pairs.

    A join, because SQLite looks at every row of the table for `(x, y) IN (VALUES (...), (...))`.
    """
    found: list[Any] = []
    start = 0
    for size in CHUNKS:
        while len(keys) - start >= size:
            chunk = keys[start : start + size]
            statement = _values("WITH wanted (a, b) AS (VALUES", f") {query}", 2, size)
            row = db.execute(statement, tuple(chain.from_iterable(chunk))).fetchone()
            found += json.loads(row[0])
            start += size
    return found


def read_list(db: sqlite3.Connection, query: str, parameters: Iterable[Any] = ()) -> list[Any]:
    """The JSON list that is the query's only value."""
    found: list[Any] = json.loads(db.execute(query, tuple(parameters)).fetchone()[0])
    return found


def as_json(value: object) -> str:
    """For json_each."""
    return json.dumps(value, separators=(",", ":"))
