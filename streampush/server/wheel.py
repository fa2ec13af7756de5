"""A timing wheel for the deadlines of all connections: constant cost per operation, no timer per connection.

Time is an input; the owner calls `advance` once a tick. Deadlines are rounded up to whole ticks, so an item is never due early
and at most one tick late.

The wheel is lazy: a deadline that moves later does not touch it. `schedule` keeps the earlier entry, the item falls due then,
and the caller asks it for its true deadline and schedules it again. A heartbeat that every frame pushes back thus costs nothing
per frame and one re-schedule per interval.

Deadlines beyond one round (`tick * slots` seconds) stay in their slot and are passed over until their round comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

NOT_SCHEDULED = -1


class Scheduled(Protocol):
    """What the wheel asks of an item: an attribute that is the wheel's own, at first NOT_SCHEDULED, and identity as its hash."""

    wheel_tick: int


T = TypeVar("T", bound=Scheduled)


class TimingWheel(Generic[T]):
    """Items with deadlines; `tick` in seconds, `slots` ticks to a round, `now` on the caller's monotonic clock.

    Raises ValueError for a tick or a number of slots that is not positive.
    """

    __slots__ = ("_count", "_origin", "_slots", "_tick", "_ticks")

    def __init__(self, tick: float, slots: int, now: float) -> None:
        if not tick > 0 or slots < 1:
            raise ValueError("a timing wheel needs a positive tick and at least one slot")
        self._tick = tick
        self._origin = now
        self._ticks = 0  # the last tick that `advance` has dealt with
        self._slots: list[set[T]] = [set() for _ in range(slots)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        """Every scheduled item, in no order; the wheel must not change meanwhile."""
        for slot in self._slots:
            yield from slot

    def schedule(self, item: T, deadline: float) -> None:
        """Makes the item fall due at `deadline` or, if it is scheduled already, at the earlier of both times.

        A deadline in the past falls due with the next tick; an infinite one takes the item out.
        """
        if deadline == math.inf:
            self.remove(item)
            return
        tick = max(math.ceil((deadline - self._origin) / self._tick), self._ticks + 1)
        scheduled = item.wheel_tick
        if scheduled != NOT_SCHEDULED:
            if scheduled <= tick:
                return
            self._slots[scheduled % len(self._slots)].discard(item)
        else:
            self._count += 1
        item.wheel_tick = tick
        self._slots[tick % len(self._slots)].add(item)

    def remove(self, item: T) -> None:
        """Takes the item out; nothing happens if it is not in."""
        if item.wheel_tick != NOT_SCHEDULED:
            self._slots[item.wheel_tick % len(self._slots)].discard(item)
            item.wheel_tick = NOT_SCHEDULED
            self._count -= 1

    def advance(self, now: float) -> list[T]:
        """The items whose deadline has come by `now`, taken out of the wheel; those of an earlier tick first.

        A clock that goes back gives nothing. Cost: the slots passed over, at most all of them once, and their items.
        """
        reached = math.floor((now - self._origin) / self._tick)
        due: list[T] = []
        slots = len(self._slots)
        whole_rounds = reached - self._ticks >= slots
        for tick in range(self._ticks + 1, min(reached, self._ticks + slots) + 1):
            index = tick % slots
            items = self._slots[index]
            if items:
                self._take(index, items, reached, due)
        if whole_rounds:
            due.sort(key=lambda item: item.wheel_tick)
        self._ticks = max(self._ticks, reached)
        for item in due:
            item.wheel_tick = NOT_SCHEDULED
        self._count -= len(due)
        return due

    def _take(self, index: int, items: set[T], reached: int, due: list[T]) -> None:
        # a new set, because one that was large once would keep its table
        self._slots[index] = later = set()
        for item in items:
            if item.wheel_tick <= reached:
                due.append(item)
            else:
                later.add(item)
