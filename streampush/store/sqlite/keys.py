"""Idempotency keys: what was answered to a request the first time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streampush.config import StoreConfig
from streampush.protocol.terms import Durability
from streampush.push.values import Accepted, Idempotency
from streampush.store.answers import FirstAnswer
from streampush.store.sqlite.ledger import Ledger
from streampush.store.sqlite.rows import as_json, read_list, read_many, write_many

_READ_SCOPES = "SELECT json_group_array(json_array(id, name, keys)) FROM scopes WHERE name IN (SELECT value FROM json_each(?))"
_READ_KEYS = (
    "SELECT json_group_array(json_array(scope, key, hex(fingerprint), expires_at, message_id, channel, position, epoch,"
    " superseded, deliver_at)) FROM wanted CROSS JOIN idempotency ON scope = a AND key = b"
)
_INSERT_KEYS = (
    "INSERT OR REPLACE INTO idempotency (scope, key, fingerprint, expires_at, message_id, channel, position, epoch,"
    " superseded, deliver_at) VALUES"
)
_FORGET_OLDEST = "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE scope = ? ORDER BY id LIMIT ?)"
_FORGET_OLDEST_OF_ALL = (
    "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE id > 0 ORDER BY id LIMIT ?) RETURNING scope"
)

FORGET_AT_LEAST = 100
"""Keys that one batch may forget beside twice as many as it brings: so many that a limit which was lowered is reached in time, and
so few that nobody waits for it."""


@dataclass(slots=True)
class _Scope:
    id: int
    keys: int
    changed: bool = False


class Keys:
    """The newest of each scope, and of all: see config.StoreConfig. `fetch`, then ask, then `write`, within one transaction."""

    def __init__(self, ledger: Ledger, limits: StoreConfig, durability: Durability) -> None:
        self._ledger = ledger
        self._per_scope = limits.max_idempotency_keys
        self._of_all = limits.max_idempotency_keys_total
        self._durability = durability
        self._scopes: dict[str, _Scope] = {}
        self._answers: dict[tuple[str, str], FirstAnswer] = {}
        self._new: list[tuple[Any, ...]] = []
        self._asked: Sequence[Idempotency] = ()

    def fetch(self, asked: Sequence[Idempotency]) -> None:
        """Reads what is known of these."""
        self._asked = asked
        self._scopes.clear()
        self._answers.clear()
        if not asked:
            return
        db = self._ledger.db
        names = as_json(list({one.scope for one in asked}))
        self._scopes = {name: _Scope(number, keys) for number, name, keys in read_list(db, _READ_SCOPES, (names,))}
        by_id = {scope.id: name for name, scope in self._scopes.items()}
        wanted = {(self._scopes[one.scope].id, one.key): None for one in asked if one.scope in self._scopes}
        for scope, key, fingerprint, expires_at, message_id, channel, position, epoch, superseded, deliver_at in read_many(
            db, _READ_KEYS, list(wanted)
        ):
            accepted = Accepted(
                message_id, channel, position, epoch, self._durability, superseded=bool(superseded), deliver_at_ms=deliver_at
            )
            self._answers[by_id[scope], key] = FirstAnswer(bytes.fromhex(fingerprint), expires_at, accepted)

    def fetch_again(self) -> None:
        """After a `write` with more to come: some of what was asked for may have gone."""
        self.fetch(self._asked)

    def answer(self, asked: Idempotency, now_ms: int, channel: str) -> Accepted | None:
        """The first answer. Raises Refused(DUPLICATE) if the key was used for another request."""
        found = self._answers.get((asked.scope, asked.key))
        return None if found is None else found.given_to(asked, now_ms, channel)

    def keep(self, asked: Idempotency, accepted: Accepted) -> None:
        """Keeps the first answer, to be written."""
        scope = self._scopes.get(asked.scope)
        if scope is None:
            row = self._ledger.db.execute("INSERT INTO scopes (name, keys) VALUES (?, 0) RETURNING id", (asked.scope,)).fetchone()
            scope = self._scopes[asked.scope] = _Scope(row[0], 0)
        if (asked.scope, asked.key) not in self._answers:
            scope.keys += 1
            self._ledger.totals.keys += 1
        scope.changed = True
        self._answers[asked.scope, asked.key] = FirstAnswer(asked.fingerprint, asked.expires_at_ms, accepted)
        self._new.append(
            (
                scope.id,
                asked.key,
                asked.fingerprint,
                asked.expires_at_ms,
                accepted.message_id,
                accepted.channel,
                accepted.offset,
                accepted.epoch,
                int(accepted.superseded),
                accepted.deliver_at_ms,
            )
        )

    def write(self) -> None:
        """Writes what was kept, and forgets the oldest keys of a scope that has too many, and of all if there are too many."""
        if not self._new:
            return
        db, totals = self._ledger.db, self._ledger.totals
        write_many(db, _INSERT_KEYS, self._new)
        at_most = 2 * len(self._new) + FORGET_AT_LEAST
        self._new.clear()
        for scope in self._scopes.values():
            if scope.changed:
                excess = scope.keys - self._per_scope
                if excess > 0:
                    gone = db.execute(_FORGET_OLDEST, (scope.id, min(excess, at_most))).rowcount
                    scope.keys -= gone
                    totals.keys -= gone
                db.execute("UPDATE scopes SET keys = ? WHERE id = ?", (scope.keys, scope.id))
                scope.changed = False
        if totals.keys > self._of_all:
            self._forget_oldest(min(totals.keys - self._of_all, at_most))

    def _forget_oldest(self, count: int) -> None:
        """Forgets so many keys, whose ever they are, and scopes that have none left."""
        db = self._ledger.db
        gone = Counter(scope for (scope,) in db.execute(_FORGET_OLDEST_OF_ALL, (count,)).fetchall())
        self._ledger.totals.keys -= gone.total()
        db.executemany("UPDATE scopes SET keys = keys - ? WHERE id = ?", [(keys, scope) for scope, keys in gone.items()])
        db.execute("DELETE FROM scopes WHERE id IN (SELECT value FROM json_each(?)) AND keys = 0", (as_json(list(gone)),))
        for name, scope in list(self._scopes.items()):
            scope.keys -= gone[scope.id]
            if not scope.keys:
                del self._scopes[name]
