"""What goes: entries over the limits of their channel, payloads that expired, old keys. Always a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streampush.config import StoreConfig
from streampush.push.channels import is_addressed
from streampush.store.packing import FREED
from streampush.store.sqlite.ledger import Ledger, Log
from streampush.store.sqlite.rows import MAX_OFFSET, OFFSET_BITS, as_json, entry_id, offset_of, read_list
from streampush.store.trimmed import Trimmed

STEP = 400
"""Work that one step may be, in units of some 50 us: an entry is one, and each page of 4 KiB that its payload fills another one.
What is left goes with the next steps."""

ROOM_STEP = 5_000
"""The same when a full store looks for room, which must be enough for the largest payload that there may be."""

MAX_BEHIND = 10_000
"""Channels that are remembered to have more to drop. One that is forgotten is found at its next append."""


PAGE_BYTES = 4096
"""Of the file. An entry below that is one unit of work."""


def units(weight: int) -> int:
    """The work of dropping or freeing an entry of so many bytes."""
    return 1 + weight // PAGE_BYTES


_LISTED = "(SELECT value FROM json_each(?))"
_OLDEST = f"""
SELECT json_group_array(json_array(
    id, message_id, weight, published_at, expires_at, collapse_key <> '' OR version > 0,
    superseded_by > 0 OR recalled_at > 0 OR flags >= {FREED}
)) FROM (
    SELECT e.* FROM json_each(?) AS j
    CROSS JOIN entries AS e ON e.id > json_extract(j.value, '$[0]') AND e.id <= json_extract(j.value, '$[1]')
    ORDER BY e.id
)
"""
_SPAN = f"""
SELECT sum(weight), sum(1 + weight / {PAGE_BYTES}), sum(expires_at > 0), max(collapse_key <> '' OR version > 0),
    (SELECT message_id FROM entries WHERE id = ?2), (SELECT published_at FROM entries WHERE id = ?2 + 1),
    max(superseded_by = 0 AND recalled_at = 0 AND flags < {FREED} AND (expires_at = 0 OR expires_at > ?3))
FROM entries WHERE id > ?1 AND id <= ?2
"""
_AGED = """
SELECT json_group_array(name) FROM (
    SELECT name FROM channels WHERE top > floor + 1 AND oldest_at < ? ORDER BY oldest_at LIMIT ?
)
"""
_DROP_NEWEST = f"""
DELETE FROM collapses WHERE (channel, key, position) IN (
    SELECT id >> {OFFSET_BITS}, collapse_key, id & {MAX_OFFSET} FROM entries WHERE id IN {_LISTED}
)
"""
_DROP_VERSIONS = f"""
UPDATE collapses SET version = 0, versioned = 0 WHERE (channel, key, versioned) IN (
    SELECT id >> {OFFSET_BITS}, collapse_key, id & {MAX_OFFSET} FROM entries WHERE id IN {_LISTED}
)
"""


class Retention:
    """The writer's sweeping. Nothing here outlives the transaction but what the ledger keeps, and `trimmed`, which is a hint: a
    channel that was noted in a transaction that failed has dropped nothing yet."""

    def __init__(self, ledger: Ledger, limits: StoreConfig) -> None:
        self._ledger = ledger
        self._limits = limits
        self.trimmed = Trimmed()
        self._behind: dict[str, None] = {}  # channels with more to drop than one step may

    def trim(self, logs: Iterable[Log], added: Mapping[int, tuple[int, int]], now_ms: int) -> None:
        """Drops what is over the count, the bytes or the age of each channel; the newest entry always stays.

        `added`: how many entries, and units, each log was given just now, by its id. In one step go at most twice as much and STEP
        more, so that no channel grows while it is appended to; what is left is for `trim_more`.
        """
        oldest_ms = self._oldest_ms(now_ms)
        over = {log.id: log for log in logs if self._is_over(log, log.oldest_at, oldest_ms)}
        if not over or (len(over) == 1 and self._trim_by_count(next(iter(over.values())), added, oldest_ms, now_ms)):
            return
        spans, work = [], STEP
        last: dict[int, int] = {}  # offsets that may go, by log; the one behind is read to know the age of what stays
        share = max(1, STEP // len(over))
        for log in over.values():
            entries, given = added.get(log.id, (0, 0))
            most = min(len(log) - 1, 2 * entries + share, self._excess(log, oldest_ms))
            work += 2 * given
            last[log.id] = log.floor + most
            spans.append((entry_id(log.id, log.floor), entry_id(log.id, log.floor + most + 1)))
        gone, touched_keys = self._choose(over, last, read_list(self._ledger.db, _OLDEST, (as_json(spans),)), now_ms, work)
        self._drop(over.values(), gone, touched_keys)
        for log in over.values():
            self._ledger.touch(log)
            if self._is_over(log, log.oldest_at, oldest_ms) and len(self._behind) < MAX_BEHIND:
                self._behind[log.name] = None

    def _trim_by_count(self, log: Log, added: Mapping[int, tuple[int, int]], oldest_ms: int, now_ms: int) -> bool:
        """The usual case without looking at each entry: one full channel, over nothing but the count, and what goes has no collapse
        key and is no more work than one step may be. False: it is another case, and nothing was done."""
        excess = len(log) - self._limits.history_messages
        entries, given = added.get(log.id, (0, 0))
        if log.size > self._limits.history_bytes or log.oldest_at < oldest_ms or not 0 < excess <= 2 * entries + STEP:
            return False
        db = self._ledger.db
        floor = log.floor + excess
        span = entry_id(log.id, log.floor), entry_id(log.id, floor)
        size, work, expiring, has_key, floor_id, oldest_at, is_loss = db.execute(_SPAN, (*span, now_ms)).fetchone()
        if has_key or work > 2 * given + STEP or oldest_at < oldest_ms:
            return False
        if is_loss:
            self.trimmed.note(log.name, log.floor)
        log.floor, log.floor_id, log.oldest_at = floor, floor_id, oldest_at
        log.size -= size
        log.expiring -= expiring
        totals = self._ledger.totals
        totals.bytes -= size
        totals.publications -= excess
        if is_addressed(log.name):
            db.execute("DELETE FROM receipts WHERE entry > ? AND entry <= ?", span)
        if log.receipted:
            db.execute("DELETE FROM receipt_counts WHERE entry > ? AND entry <= ?", span)
        if log.pushed:
            db.execute("DELETE FROM push_counts WHERE entry > ? AND entry <= ?", span)
        db.execute("DELETE FROM entries WHERE id > ? AND id <= ?", span)
        self._ledger.touch(log)
        return True

    def trim_more(self, now_ms: int, at_most: int) -> bool:
        """As `trim`, for so many channels that have more to drop, or were not appended to since their entries are too old;
        whether there may be others."""
        names = list(self._behind)[:at_most]
        for name in names:
            del self._behind[name]
        oldest_ms = self._oldest_ms(now_ms)
        names += read_list(self._ledger.db, _AGED, (oldest_ms, at_most))
        self._ledger.fetch(names)
        self.trim([log for name in dict.fromkeys(names) if (log := self._ledger.log(name)) is not None], {}, now_ms)
        return bool(self._behind) or len(names) >= at_most

    def _oldest_ms(self, now_ms: int) -> int:
        return now_ms - int(self._limits.history_age * 1000)

    def _is_over(self, log: Log, oldest_at: int, oldest_ms: int) -> bool:
        limits, entries = self._limits, len(log)
        return entries > 1 and (entries > limits.history_messages or log.size > limits.history_bytes or oldest_at < oldest_ms)

    def _excess(self, log: Log, oldest_ms: int) -> int:
        """How many entries are likely to go: whoever reads more of a full channel at each append reads in vain."""
        if log.oldest_at < oldest_ms:
            return len(log)
        excess = max(0, len(log) - self._limits.history_messages)
        too_large = log.size - self._limits.history_bytes
        return max(excess, 2 * too_large * len(log) // log.size + 5) if too_large > 0 else excess

    def _choose(
        self, over: dict[int, Log], last: Mapping[int, int], rows: list[Any], now_ms: int, work: int
    ) -> tuple[list[int], list[int]]:
        """Moves the floors of the logs; gives the keys of the entries that go, and of those among them that may be the newest
        of a collapse key. `last`: the last offset of each log that may go; `work`: units; at least one entry goes."""
        gone, newest = [], []
        oldest_ms = self._oldest_ms(now_ms)
        totals = self._ledger.totals
        for entry, message_id, weight, published_at, expires_at, has_key, is_out in rows:
            log = over[entry >> OFFSET_BITS]
            offset = offset_of(entry)
            if offset != log.floor + 1:
                continue  # an entry before this one stays, and so does this
            log.oldest_at = published_at
            if work <= 0 or offset > last[log.id] or not self._is_over(log, published_at, oldest_ms):
                continue
            work -= units(weight)
            gone.append(entry)
            if has_key:
                newest.append(entry)
            if not is_out and not 0 < expires_at <= now_ms:
                self.trimmed.note(log.name, log.floor)
            log.floor = offset
            log.floor_id = message_id
            log.size -= weight
            log.expiring -= expires_at > 0
            totals.bytes -= weight
            totals.publications -= 1
        return gone, newest

    def _drop(self, logs: Iterable[Log], gone: list[int], newest: list[int]) -> None:
        db = self._ledger.db
        if newest:
            keys = as_json(newest)
            db.execute(_DROP_VERSIONS, (keys,))
            db.execute(_DROP_NEWEST, (keys,))
        if not gone:
            return
        keys = as_json(gone)
        if any(is_addressed(log.name) for log in logs):
            db.execute(f"DELETE FROM receipts WHERE entry IN {_LISTED}", (keys,))
        if any(log.receipted for log in logs):
            db.execute(f"DELETE FROM receipt_counts WHERE entry IN {_LISTED}", (keys,))
        if any(log.pushed for log in logs):
            db.execute(f"DELETE FROM push_counts WHERE entry IN {_LISTED}", (keys,))
        db.execute(f"DELETE FROM entries WHERE id IN {_LISTED}", (keys,))

    def free_expired(self, log: Log, now_ms: int) -> None:
        """Frees payloads of one channel that have expired."""
        if log.expiring:
            self._free(
                "SELECT id FROM entries WHERE id > ? AND id <= ? AND expires_at BETWEEN 1 AND ?",
                (entry_id(log.id, log.floor), entry_id(log.id, log.top), now_ms),
                ROOM_STEP,
            )

    def free_any_expired(self, now_ms: int) -> bool:
        """Frees some payloads that have expired, whatever their channel; whether there may be more."""
        query = f"SELECT id FROM entries WHERE expires_at > 0 AND flags < {FREED} AND expires_at <= ? ORDER BY expires_at"
        return self._free(query, (now_ms,), STEP)

    def _free(self, query: str, parameters: tuple[int, ...], work: int) -> bool:
        """Frees what the query gives, at most so many units but for the first; whether there may be more."""
        db = self._ledger.db
        listing = (
            "SELECT json_group_array(json_array(e.id, e.weight - length(e.content_type), c.name)) FROM entries AS e"
            f" JOIN channels AS c ON c.id = e.id >> {OFFSET_BITS} WHERE e.id IN ({query} LIMIT ?) AND e.flags < {FREED}"
        )
        found = read_list(db, listing, (*parameters, work))
        rows = _within(found, work)
        if not rows:
            return False
        ledger = self._ledger
        ledger.fetch([name for _, _, name in rows])
        for _, freed, name in rows:
            log = ledger.log(name)
            assert log is not None
            log.size -= freed
            ledger.totals.bytes -= freed
            ledger.touch(log)
        db.execute(
            f"UPDATE entries SET payload = x'', headers = '', weight = length(content_type), flags = flags | {FREED}"
            f" WHERE id IN {_LISTED}",
            (as_json([row[0] for row in rows]),),
        )
        return len(rows) < len(found) or len(found) == work


def _within(rows: list[Any], work: int) -> list[Any]:
    """The first rows (entry, weight, ...) that are so many units together, at least one."""
    taken = []
    for row in rows:
        if work <= 0:
            break
        work -= units(row[1])
        taken.append(row)
    return taken
