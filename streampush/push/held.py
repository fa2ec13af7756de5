"""Work that waits for a person: pushes that the push service refuses because of a key or certificate.

It is put off for minutes, in the store, because nobody knows when that is mended. When there is reason to believe that it is, after
a reload, what this process has put off is due at once. What another process has put off, one before this one too, has its time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from streampush.errors import StoreUnavailable
from streampush.push.ports import Spawner
from streampush.push.store_ports import OutboxStore

MAX_HELD = 20_000
"""Pieces of work that are remembered, some 300 bytes each. What is beyond, the oldest first, waits for its time in the store."""

BATCH = 500
"""Hastened in one step of the store."""


class Held:
    """`due` is told when some of it has become due, by its kind. `wall_ms` gives Unix milliseconds."""

    def __init__(
        self,
        store: OutboxStore,
        *,
        due: Callable[[str], None],
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
        wall_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._due = due
        self._spawn = spawn
        self._retry_later = retry_later
        self._wall_ms = wall_ms
        self._works: OrderedDict[tuple[str, str], None] = OrderedDict()  # kind and key
        self.mendings = 0
        """How often `mended` was called."""

    def __len__(self) -> int:
        return len(self._works)

    def add(self, kind: str, key: str, mendings: int) -> None:
        """This work was put off. `mendings`: as it was when that was decided; if there was one since, it is due at once."""
        self._works[kind, key] = None
        if len(self._works) > MAX_HELD:
            self._works.popitem(last=False)
        if mendings != self.mendings:
            self._hasten()

    def mended(self) -> None:
        """All of it is worth another try."""
        self.mendings += 1
        self._hasten()

    def _hasten(self) -> None:
        works, self._works = self._works, OrderedDict()
        by_kind: dict[str, list[str]] = {}
        for kind, key in works:
            by_kind.setdefault(kind, []).append(key)
        for kind, keys in by_kind.items():
            self._begin(kind, keys)

    def _begin(self, kind: str, keys: list[str]) -> None:
        self._spawn(self._run(kind, keys))

    async def _run(self, kind: str, keys: list[str]) -> None:
        while keys:
            try:
                await self._store.outbox_hasten(kind, keys[:BATCH], self._wall_ms())
            except StoreUnavailable:
                self._retry_later(partial(self._begin, kind, keys))
                return
            keys = keys[BATCH:]
            self._due(kind)
