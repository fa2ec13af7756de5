"""The queues of all workers, and which of them the kernel gives connections to."""

from __future__ import annotations

from collections.abc import Collection

from streampush.handover.inherited import STREAM
from streampush.supervisor.queues import Queue
from streampush.supervisor.steering import Group


class Doors:
    """`queues` of each worker; `by_address`: devices are given to workers by their address. `inherited`: names of the queues that
    listened before, in the order in which they began to."""

    def __init__(self, queues: list[list[Queue]], *, by_address: bool, inherited: Collection[str] = ()) -> None:
        self._queues = queues
        self._avoided: frozenset[int] = frozenset()
        self._groups: dict[str, Group] = {}  # none of what is shared, or has queues of workers that are no more
        for name in [queue.name for queue in queues[0] if not queue.is_shared]:
            numbers = _numbers(name, inherited)
            if all(1 <= number <= len(queues) for number in numbers):
                self._groups[name] = Group(len(queues), by_address=by_address and name == STREAM, listening=numbers)

    def open(self, number: int) -> None:
        """The worker's queues take connections. Raises OSError."""
        for queue in self._queues[number - 1]:
            queue.listen()
            if queue.name in self._groups:
                self._groups[queue.name].listens(number)
        self._steer()

    def park(self, number: int) -> None:
        """What waits for the worker is reset, and the others get what is new. Raises OSError."""
        for queue in self._queues[number - 1]:
            queue.park()
            if queue.name in self._groups:
                self._groups[queue.name].closed(number)
        self._steer()

    def avoid(self, numbers: frozenset[int]) -> None:
        """What is new goes to other workers than these. (Who accepts from a shared queue takes what he wants.)"""
        self._avoided = numbers
        self._steer()

    def listening(self) -> list[tuple[int, Queue]]:
        """The queues with the numbers of their workers, in the order in which they began to listen; those that do not come last."""
        return sorted(
            ((number, queue) for number, pair in enumerate(self._queues, 1) for queue in pair),
            key=lambda found: self._place(*found),
        )

    def _place(self, number: int, queue: Queue) -> int:
        order = self._groups[queue.name].order if queue.name in self._groups else ()
        return order.index(number) if number in order else len(self._queues)

    def _steer(self) -> None:
        for name, group in self._groups.items():
            if group.order:
                first = self._queues[group.order[0] - 1]
                group.steer(next(queue.socket for queue in first if queue.name == name), self._avoided)


def _numbers(name: str, inherited: Collection[str]) -> list[int]:
    """Of those workers whose queue of this name listened."""
    parts = (each.partition(".") for each in inherited)
    return [int(number) for kind, _, number in parts if kind == name and number.isdigit()]
