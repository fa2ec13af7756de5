"""One sweep of the file: a bounded number of old things go. Called again and again, between other work."""

from __future__ import annotations

from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.retention import Retention
from streampush.store.sqlite.rows import as_json

CHANNELS = 100
"""Channels of which a sweep drops what is too old."""

KEYS = 500
"""Idempotency keys that a sweep looks at."""

PAGES = 256
"""Pages of 4 KiB that a sweep gives back to the disk."""

SPARE_PAGES = 4096
"""Free pages that are kept for what comes next: giving them back and taking them again would be work for nothing."""


class Sweeping:
    """The writer's sweep. What it remembers is only where it goes on."""

    def __init__(self, ledger: Ledger, retention: Retention) -> None:
        self._ledger = ledger
        self._retention = retention
        self._last_key = 0

    def sweep(self, now_ms: int) -> bool:
        """Whether there is more to do at once."""
        more = self._retention.trim_more(now_ms, CHANNELS)
        more |= self._retention.free_any_expired(now_ms)
        more |= self._forget_keys(now_ms)
        more |= self._give_back()
        return more

    def _forget_keys(self, now_ms: int) -> bool:
        """Forgets expired idempotency keys among the next ones; begins anew at the end."""
        db = self._ledger.db
        last, count = db.execute(
            "SELECT max(id), count(*) FROM (SELECT id FROM idempotency WHERE id > ? ORDER BY id LIMIT ?)", (self._last_key, KEYS)
        ).fetchone()
        if not count:
            self._last_key = 0
            return False
        expired = db.execute(
            "SELECT scope, json_group_array(id), count(*) FROM idempotency"
            " WHERE id > ? AND id <= ? AND expires_at <= ? GROUP BY scope",
            (self._last_key, last, now_ms),
        ).fetchall()
        for scope, ids, gone in expired:
            db.execute("DELETE FROM idempotency WHERE id IN (SELECT value FROM json_each(?))", (ids,))
            db.execute("UPDATE scopes SET keys = keys - ? WHERE id = ?", (gone, scope))
            self._ledger.totals.keys -= gone
        scopes = as_json([row[0] for row in expired])
        db.execute("DELETE FROM scopes WHERE id IN (SELECT value FROM json_each(?)) AND keys = 0", (scopes,))
        self._last_key = last if count == KEYS else 0
        return bool(expired) and count == KEYS

    def _give_back(self) -> bool:
        """Gives free pages at the end of the file back to the disk, if there are many."""
        db = self._ledger.db
        spare: int = db.execute("PRAGMA freelist_count").fetchone()[0] - SPARE_PAGES
        if spare <= 0:
            return False
        for _ in range(min(PAGES, spare)):
            db.execute("PRAGMA incremental_vacuum(1)")  # gives back one page each time it is executed, whatever it is asked for
        return spare > PAGES
