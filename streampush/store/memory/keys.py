"""Idempotency keys: what was answered to a request the first time."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from streampush.push.values import Accepted, Idempotency
from streampush.store.answers import FirstAnswer

MAX_KEYS = 1_000_000
"""Of all publishers together, memory; above it the oldest key of the publisher that used none for longest is forgotten."""


class Keys:
    """Answers by scope and key, the oldest first; of each scope at most `per_scope`."""

    def __init__(self, per_scope: int) -> None:
        self._per_scope = per_scope
        self._scopes: OrderedDict[str, OrderedDict[str, FirstAnswer]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def answer(self, asked: Idempotency, now_ms: int, channel: str) -> Accepted | None:
        """The first answer. Raises Refused(DUPLICATE) if the key was used for another request."""
        keys = self._scopes.get(asked.scope)
        found = None if keys is None else keys.get(asked.key)
        return None if found is None else found.given_to(asked, now_ms, channel)

    def keep(self, asked: Idempotency, accepted: Accepted, now_ms: int) -> None:
        """Keeps the first answer, and forgets what has expired or is too much."""
        keys = self._scopes.get(asked.scope)
        if keys is None:
            keys = self._scopes[asked.scope] = OrderedDict()
        self._scopes.move_to_end(asked.scope)
        if keys.pop(asked.key, None) is None:
            self._count += 1
        keys[asked.key] = FirstAnswer(asked.fingerprint, asked.expires_at_ms, accepted)
        if len(keys) > self._per_scope:
            keys.popitem(last=False)
            self._count -= 1
        self._purge(keys, now_ms, 2)
        if self._count > MAX_KEYS:
            self._forget_one()

    def sweep(self, scopes: int, keys: int, now_ms: int) -> None:
        """Forgets what has expired among so many keys of so many scopes, those not swept or used for longest."""
        for scope in list(islice(self._scopes, scopes)):
            answers = self._scopes[scope]
            self._purge(answers, now_ms, keys)
            if answers:
                self._scopes.move_to_end(scope)
            else:
                del self._scopes[scope]

    def _purge(self, keys: OrderedDict[str, FirstAnswer], now_ms: int, at_most: int) -> None:
        """Forgets the oldest keys while they have expired: all of a scope live equally long."""
        for _ in range(at_most):
            if not keys or next(iter(keys.values())).expires_at_ms > now_ms:
                return
            keys.popitem(last=False)
            self._count -= 1

    def _forget_one(self) -> None:
        scope, keys = next(iter(self._scopes.items()))
        keys.popitem(last=False)
        self._count -= 1
        if not keys:
            del self._scopes[scope]
