"""Idempotency keys: what was answered to a request the first time."""

from __future__ import annotations

from collections import OrderedDict

from streampush.push.values import Accepted, Idempotency
from streampush.store.answers import FirstAnswer


class Keys:
    """Answers by scope and key, the oldest first; of each scope at most `per_scope`, of all at most `of_all`."""

    def __init__(self, per_scope: int, of_all: int) -> None:
        self._per_scope = per_scope
        self._of_all = of_all
        self._answers: OrderedDict[tuple[str, str], FirstAnswer] = OrderedDict()
        self._scopes: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, asked: Idempotency, now_ms: int, channel: str) -> Accepted | None:
        """The first answer. Raises Refused(DUPLICATE) if the key was used for another request."""
        found = self._answers.get((asked.scope, asked.key))
        return None if found is None else found.given_to(asked, now_ms, channel)

    def keep(self, asked: Idempotency, accepted: Accepted, now_ms: int) -> None:
        """Keeps the first answer, and forgets what has expired or is too much."""
        if (asked.scope, asked.key) in self._answers:
            self._forget(asked.scope, asked.key)
        self._answers[asked.scope, asked.key] = FirstAnswer(asked.fingerprint, asked.expires_at_ms, accepted)
        keys = self._scopes.setdefault(asked.scope, OrderedDict())
        keys[asked.key] = None
        if len(keys) > self._per_scope:
            self._forget(asked.scope, next(iter(keys)))
        if len(self._answers) > self._of_all:
            self._forget(*next(iter(self._answers)))
        self.sweep(2, now_ms)

    def sweep(self, at_most: int, now_ms: int) -> None:
        """Forgets the oldest keys, at most so many, while they have expired: all live equally long."""
        for _ in range(at_most):
            oldest = next(iter(self._answers), None)
            if oldest is None or self._answers[oldest].expires_at_ms > now_ms:
                return
            self._forget(*oldest)

    def _forget(self, scope: str, key: str) -> None:
        del self._answers[scope, key]
        keys = self._scopes[scope]
        del keys[key]
        if not keys:
            del self._scopes[scope]
