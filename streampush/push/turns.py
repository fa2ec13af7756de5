"""Taking turns: what reads a record and writes it back must not be crossed by another that does the same."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from twisted.internet.defer import Deferred


class _Queue:
    """Who waits for a key. `free`: whoever had the turn has given it back. `waking`: somebody is woken, further up the stack."""

    __slots__ = ("free", "waiting", "waking")

    def __init__(self) -> None:
        self.free = False
        self.waking = False
        self.waiting: deque[Deferred[None]] = deque()


class Turns:
    """One at a time for each key, first come, first served. `async with turns.of(key): ...`

    Holds nothing for a key that nobody has or waits for.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def of(self, key: str) -> Turn:
        """A turn at this key, not yet taken."""
        return Turn(self._queues, key)


class Turn:
    """See Turns. Used once. Whoever is cancelled while waiting is passed over."""

    __slots__ = ("_key", "_queues")

    def __init__(self, queues: dict[str, _Queue], key: str) -> None:
        self._queues = queues
        self._key = key

    async def __aenter__(self) -> None:
        queue = self._queues.get(self._key)
        if queue is None:
            self._queues[self._key] = _Queue()
            return
        mine: Deferred[None] = Deferred(queue.waiting.remove)
        queue.waiting.append(mine)
        await mine

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        queue = self._queues[self._key]
        queue.free = True
        if queue.waking:
            return  # each of those who wait may be done at once: a call within a call for each would end at Python's limit
        queue.waking = True
        while queue.free and queue.waiting:
            queue.free = False
            queue.waiting.popleft().callback(None)
        queue.waking = False
        if queue.free:
            del self._queues[self._key]
