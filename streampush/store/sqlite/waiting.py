"""What is written of things that wait: scheduled publications, the work of senders; and taking messages back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Priority
from streampush.push.values import Appended, Draft, OutboxEntry
from streampush.store.sqlite.appending import Appending
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.recalling import Recalling, TakenBack
from streampush.store.sqlite.rows import (
    CLEAR_ON_PROCESSED,
    WANTS_RECEIPT,
    as_json,
    read_list,
    unpack_headers,
)

SCHEDULED_COLUMNS = (
    "channel, message_id, payload, published_at, expires_at, content_type, headers, priority, collapse_key, version,"
    " deliver_at, flags, publisher"
)


def scheduled_draft(row: Sequence[Any]) -> Draft:
    """A draft from its SCHEDULED_COLUMNS."""
    channel, message_id, payload, published_at, expires_at, content_type, headers, priority, key, version, at, flags, publisher = (
        row
    )
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
    )


_LEASED = "WHERE token = ? AND token <> ''"
"""The second half is what the index asks for."""


class Waiting:
    """The writer's part of schedule, recall and outbox."""

    def __init__(self, ledger: Ledger, limits: StoreConfig, appending: Appending, recalling: Recalling) -> None:
        self._ledger = ledger
        self._limits = limits
        self._appending = appending
        self._recalling = recalling

    def fire_due(self, now_ms: int, limit: int) -> list[Appended]:
        """See push.ports.LogStore.fire_due."""
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
        """See push.ports.MessageStore.recall."""
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

    # ----------------------------------------------------------------------------------------------------------- outbox

    def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        """See push.ports.OutboxStore.outbox_add."""
        db, totals = self._ledger.db, self._ledger.totals
        if db.execute("SELECT 1 FROM outbox WHERE kind = ? AND key = ?", (kind, key)).fetchone() is not None:
            return False
        if totals.outbox >= self._limits.max_outbox:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {totals.outbox} entries of work, its limit")
        if totals.bytes + len(body) > self._limits.max_bytes:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {totals.bytes} bytes, its limit")
        db.execute(
            "INSERT INTO outbox (kind, key, due_at, attempts, token, body) VALUES (?, ?, ?, 0, '', ?)",
            (kind, key, not_before_ms, body),
        )
        totals.outbox += 1
        totals.bytes += len(body)
        return True

    def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> list[OutboxEntry]:
        """See push.ports.OutboxStore.outbox_lease. A token is the entry's number and that of the attempt: never used twice."""
        db = self._ledger.db
        rows = db.execute(
            "SELECT id, key, body, attempts FROM outbox WHERE kind = ? AND due_at <= ? ORDER BY due_at, id LIMIT ?",
            (kind, now_ms, limit),
        ).fetchall()
        ids = as_json([row[0] for row in rows])
        db.execute(
            "UPDATE outbox SET attempts = attempts + 1, due_at = ?, token = id || '-' || (attempts + 1)"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (now_ms + lease_ms, ids),
        )
        return [OutboxEntry(f"{number}-{attempts + 1}", kind, key, body, attempts + 1) for number, key, body, attempts in rows]

    def outbox_complete(self, token: str) -> bool:
        """See push.ports.OutboxStore.outbox_complete."""
        sizes = read_list(self._ledger.db, f"SELECT json_group_array(length(body)) FROM outbox {_LEASED}", (token,))
        if not sizes:
            return False
        self._ledger.db.execute(f"DELETE FROM outbox {_LEASED}", (token,))
        self._ledger.totals.outbox -= 1
        self._ledger.totals.bytes -= sizes[0]
        return True

    def outbox_release(self, token: str, not_before_ms: int) -> bool:
        """See push.ports.OutboxStore.outbox_release."""
        released = self._ledger.db.execute(f"UPDATE outbox SET due_at = ?, token = '' {_LEASED}", (not_before_ms, token))
        return released.rowcount > 0
