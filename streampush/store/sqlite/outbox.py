"""The work of senders: kept, leased, done, and replaced by what it leads to."""

from __future__ import annotations

from collections.abc import Sequence

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import OutboxEntry, OutboxWork
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.rows import as_json, read_list, read_many, write_many
from streampush.store.work import check, check_growth, new_among

_KNOWN = "SELECT json_group_array(json_array(kind, key)) FROM wanted CROSS JOIN outbox ON kind = a AND key = b"
_INSERT = "INSERT INTO outbox (kind, key, due_at, attempts, token, body) VALUES"
_LEASED = "WHERE token = ? AND token <> ''"
"""The second half is what the index asks for."""
_HELD = """
SELECT json_group_array(json_array(o.id, o.token, length(o.body))) FROM json_each(?) AS j
CROSS JOIN outbox AS o ON o.token = j.value AND o.token <> ''
"""


class Outbox:
    """The writer's part of push.ports.OutboxStore."""

    def __init__(self, ledger: Ledger, limits: StoreConfig) -> None:
        self._ledger = ledger
        self._limits = limits
        self._expected: list[OutboxWork] = []

    # ------------------------------------------------------------------------------------------- with a publication

    def check(self, channel: str) -> None:
        """Raises Refused(QUOTA_EXCEEDED) if there is as much work as may be."""
        check(self._ledger.totals.outbox, self._limits.max_outbox, channel)

    def expect(self, work: OutboxWork) -> None:
        """To be written by `write`, whatever the limits say, if there is none of its kind and key; counts from now on."""
        self._count(1, len(work.body))
        self._expected.append(work)

    def write(self) -> None:
        """Writes what is expected."""
        if self._expected:
            works, self._expected = self._expected, []
            self._count(-len(works), -sum(len(work.body) for work in works))
            self._insert(new_among(works, self._known(works).__contains__))

    # ------------------------------------------------------------------------------------------------------ the port

    def add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        """See push.ports.OutboxStore.outbox_add."""
        work = OutboxWork(kind, key, body, not_before_ms)
        totals = self._ledger.totals
        if self._known([work]):
            return False
        check(totals.outbox, self._limits.max_outbox)
        if totals.bytes + len(body) > self._limits.max_bytes:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {totals.bytes} bytes, its limit")
        self._insert([work])
        return True

    def lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> list[OutboxEntry]:
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

    def complete(self, token: str) -> bool:
        """See push.ports.OutboxStore.outbox_complete."""
        return bool(self.complete_all([token]))

    def complete_all(self, tokens: Sequence[str]) -> set[str]:
        """The work under these leases is done; gives those of them that had not passed to somebody else."""
        held = read_list(self._ledger.db, _HELD, (as_json(tokens),))
        if held:
            ids = as_json([number for number, _, _ in held])
            self._ledger.db.execute("DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))", (ids,))
            self._count(-len(held), -sum(size for _, _, size in held))
        return {token for _, token, _ in held}

    def release(self, token: str, not_before_ms: int) -> bool:
        """See push.ports.OutboxStore.outbox_release."""
        released = self._ledger.db.execute(f"UPDATE outbox SET due_at = ?, token = '' {_LEASED}", (not_before_ms, token))
        return released.rowcount > 0

    def replace(self, token: str, works: Sequence[OutboxWork]) -> bool:
        """See push.ports.OutboxStore.outbox_replace."""
        own = self._ledger.db.execute(f"SELECT kind, key FROM outbox {_LEASED}", (token,)).fetchone()
        if own is None:
            return False
        new = new_among(works, (self._known(works) - {own}).__contains__)
        check_growth(self._ledger.totals.outbox, len(new), self._limits.max_outbox)
        self.complete_all([token])
        self._insert(new)
        return True

    # -------------------------------------------------------------------------------------------------------- inside

    def _known(self, works: Sequence[OutboxWork]) -> set[tuple[str, str]]:
        """The kinds and keys that are there already."""
        keys = list(dict.fromkeys((work.kind, work.key) for work in works))
        return {(kind, key) for kind, key in read_many(self._ledger.db, _KNOWN, keys)}

    def _insert(self, works: Sequence[OutboxWork]) -> None:
        write_many(self._ledger.db, _INSERT, [(work.kind, work.key, work.not_before_ms, 0, "", work.body) for work in works])
        self._count(len(works), sum(len(work.body) for work in works))

    def _count(self, works: int, size: int) -> None:
        self._ledger.totals.outbox += works
        self._ledger.totals.bytes += size
