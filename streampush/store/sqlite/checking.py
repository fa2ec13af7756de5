"""Whether a file is sound: SQLite's own check of every page, and the rules of ours that its tables keep."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass

from streampush.push.values import StoreStatus
from streampush.store.packing import FREED
from streampush.store.sqlite.file import SCHEMA_VERSION, FileFault, check_header, connect_read_only, explain
from streampush.store.sqlite.reading import Reading
from streampush.store.sqlite.rows import MAX_OFFSET, OFFSET_BITS

MAX_FAULTS = 100
"""Faults of SQLite's own that are listed: whoever has so many needs a backup, not a list."""

_ENTRIES_OF = f"FROM entries AS e WHERE e.id > c.id << {OFFSET_BITS} AND e.id <= (c.id << {OFFSET_BITS} | {MAX_OFFSET})"
_ENTRY_AT = f"SELECT 1 FROM entries AS e WHERE e.id = (k.channel << {OFFSET_BITS} | k"

_RULES = {
    "channels have holes in their offsets, or entries outside of them": f"""
        SELECT count(*) FROM channels AS c WHERE c.floor > c.top OR (c.floor < c.top AND
            (SELECT json_array(count(*), min(e.id), max(e.id)) {_ENTRIES_OF})
            <> json_array(c.top - c.floor, (c.id << {OFFSET_BITS}) + c.floor + 1, (c.id << {OFFSET_BITS}) + c.top))""",
    "entries belong to no channel": """
        SELECT abs((SELECT count(*) FROM entries) - (SELECT coalesce(sum(top - floor), 0) FROM channels))""",
    "channels count their bytes or what expires wrongly": f"""
        SELECT count(*) FROM channels AS c WHERE (SELECT json_array(coalesce(sum(e.weight), 0), coalesce(sum(e.expires_at > 0), 0))
            {_ENTRIES_OF}) <> json_array(c.size, c.expiring) OR c.urgent > c.top OR c.receipted > c.top OR c.pushed > c.top""",
    "channels are wrong about the age of their oldest entry": f"""
        SELECT count(*) FROM channels AS c JOIN entries AS e ON e.id = (c.id << {OFFSET_BITS}) + c.floor + 1
        WHERE e.published_at <> c.oldest_at""",
    "entries are superseded by none that is newer": f"""
        SELECT count(*) FROM entries WHERE superseded_by > 0 AND superseded_by <= id & {MAX_OFFSET}""",
    "payloads have another size than when they were published": f"""
        SELECT count(*) FROM entries WHERE length(payload) <> CASE WHEN flags & {FREED} THEN 0 ELSE size END""",
    "collapse keys name an entry that is not theirs": f"""
        SELECT count(*) FROM collapses AS k WHERE NOT EXISTS ({_ENTRY_AT}.position) AND e.collapse_key = k.key)
            OR (k.versioned > 0 AND NOT EXISTS ({_ENTRY_AT}.versioned) AND e.collapse_key = k.key AND e.version = k.version))""",
    "receipts are of no entry": """
        SELECT (SELECT count(*) FROM receipts WHERE NOT EXISTS (SELECT 1 FROM entries WHERE id = entry))
            + (SELECT count(*) FROM receipt_counts WHERE NOT EXISTS (SELECT 1 FROM entries WHERE id = entry))
            + (SELECT count(*) FROM push_counts WHERE NOT EXISTS (SELECT 1 FROM entries WHERE id = entry))""",
    "pushes are counted that their channel does not know of": f"""
        SELECT count(*) FROM push_counts AS p LEFT JOIN channels AS c ON c.id = p.entry >> {OFFSET_BITS}
        WHERE coalesce(c.pushed, 0) < p.entry & {MAX_OFFSET}""",
    "cursors are ahead of their channel": """
        SELECT count(*) FROM cursors AS k JOIN store AS s ON s.epoch = k.epoch LEFT JOIN channels AS c ON c.name = k.channel
        WHERE k.position > coalesce(c.top, 0) OR k.processed > k.position""",
    "cursors or subscriptions have an order or an owner that cannot be": """
        SELECT (SELECT count(*) FROM cursors WHERE moved > (SELECT moves FROM store))
            + (SELECT count(*) FROM subscriptions WHERE device NOT IN (SELECT id FROM devices))""",
    "devices have the push token of another": """
        SELECT count(push_token) - count(DISTINCT push_token) FROM devices""",
    "publishers have another number of idempotency keys than is counted": """
        SELECT (SELECT count(*) FROM scopes AS s WHERE s.keys <> (SELECT count(*) FROM idempotency WHERE scope = s.id))
            + (SELECT count(*) FROM idempotency WHERE scope NOT IN (SELECT id FROM scopes))""",
    "totals of the store are wrong": """
        SELECT (channels <> (SELECT count(*) FROM channels)) + (publications <> (SELECT count(*) FROM entries))
            + (devices <> (SELECT count(*) FROM devices)) + (scheduled <> (SELECT count(*) FROM scheduled))
            + (dead_letters <> (SELECT count(*) FROM dead_letters)) + (outbox <> (SELECT count(*) FROM outbox))
            + (keys <> (SELECT count(*) FROM idempotency))
            + (bytes <> (SELECT coalesce(sum(weight), 0) FROM entries) + (SELECT coalesce(sum(weight), 0) FROM scheduled)
                + (SELECT coalesce(sum(weight), 0) FROM dead_letters) + (SELECT coalesce(sum(length(body)), 0) FROM outbox))
        FROM store""",
    "rows of the store's own table are missing or too many": "SELECT abs((SELECT count(*) FROM store WHERE epoch <> '') - 1)",
}
"""What is wrong, and a query that counts it."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of a check. `faults`: one line each, without any data of the file; `held`: None if it cannot be read.

    `version`: of the schema. Of a file of an older version only SQLite's own check is made: the server upgrades it at its start.
    """

    version: int
    faults: tuple[str, ...]
    held: StoreStatus | None

    @property
    def is_older(self) -> bool:
        """Whether our own rules were left out."""
        return self.version < SCHEMA_VERSION


def examine(path: str) -> Examination:
    """Reads the whole file, as of one moment; a server may use it meanwhile, its write-ahead log is not cut back until the end.

    Raises FileFault: not there, not readable, not a database of ours, of a later version.
    """
    check_header(path)
    try:
        with closing(connect_read_only(path)) as db:
            db.execute("BEGIN")
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            faults = _page_faults(db)
            if version < SCHEMA_VERSION:
                return Examination(version, tuple(faults), None)
            faults += _rule_faults(db)
            return Examination(version, tuple(faults), _held(db))
    except sqlite3.Error as error:
        raise FileFault(f"{path}: {explain(error)[1]}") from error


def _page_faults(db: sqlite3.Connection) -> list[str]:
    """SQLite's findings; they name tables, pages and row numbers."""
    try:
        found = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({MAX_FAULTS})")]
    except sqlite3.DatabaseError as error:
        return [explain(error)[1]]
    lines = [line.strip() for text in found for line in text.splitlines() if line.strip() and not line.startswith("***")]
    return [] if lines == ["ok"] else lines[:MAX_FAULTS]


def _rule_faults(db: sqlite3.Connection) -> list[str]:
    faults = []
    for text, query in _RULES.items():
        try:
            row = db.execute(query).fetchone()
        except sqlite3.DatabaseError as error:
            faults.append(f"cannot tell whether {text}: {explain(error)[1]}")
            continue
        if row is not None and row[0]:  # none: the table of totals is empty, which has a rule of its own
            faults.append(f"{row[0]} {text}")
    return faults


def _held(db: sqlite3.Connection) -> StoreStatus | None:
    try:
        return Reading(db).status()
    except (sqlite3.DatabaseError, TypeError):  # TypeError: no row
        return None
