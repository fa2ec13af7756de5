"""What is written of publications that wait for their time; and taking messages back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Priority
from streampush.push.values import Appended, Draft
from streampush.store.packing import CLEAR_ON_PROCESSED, WANTS_RECEIPT, unpack_headers
from streampush.store.sqlite.appending import Appending
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.recalling import Recalling, TakenBack
from streampush.store.sqlite.rows import as_json

SCHEDULED_COLUMNS = (
    "channel, message_id, payload, published_at, expires_at, content_type, headers, priority, collapse_key, version,"
    " deliver_at, flags, publisher, fallback"
)


def scheduled_draft(row: Sequence[Any]) -> Draft:
    """A draft from its SCHEDULED_COLUMNS."""
    channel, message_id, payload, published_at, expires_at, content_type, headers, priority, key, version, at, flags, *rest = row
    publisher, fallback = rest
    return Draft(
        channel,
        message_id,
        payload,
        published_at,
        expires_at,
        content_type,
        unpack_headers(headers),
        Priority(priority),
        key,
        version,
        at,
        bool(flags & WANTS_RECEIPT),
        bool(flags & CLEAR_ON_PROCESSED),
        publisher,
        fallback=fallback,
    )


class Waiting:
    """The writer's part of schedule and recall."""

    def __init__(self, ledger: Ledger, appending: Appending, recalling: Recalling) -> None:
        self._ledger = ledger
        self._appending = appending
        self._recalling = recalling

    def fire_due(self, now_ms: int, limit: int) -> list[Appended]:
        """See push.store_ports.LogStore.fire_due."""
        db = self._ledger.db
        rows = db.execute(
            f"SELECT id, weight, {SCHEDULED_COLUMNS} FROM scheduled WHERE deliver_at <= ? ORDER BY deliver_at, id LIMIT ?",
            (now_ms, limit),
        ).fetchall()
        if not rows:
            return []
        self._unschedule([(row[0], row[1]) for row in rows])
        return self._appending.fire([scheduled_draft(row[2:]) for row in rows], now_ms)

    def _unschedule(self, rows: Sequence[tuple[int, int]]) -> None:
        ids = as_json([number for number, _ in rows])
        self._ledger.db.execute("DELETE FROM scheduled WHERE id IN (SELECT value FROM json_each(?))", (ids,))
        self._ledger.totals.scheduled -= len(rows)
        self._ledger.totals.bytes -= sum(weight for _, weight in rows)

    def recall(self, message_id: str, notice_id: str, at_ms: int, now_ms: int) -> Appended | None:
        """See push.store_ports.MessageStore.recall."""
        ledger = self._ledger
        waiting = ledger.db.execute("SELECT id, weight FROM scheduled WHERE message_id = ?", (message_id,)).fetchone()
        if waiting is not None:
            self._unschedule([waiting])
            return None
        found = ledger.db.execute(
            "SELECT id, recalled_at, recalls, weight - length(content_type), publisher FROM entries"
            " WHERE message_id = ? ORDER BY id DESC LIMIT 1",
            (message_id,),
        ).fetchone()
        if found is None or found[2]:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        entry, recalled_at, _, freed, publisher = found
        if recalled_at:
            return None
        taken = TakenBack(entry, message_id, freed, publisher, notice_id, at_ms)
        return self._recalling.take_back([taken], now_ms)[0]
