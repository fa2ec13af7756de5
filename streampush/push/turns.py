"""Taking turns: what reads a record and writes it back must not be crossed by another that does the same."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from twisted.internet.defer import Deferred


class Turns:
    """One at a time for each key, first come, first served. `async with turns.of(key): ...`

    Holds nothing for a key that nobody has or waits for.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Deferred[None]]] = {}

    def of(self, key: str) -> Turn:
        """A turn at this key, not yet taken."""
        return Turn(self._waiting, key)


class Turn:
    """See Turns. Used once. Whoever is cancelled while waiting is passed over."""

    __slots__ = ("_key", "_waiting")

    def __init__(self, waiting: dict[str, deque[Deferred[None]]], key: str) -> None:
        self._waiting = waiting
        self._key = key

    async def __aenter__(self) -> None:
        queue = self._waiting.get(self._key)
        if queue is None:
            self._waiting[self._key] = deque()
            return
        mine: Deferred[None] = Deferred(queue.remove)
        queue.append(mine)
        await mine

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        queue = self._waiting[self._key]
        if queue:
            queue.popleft().callback(None)
        else:
            del self._waiting[self._key]
