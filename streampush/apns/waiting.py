"""Requests that wait for room on a connection: few enough, small enough, not too long."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from streampush.apns.exchange import Exchange

E = TypeVar("E", bound=Exchange)

_FEW = 64  # places that are not worth cleaning


class Waiting(Generic[E]):
    """Earliest deadline first; among equals, first come. Bounded in number and bytes.

    Who is taken out of the middle (`Exchange.waiting` becomes False) leaves a place in the heap until it comes up, or until most
    places are such. `count`, `size`: how many wait, and their bytes.
    """

    __slots__ = ("_heap", "_max_count", "_max_size", "_number", "count", "size")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._heap: list[tuple[float, int, E]] = []  # due, number, who
        self._number = 0
        self.count = 0
        self.size = 0

    def __len__(self) -> int:
        return self.count

    def has_room(self, exchange: E) -> bool:
        """Whether one more may wait."""
        return self.count < self._max_count and self.size + exchange.size <= self._max_size

    def add(self, exchange: E, due: float) -> None:
        """It waits, until `due` at most. Room is not checked: what was on a connection may come back, which that bounds."""
        exchange.waiting = True
        self._number += 1
        self.count += 1
        self.size += exchange.size
        heappush(self._heap, (due, self._number, exchange))

    def remove(self, exchange: E) -> None:
        """It does not wait any more."""
        self._forget(exchange)
        if len(self._heap) > 2 * self.count + _FEW:
            self._heap = [entry for entry in self._heap if entry[2].waiting]
            heapify(self._heap)

    def pop(self) -> E | None:
        """The one with the earliest deadline; None: nobody waits."""
        heap = self._heap
        while heap:
            exchange = heappop(heap)[2]
            if exchange.waiting:
                self._forget(exchange)
                return exchange
        return None

    def due(self) -> float | None:
        """When the first has to go; None: nobody waits."""
        heap = self._heap
        while heap and not heap[0][2].waiting:
            heappop(heap)
        return heap[0][0] if heap else None

    def _forget(self, exchange: E) -> None:
        exchange.waiting = False
        self.count -= 1
        self.size -= exchange.size
