"""The work of senders: kept, leased, done, and replaced by what it leads to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import OutboxEntry, OutboxWork
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.rows import as_json, read_list, read_many, write_many
from streampush.store.work import check, check_growth, new_among

_KNOWN = "SELECT json_group_array(json_array(kind, key)) FROM wanted CROSS JOIN outbox ON kind = a AND key = b"
_INSERT = "INSERT INTO outbox (kind, key, due_at, attempts, token, body) VALUES"
_HELD = """
SELECT json_group_array(json_array(o.id, o.token, o.kind, o.key, length(o.body))) FROM json_each(?) AS j
CROSS JOIN outbox AS o ON o.token = j.value AND o.token <> ''
"""
"""The last condition is what the index asks for."""
_RELEASE = """
UPDATE outbox SET due_at = json_extract(j.value, '$[1]'), token = '' FROM json_each(?) AS j
WHERE outbox.id = json_extract(j.value, '$[0]')
"""


class _Held(NamedTuple):
    """Work under a lease; `key` with its kind, `size` in bytes."""

    id: int
    key: tuple[str, str]
    size: int


class Outbox:
    """The writer's part of push.store_ports.OutboxStore."""

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
        """See push.store_ports.OutboxStore.outbox_add."""
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
        """See push.store_ports.OutboxStore.outbox_lease. A token is the entry's number and that of the attempt, used once."""
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

    def complete(self, batch: Sequence[tuple[str]]) -> list[bool]:
        """See push.store_ports.OutboxStore.outbox_complete, for many at once."""
        done = self.complete_all([token for (token,) in batch])
        return [_once(token, done) for (token,) in batch]

    def complete_all(self, tokens: Sequence[str]) -> set[str]:
        """The work under these leases is done; gives those of them that had not passed to somebody else."""
        held = self._held(tokens)
        self._delete(held.values())
        return set(held)

    def release(self, batch: Sequence[tuple[str, int]]) -> list[bool]:
        """See push.store_ports.OutboxStore.outbox_release, for many at once."""
        held = self._held([token for token, _ in batch])
        released: list[tuple[int, int]] = []
        answers = []
        for token, not_before_ms in batch:
            work = held.pop(token, None)
            answers.append(work is not None)
            if work is not None:
                released.append((work.id, not_before_ms))
        if released:
            self._ledger.db.execute(_RELEASE, (as_json(released),))
        return answers

    def hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        """See push.store_ports.OutboxStore.outbox_hasten."""
        self._ledger.db.execute(
            "UPDATE outbox SET due_at = ? WHERE kind = ? AND key IN (SELECT value FROM json_each(?)) AND token = '' AND due_at > ?",
            (not_before_ms, kind, as_json(list(keys)), not_before_ms),
        )

    def replace(self, batch: Sequence[tuple[str, Sequence[OutboxWork]]]) -> list[bool | Refused]:
        """See push.store_ports.OutboxStore.outbox_replace, for many at once: as if one came after the other."""
        held = self._held([token for token, _ in batch])
        known = self._known([work for token, works in batch if token in held for work in works])
        done: list[_Held] = []
        added: list[OutboxWork] = []
        answers: list[bool | Refused] = []
        for token, works in batch:
            work = held.get(token)
            if work is None:
                answers.append(False)
                continue
            known.discard(work.key)
            new = new_among(works, known.__contains__)
            try:
                check_growth(self._ledger.totals.outbox + len(added) - len(done), len(new), self._limits.max_outbox)
            except Refused as refused:
                known.add(work.key)
                answers.append(refused)
                continue
            answers.append(True)
            done.append(held.pop(token))
            added += new
            known.update((one.kind, one.key) for one in new)
        self._delete(done)
        self._insert(added)
        return answers

    def branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        """See push.store_ports.OutboxStore.outbox_branch. The new token is used once too: leases give none that ends so."""
        held = self._held([token]).get(token)
        if held is None:
            return None
        new = new_among(works, self._known(works).__contains__)
        totals = self._ledger.totals
        check_growth(totals.outbox, 1 + len(new), self._limits.max_outbox)
        follows = f"{token}+"
        self._ledger.db.execute("UPDATE outbox SET body = ?, token = ? WHERE id = ?", (body, follows, held.id))
        totals.bytes += len(body) - held.size
        self._insert(new)
        return follows

    # -------------------------------------------------------------------------------------------------------- inside

    def _held(self, tokens: Sequence[str]) -> dict[str, _Held]:
        """The work under these leases, by token; none of a lease that has passed to somebody else."""
        rows = read_list(self._ledger.db, _HELD, (as_json(list(dict.fromkeys(tokens))),))
        return {token: _Held(number, (kind, key), size) for number, token, kind, key, size in rows}

    def _delete(self, works: Collection[_Held]) -> None:
        if works:
            ids = as_json([work.id for work in works])
            self._ledger.db.execute("DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))", (ids,))
            self._count(-len(works), -sum(work.size for work in works))

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


def _once(token: str, done: set[str]) -> bool:
    """Whether the work was done under this lease, for the first one who asks."""
    there = token in done
    done.discard(token)
    return there
