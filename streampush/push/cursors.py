"""Stored cursors, written in batches: acknowledgements come one by one, the store is asked once a turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable

from streampush.errors import StoreUnavailable
from streampush.push.ports import Scheduler, Spawner, Store
from streampush.push.values import CursorMove


class CursorWriter:
    """Collects cursor moves; the newest of a device and channel wins. What the store could not take is kept and tried again.

    Bounded by the number of (device, channel) pairs that are connected or were while the store was away.
    """

    def __init__(
        self, store: Store, call_soon: Scheduler, spawn: Spawner, retry_later: Callable[[Callable[[], None]], object]
    ) -> None:
        self._store = store
        self._call_soon = call_soon
        self._spawn = spawn
        self._retry_later = retry_later
        self._due: dict[tuple[str, str], CursorMove] = {}
        self._writing = False

    def move(self, move: CursorMove) -> None:
        """The cursor is stored soon."""
        self._due[move.device_id, move.channel] = move
        if not self._writing:
            self._writing = True
            self._call_soon(self._start)

    def forget(self, device_id: str, channel: str) -> None:
        """A move that is not stored yet is dropped: the device has unsubscribed."""
        self._due.pop((device_id, channel), None)

    def _start(self) -> None:
        self._spawn(self.flush())

    async def flush(self) -> None:
        """Stores what is due now."""
        while self._due:
            due, self._due = self._due, {}
            try:
                await self._store.move_cursors(tuple(due.values()))
            except StoreUnavailable:
                self._due = due | self._due
                self._retry_later(self._start)
                return
        self._writing = False
