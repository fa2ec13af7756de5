"""The reader's answers, each as of one moment: SQLite's snapshot of the last commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streampush.protocol.codes import Advice
from streampush.push.values import (
    Close,
    Cursor,
    DeadLetter,
    DeviceRecord,
    DurableSubscription,
    Head,
    Page,
    Publication,
    PushToken,
    Spot,
    StoreStatus,
    Survey,
    Want,
)
from streampush.store.drafts import LOOK_AT_MOST
from streampush.store.packing import FREED, unpack_headers
from streampush.store.sqlite.devices import DEVICE_COLUMNS
from streampush.store.sqlite.file import log_path, size_of
from streampush.store.sqlite.ledger import READ_TOTALS, Log, Totals, read_logs
from streampush.store.sqlite.messages import MessageReading
from streampush.store.sqlite.recording import READABLE
from streampush.store.sqlite.rows import PUBLICATION_COLUMNS, as_json, entry_id, offset_of, publication, read_list, read_many

_LAST = "\U0010ffff"
"""Sorts behind every character of an id."""

_PAGE = f"""
WITH found AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY id) AS number, sum(size) OVER (ORDER BY id) AS total FROM (
        SELECT id, size FROM entries AS e WHERE id > ?1 AND id <= ?2 AND {READABLE.format(now="?3")} ORDER BY id LIMIT ?4 + 1
    )
), taken AS (SELECT id, number FROM found WHERE number = 1 OR (number <= ?4 AND total <= ?5))
SELECT json_group_array(json_array(id, size, {PUBLICATION_COLUMNS})), CAST(group_concat(CAST(payload AS TEXT), '') AS BLOB),
    (SELECT min(id) FROM found WHERE number > (SELECT count(*) FROM taken))
FROM (SELECT e.* FROM taken AS t CROSS JOIN entries AS e ON e.id = t.id ORDER BY t.number)
"""
"""A page in one step: all publications as one JSON text, all payloads joined as one blob, and the next entry that was not
taken. (A cast to text changes no byte.)"""

_EXPIRED = f"""
SELECT count(*) FROM entries AS e
WHERE e.id > {{low}} AND e.id <= {{high}} AND e.expires_at > 0 AND (e.expires_at <= {{now}} OR e.flags >= {FREED})
    AND e.superseded_by = 0 AND e.recalled_at = 0
"""
"""What has lost its payload stays expired, also for a clock that was set back."""
_COUNT_EXPIRED = f"""
SELECT json_group_array(({_EXPIRED.format(low="json_extract(j.value, '$[0]')", high="json_extract(j.value, '$[1]')", now="?2")}))
FROM json_each(?1) AS j
"""
_COUNT_READABLE = f"""
SELECT json_group_array((
    SELECT count(*) FROM entries AS e
    WHERE e.id > json_extract(j.value, '$[0]') AND e.id <= json_extract(j.value, '$[1]') AND {READABLE.format(now="?2")}
)) FROM json_each(?1) AS j
"""
_CURSORS = (
    "SELECT json_group_array(json_array(channel, epoch, position, processed, attempts))"
    " FROM wanted CROSS JOIN cursors ON device = a AND channel = b"
)
_IDS = "SELECT json_group_array(json_array(id, message_id)) FROM entries WHERE id IN (SELECT value FROM json_each(?))"


class Reading(MessageReading):
    """Queries on a connection, within one transaction."""

    def _log(self, channel: str) -> Log | None:
        return read_logs(self._db, [channel]).get(channel)

    # ------------------------------------------------------------------------------------------------------------- logs

    def head(self, channel: str) -> Head:
        return self.peek(channel) or Head(self._epoch, 0)

    def peek(self, channel: str) -> Head | None:
        log = self._log(channel)
        return None if log is None else log.head(self._epoch)

    def read(self, channel: str, after: int, max_messages: int, max_bytes: int, now_ms: int) -> Page:
        log = self._log(channel)
        if log is None:
            return Page(Head(self._epoch, 0), (), after)
        start = max(after, log.floor)
        end = min(start + LOOK_AT_MOST, log.top)
        if start >= end:
            return Page(log.head(self._epoch), (), start)
        low, high = entry_id(log.id, start), entry_id(log.id, end)
        text, payloads, following = self._db.execute(_PAGE, (low, high, now_ms, max_messages, max_bytes)).fetchone()
        found = _publications(channel, json.loads(text), payloads or b"")
        next_offset = end if following is None else offset_of(following) - 1
        expired = 0
        if log.expiring:
            counting = _EXPIRED.format(low="?", high="?", now="?")
            expired = self._db.execute(counting, (low, entry_id(log.id, next_offset), now_ms)).fetchone()[0]
        return Page(log.head(self._epoch), found, next_offset, expired)

    def survey(self, device_id: str, wants: Sequence[Want], now_ms: int) -> list[Survey]:
        """See push.store_ports.LogStore.survey. The number of steps does not grow with that of the channels."""
        logs = read_logs(self._db, [want.channel for want in wants])
        keys = list(dict.fromkeys((device_id, want.channel) for want in wants))
        cursors = {channel: Cursor(*rest) for channel, *rest in read_many(self._db, _CURSORS, keys)}
        offsets: dict[str, set[int]] = {}
        for want in wants:
            log, cursor = logs.get(want.channel), cursors.get(want.channel)
            wanted = offsets.setdefault(want.channel, set())
            wanted.update(want.offsets, (0 if log is None else log.top,))
            if cursor is not None and cursor.epoch == self._epoch:
                wanted.add(cursor.offset)
        spots = self._spots(logs, offsets, now_ms)
        surveys = []
        for want in wants:
            log = logs.get(want.channel)
            head = Head(self._epoch, 0) if log is None else log.head(self._epoch)
            surveys.append(Survey(want.channel, head, cursors.get(want.channel), spots[want.channel]))
        return surveys

    def _spots(self, logs: Mapping[str, Log], offsets: Mapping[str, set[int]], now_ms: int) -> dict[str, dict[int, Spot]]:
        """What is known of each offset of each channel."""
        entries = [
            entry_id(logs[channel].id, offset)
            for channel, wanted in offsets.items()
            if channel in logs
            for offset in wanted
            if logs[channel].floor < offset <= logs[channel].top
        ]
        ids = dict(read_list(self._db, _IDS, (as_json(entries),)))
        expired = self._count_expired(logs, offsets, now_ms)
        spots: dict[str, dict[int, Spot]] = {}
        for channel, wanted in offsets.items():
            log = logs.get(channel)
            known = spots[channel] = {}
            for offset in wanted:
                if log is None:
                    known[offset] = Spot(None, 0)
                elif offset == log.floor:
                    known[offset] = Spot(log.floor_id or None, expired.get((channel, offset), 0))
                else:
                    inside = log.floor < offset <= log.top
                    known[offset] = Spot(ids[entry_id(log.id, offset)] if inside else None, expired.get((channel, offset), 0))
        return spots

    def _count_expired(
        self, logs: Mapping[str, Log], offsets: Mapping[str, set[int]], now_ms: int
    ) -> Mapping[tuple[str, int], int]:
        """How many behind each offset have expired, of the channels that have what expires."""
        asked, spans = [], []
        for channel, wanted in offsets.items():
            log = logs.get(channel)
            if log is not None and log.expiring:
                for offset in wanted:
                    asked.append((channel, offset))
                    low = min(max(offset, log.floor), log.top)
                    spans.append((entry_id(log.id, low), entry_id(log.id, log.top)))
        if not asked:
            return {}
        return dict(zip(asked, read_list(self._db, _COUNT_EXPIRED, (as_json(spans), now_ms)), strict=True))

    def count_readable(self, spans: Sequence[tuple[str, int, int]], now_ms: int) -> list[int]:
        logs = read_logs(self._db, [channel for channel, _, _ in spans])
        asked = [
            (entry_id(log.id, max(after, log.floor)), entry_id(log.id, min(last, log.top)))
            if (log := logs.get(channel)) is not None
            else (0, 0)
            for channel, after, last in spans
        ]
        return read_list(self._db, _COUNT_READABLE, (as_json(asked), now_ms))

    def next_due_ms(self) -> int | None:
        due: int | None = self._db.execute("SELECT min(deliver_at) FROM scheduled").fetchone()[0]
        return due

    def status(self) -> StoreStatus:
        totals = Totals(*self._db.execute(READ_TOTALS).fetchone())
        return StoreStatus(
            totals.channels,
            totals.publications,
            totals.bytes,
            totals.devices,
            totals.scheduled,
            totals.dead_letters,
            totals.outbox,
            totals.keys,
        )

    def files(self, path: str) -> tuple[int, int]:
        """Bytes of the file, and of the write-ahead log."""
        return size_of(path), size_of(log_path(path))

    # ---------------------------------------------------------------------------------------------------------- devices

    def cursors(self, device_id: str) -> Mapping[str, Cursor]:
        query = "SELECT json_group_array(json_array(channel, epoch, position, processed, attempts)) FROM cursors WHERE device = ?"
        return {channel: Cursor(*rest) for channel, *rest in read_list(self._db, query, (device_id,))}

    def subscriptions(self, device_id: str) -> list[DurableSubscription]:
        query = "SELECT json_group_array(json_array(channel, since_at)) FROM subscriptions WHERE device = ?"
        return [DurableSubscription(*row) for row in sorted(read_list(self._db, query, (device_id,)))]

    def subscribers(self, channel: str, after: str, limit: int) -> list[str]:
        query = "SELECT device FROM subscriptions WHERE channel = ? AND device > ? ORDER BY device LIMIT ?"
        return [row[0] for row in self._db.execute(query, (channel, after, limit))]

    def device(self, device_id: str) -> DeviceRecord | None:
        row = self._db.execute(f"SELECT {DEVICE_COLUMNS} FROM devices WHERE id = ?", (device_id,)).fetchone()
        return None if row is None else _device(row)

    def device_of_token(self, token: bytes) -> DeviceRecord | None:
        row = self._db.execute(f"SELECT {DEVICE_COLUMNS} FROM devices WHERE push_token = ?", (token,)).fetchone()
        return None if row is None else _device(row)

    def devices_of_user(self, user_id: str, limit: int) -> list[DeviceRecord]:
        query = f"SELECT {DEVICE_COLUMNS} FROM devices WHERE user_id = ? AND user_id <> '' ORDER BY id LIMIT ?"
        return [_device(row) for row in self._db.execute(query, (user_id, limit))]

    def devices_named(self, prefix: str, limit: int) -> list[str]:
        query = "SELECT id FROM devices WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [row[0] for row in self._db.execute(query, (prefix, prefix + _LAST, limit))]

    def dead_letters(self, device_id: str, before_ms: int, limit: int) -> list[DeadLetter]:
        query = f"{_LETTERS} WHERE device = ?1 AND (?2 = 0 OR at < ?2) ORDER BY at DESC, id LIMIT ?3"
        return [_letter(row) for row in self._db.execute(query, (device_id, before_ms, limit))]

    def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        row = self._db.execute(f"{_LETTERS} WHERE device = ? AND message_id = ?", (device_id, message_id)).fetchone()
        return None if row is None else _letter(row)

    # ----------------------------------------------------------------------------------------------------------- outbox

    def outbox_next_ms(self, kind: str) -> int | None:
        due: int | None = self._db.execute("SELECT min(due_at) FROM outbox WHERE kind = ?", (kind,)).fetchone()[0]
        return due


_LETTERS = f"SELECT device, attempts, reason, at, channel, position, payload, {PUBLICATION_COLUMNS} FROM dead_letters"


def _letter(row: Sequence[Any]) -> DeadLetter:
    device, attempts, reason, at_ms, channel, offset, payload, *rest = row
    return DeadLetter(device, publication(channel, offset, payload, rest), attempts, reason, at_ms)


def _device(row: Sequence[Any]) -> DeviceRecord:
    device_id, user_id, first, last, token, topic, sandbox, registered_at, attributes, code, advice, detail, closed_at = row
    return DeviceRecord(
        device_id,
        user_id,
        first,
        last,
        None if token is None else PushToken(token, topic, bool(sandbox), registered_at),
        unpack_headers(attributes),
        None if code is None else Close(code, Advice(advice), detail, closed_at),
    )


def _publications(channel: str, rows: Sequence[Sequence[Any]], payloads: bytes) -> tuple[Publication, ...]:
    found, start = [], 0
    for entry, size, *rest in rows:
        found.append(publication(channel, offset_of(entry), payloads[start : start + size], rest))
        start += size
    return tuple(found)
