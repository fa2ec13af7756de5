"""What devices have reached: cursors, receipts and dead letters, for a whole batch in few steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streampush.protocol.terms import Milestone
from streampush.push.channels import is_addressed
from streampush.push.ids import clearing_id
from streampush.push.values import Appended, CursorMove, Mark, Undeliverable
from streampush.store.packing import CLEAR_ON_PROCESSED, FREED
from streampush.store.sqlite.ledger import Ledger, Log
from streampush.store.sqlite.recalling import Recalling, TakenBack
from streampush.store.sqlite.retention import STEP, units
from streampush.store.sqlite.rows import as_json, entry_id, read_list, read_many, write_many

RECEIPT_COLUMNS = {
    Milestone.WRITTEN: "written",
    Milestone.DELIVERED: "delivered",
    Milestone.PROCESSED: "processed",
    Milestone.REJECTED: "rejected",
    Milestone.DEAD_LETTERED: "dead_lettered",
}
"""Of the tables receipts and receipt_counts."""

Recorded = tuple[Sequence[CursorMove], Sequence[Mark], Sequence[Undeliverable], int]
"""The arguments of push.store_ports.CursorStore.record, and the Unix milliseconds of the call."""

READABLE = f"e.flags < {FREED} AND e.superseded_by = 0 AND e.recalled_at = 0 AND (e.expires_at = 0 OR e.expires_at > {{now}})"
"""Which entries may be read, `now` is a parameter; none whose payload is gone, whatever the clock says."""

_READ_CURSORS = (
    "SELECT json_group_array(json_array(device, channel, epoch, position, processed, attempts))"
    " FROM wanted CROSS JOIN cursors ON device = a AND channel = b"
)
_WRITE_CURSORS = "INSERT INTO cursors (device, channel, epoch, position, processed, attempts, moved) VALUES"
_UPDATE_CURSORS = (
    "ON CONFLICT (device, channel) DO UPDATE SET epoch = excluded.epoch, position = excluded.position,"
    " processed = excluded.processed, attempts = excluded.attempts, moved = excluded.moved"
)
_DROP_CURSORS = """
DELETE FROM cursors WHERE device = ?1 AND channel IN (
    SELECT c.channel FROM cursors AS c LEFT JOIN subscriptions AS s ON s.device = c.device AND s.channel = c.channel
    WHERE c.device = ?1 ORDER BY s.channel IS NOT NULL, c.moved LIMIT max(0, (SELECT count(*) FROM cursors WHERE device = ?1) - ?2)
)
"""

_SPAN = "json_extract(j.value, '$[0]') AS low, json_extract(j.value, '$[1]') AS high, json_extract(j.value, '$[2]') AS device"
_SPANS = f"(SELECT {_SPAN}, json_extract(j.value, '$[3]') AS at FROM json_each(?) AS j) AS s"
_FIRST_TIME = "ON CONFLICT (entry, device) DO UPDATE SET {0} = coalesce(receipts.{0}, excluded.{0})"
_MARKED = f"""
INSERT INTO receipts (entry, device, {{0}})
SELECT e.id, s.device, s.at FROM {_SPANS} CROSS JOIN entries AS e ON e.id > s.low AND e.id <= s.high WHERE true
{_FIRST_TIME}
"""
_DELIVERED = f"""
INSERT INTO receipts (entry, device, delivered)
SELECT e.id, s.device, s.at FROM {_SPANS} CROSS JOIN entries AS e ON e.id > s.low AND e.id <= s.high
LEFT JOIN receipts AS r ON r.entry = e.id AND r.device = s.device
WHERE r.dead_lettered IS NULL AND (r.written IS NOT NULL OR ({READABLE.format(now="?")}))
{_FIRST_TIME.format("delivered")}
"""
_PROCESSED = f"""
INSERT INTO receipts (entry, device, processed)
SELECT e.id, s.device, s.at FROM {_SPANS} CROSS JOIN entries AS e ON e.id > s.low AND e.id <= s.high
CROSS JOIN receipts AS r ON r.entry = e.id AND r.device = s.device
WHERE r.delivered IS NOT NULL AND r.rejected IS NULL
{_FIRST_TIME.format("processed")}
"""
_CLEARED = f"""
SELECT json_group_array(json_array(e.id, e.message_id, e.weight - length(e.content_type), e.publisher, s.at, s.task))
FROM (SELECT {_SPAN}, json_extract(j.value, '$[3]') AS at, json_extract(j.value, '$[4]') AS task FROM json_each(?) AS j) AS s
CROSS JOIN entries AS e ON e.id > s.low AND e.id <= s.high AND e.flags & {CLEAR_ON_PROCESSED} AND e.recalled_at = 0
CROSS JOIN receipts AS r ON r.entry = e.id AND r.device = s.device
WHERE r.delivered IS NOT NULL AND r.rejected IS NULL
"""
_COUNTED = "UPDATE receipt_counts SET {0} = {0} + ? WHERE entry > ? AND entry <= ?"
_COUNTED_READABLE = f"""
UPDATE receipt_counts SET {{0}} = {{0}} + ? WHERE entry > ? AND entry <= ? AND entry NOT IN (SELECT value FROM json_each(?))
AND EXISTS (SELECT 1 FROM entries AS e WHERE e.id = receipt_counts.entry AND {READABLE.format(now="?")})
"""

_INSERT_LETTER = """
INSERT INTO dead_letters (device, at, attempts, reason, weight, message_id, channel, position, published_at, expires_at,
    priority, flags, collapse_key, recalls, content_type, headers, payload)
SELECT ?, ?, ?, ?, weight, message_id, ?, ?, published_at, expires_at,
    priority, flags, collapse_key, recalls, content_type, headers, payload FROM entries WHERE id = ?
"""


class _Span(NamedTuple):
    """A range of entries of one log that one device has reached; `task`: the number of the call in the batch."""

    low: int
    high: int
    device: str
    at: int
    task: int = 0


class _Cursor:
    __slots__ = ("attempts", "epoch", "moved", "offset", "processed")

    def __init__(self, epoch: str, offset: int, processed: int, attempts: int) -> None:
        self.epoch = epoch
        self.offset = offset
        self.processed = processed
        self.attempts = attempts
        self.moved = 0


class Recording:
    """The writer's part of push.store_ports.CursorStore.record. `max_dead_letters` and `max_cursors`: of one device."""

    def __init__(self, ledger: Ledger, recalling: Recalling, max_dead_letters: int, max_cursors: int) -> None:
        self._ledger = ledger
        self._recalling = recalling
        self._max_dead_letters = max_dead_letters
        self._max_cursors = max_cursors

    def record(self, batch: Sequence[Recorded]) -> list[list[Appended]]:
        """Records everything, in this order: marks, dead letters, moves. Gives the recall notices that each call led to."""
        named = [one.channel for moves, marks, failed, _ in batch for kind in (moves, marks, failed) for one in kind]
        self._ledger.fetch(named)
        now_ms = batch[-1][3]
        self._mark([mark for _, marks, _, _ in batch for mark in marks])
        dead = self._bury([one for _, _, failed, _ in batch for one in failed], now_ms)
        processed = self._move([(move, task) for task, one in enumerate(batch) for move in one[0]], dead, now_ms)
        notices: list[list[Appended]] = [[] for _ in batch]
        if processed:
            self._clear(processed, notices, now_ms)
        return notices

    def _clear(self, processed: Sequence[_Span], notices: list[list[Appended]], now_ms: int) -> None:
        """Recalls what was processed on one device and asks to be cleared on the others."""
        back: dict[int, tuple[TakenBack, int]] = {}
        for entry, message_id, freed, publisher, at, task in read_list(self._ledger.db, _CLEARED, (as_json(processed),)):
            taken = TakenBack(entry, message_id, freed, publisher, clearing_id(message_id), at or now_ms)
            back.setdefault(entry, (taken, task))
        appended = self._recalling.take_back([taken for taken, _ in back.values()], now_ms)
        for notice, (_, task) in zip(appended, back.values(), strict=True):
            notices[task].append(notice)

    def _log(self, channel: str, epoch: str) -> Log | None:
        """The log, if it is begun and has this epoch."""
        return self._ledger.log(channel) if epoch == self._ledger.epoch else None

    # ------------------------------------------------------------------------------------------------------------ marks

    def _mark(self, marks: Iterable[Mark]) -> None:
        spans: dict[Milestone, list[_Span]] = defaultdict(list)
        counts: Counter[tuple[Milestone, int, int]] = Counter()
        for mark in marks:
            log = self._log(mark.channel, mark.epoch)
            if log is None:
                continue
            low, high = _range(log, mark.first - 1, mark.last)
            if low >= high:
                continue
            if is_addressed(log.name):
                spans[mark.milestone].append(_Span(low, high, mark.device_id, mark.at_ms))
            elif log.receipted >= mark.first:
                counts[mark.milestone, low, high] += mark.count
        db = self._ledger.db
        for milestone, reached in spans.items():
            db.execute(_MARKED.format(RECEIPT_COLUMNS[milestone]), (as_json(reached),))
        for (milestone, low, high), count in counts.items():
            db.execute(_COUNTED.format(RECEIPT_COLUMNS[milestone]), (count, low, high))

    # ------------------------------------------------------------------------------------------------------------ moves

    def _move(
        self, moves: Sequence[tuple[CursorMove, int]], dead: dict[tuple[str, str], frozenset[int]], now_ms: int
    ) -> list[_Span]:
        """Moves cursors, each with the number of its call; gives what was processed on channels of devices and users."""
        if not moves:
            return []
        delivered: list[_Span] = []
        processed: list[_Span] = []
        counts: Counter[tuple[Milestone, int, int, frozenset[int]]] = Counter()
        for move, task, before in self._move_cursors(moves):
            log = self._log(move.channel, move.epoch)
            if log is None:
                continue
            spans = (
                (delivered, Milestone.DELIVERED, *_range(log, max(before[0], move.begun), move.offset)),
                (processed, Milestone.PROCESSED, *_range(log, max(before[1], move.begun), move.processed)),
            )
            for reached, milestone, low, high in spans:
                if low >= high:
                    continue
                if is_addressed(log.name):
                    reached.append(_Span(low, high, move.device_id, move.at_ms, task))
                elif entry_id(log.id, log.receipted) > low:
                    counts[milestone, low, high, dead.get((move.device_id, move.channel), frozenset())] += 1
        db = self._ledger.db
        if delivered:
            db.execute(_DELIVERED, (as_json(delivered), now_ms))
        if processed:
            db.execute(_PROCESSED, (as_json(processed),))
        for (milestone, low, high, without), count in counts.items():
            statement = _COUNTED_READABLE.format(RECEIPT_COLUMNS[milestone])
            db.execute(statement, (count, low, high, as_json(list(without)), now_ms))
        return processed

    def _move_cursors(self, moves: Sequence[tuple[CursorMove, int]]) -> list[tuple[CursorMove, int, tuple[int, int]]]:
        """Moves the cursors; gives the moves that were not back, with the offset and processed offset that each began at."""
        db, totals = self._ledger.db, self._ledger.totals
        keys = list({(move.device_id, move.channel): None for move, _ in moves})
        cursors = {(device, channel): _Cursor(*rest) for device, channel, *rest in read_many(db, _READ_CURSORS, keys)}
        known = set(cursors)
        done: list[tuple[CursorMove, int, tuple[int, int]]] = []
        for move, task in moves:
            key = (move.device_id, move.channel)
            cursor = cursors.get(key)
            totals.moves += 1
            if cursor is None or cursor.epoch != move.epoch:
                cursor = cursors[key] = _Cursor(move.epoch, move.offset, move.processed, move.attempts)
                done.append((move, task, (0, 0)))
            elif move.offset >= cursor.offset:
                done.append((move, task, (cursor.offset, cursor.processed)))
                cursor.offset, cursor.attempts = move.offset, move.attempts
                cursor.processed = max(cursor.processed, move.processed)
            cursor.moved = totals.moves
        rows = [(*key, one.epoch, one.offset, one.processed, one.attempts, one.moved) for key, one in cursors.items()]
        write_many(db, _WRITE_CURSORS, rows, _UPDATE_CURSORS)
        for device in {device for device, _ in cursors.keys() - known}:
            self._drop_cursors(device)
        return done

    def _drop_cursors(self, device_id: str) -> None:
        """A device that has more cursors than it may loses those that moved longest ago, of durable subscriptions last."""
        self._ledger.db.execute(_DROP_CURSORS, (device_id, self._max_cursors))

    # ----------------------------------------------------------------------------------------------------- dead letters

    def _bury(self, failed: Iterable[Undeliverable], now_ms: int) -> dict[tuple[str, str], frozenset[int]]:
        """Makes dead letters; gives the offsets that are one now, by device and channel."""
        dead: dict[tuple[str, str], frozenset[int]] = {}
        for one in failed:
            log = self._log(one.channel, one.epoch)
            if log is not None and log.floor < one.offset <= log.top and self._bury_one(one, log, now_ms):
                key = (one.device_id, one.channel)
                dead[key] = dead.get(key, frozenset()) | {entry_id(log.id, one.offset)}
        return dead

    def _bury_one(self, one: Undeliverable, log: Log, now_ms: int) -> bool:
        db, totals = self._ledger.db, self._ledger.totals
        entry = entry_id(log.id, one.offset)
        found: Any = db.execute(
            f"SELECT message_id, weight, flags & 1 FROM entries AS e WHERE id = ? AND {READABLE.format(now='?')}", (entry, now_ms)
        ).fetchone()
        if found is None:
            return False
        message_id, weight, wants_receipt = found
        drop_letters(self._ledger, "device = ? AND message_id = ?", (one.device_id, message_id))
        letter = (one.device_id, one.at_ms, one.attempts, one.reason, one.channel, one.offset, entry)
        db.execute(_INSERT_LETTER, letter)
        totals.dead_letters += 1
        totals.bytes += weight
        count: int = db.execute("SELECT count(*) FROM dead_letters WHERE device = ?", (one.device_id,)).fetchone()[0]
        if count > self._max_dead_letters:
            drop_oldest_letters(self._ledger, one.device_id, count - self._max_dead_letters)
        if is_addressed(log.name):
            span = _Span(entry - 1, entry, one.device_id, one.at_ms)
            db.execute(_MARKED.format("dead_lettered"), (as_json([span]),))
        elif wants_receipt:
            db.execute(_COUNTED.format("dead_lettered"), (1, entry - 1, entry))
        return True


def drop_letters(ledger: Ledger, condition: str, parameters: tuple[object, ...]) -> int:
    """Removes the dead letters that fit; gives how many."""
    weights = read_list(ledger.db, f"SELECT json_group_array(weight) FROM dead_letters WHERE {condition}", parameters)
    if weights:
        ledger.db.execute(f"DELETE FROM dead_letters WHERE {condition}", parameters)
        ledger.totals.dead_letters -= len(weights)
        ledger.totals.bytes -= sum(weights)
    return len(weights)


def drop_oldest_letters(ledger: Ledger, device_id: str, at_most: int) -> int:
    """Removes a device's oldest dead letters, at most so many and no more than one step may (retention.STEP); gives how many."""
    query = "SELECT id, weight FROM dead_letters WHERE device = ? ORDER BY id LIMIT ?"
    found = ledger.db.execute(query, (device_id, min(at_most, STEP))).fetchall()
    work, ids = STEP, []
    for letter, weight in found:
        if work <= 0:
            break
        work -= units(weight)
        ids.append(letter)
    return drop_letters(ledger, "id IN (SELECT value FROM json_each(?))", (as_json(ids),)) if ids else 0


def _range(log: Log, after: int, last: int) -> tuple[int, int]:
    """The keys of the entries of a log with after < offset <= last, as far as they are there: low < key <= high."""
    return entry_id(log.id, max(after, log.floor)), entry_id(log.id, min(max(last, 0), log.top))
