"""Stored cursors, written in batches: acknowledgements come one by one, the store is asked once a turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable

from streampush.errors import StoreUnavailable
from streampush.push.ports import Scheduler, Spawner, Store
from streampush.push.values import CursorMove


class CursorWriter:
    """Collects cursor moves; the furthest of a device and channel wins. What the store could not take is kept and tried again.

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
        self._under_way: list[dict[tuple[str, str], CursorMove]] = []
        self._writing = False

    def move(self, move: CursorMove) -> None:
        """The cursor is stored soon."""
        self._keep(move)
        self._begin()

    def _keep(self, move: CursorMove) -> None:
        key = move.device_id, move.channel
        known = self._due.get(key)
        if known is None or known.epoch != move.epoch or known.offset < move.offset:
            self._due[key] = move

    def forget(self, device_id: str, channel: str) -> None:
        """A move that is not stored yet is dropped: the device has unsubscribed."""
        for moves in (self._due, *self._under_way):
            moves.pop((device_id, channel), None)

    def pending(self, device_id: str, channel: str) -> CursorMove | None:
        """The move that is not stored yet, and without which a device that comes back would begin at the wrong place."""
        key = device_id, channel
        return next((moves[key] for moves in (self._due, *reversed(self._under_way)) if key in moves), None)

    def _begin(self) -> None:
        if not self._writing:
            self._writing = True
            self._call_soon(self._start)

    def _start(self) -> None:
        self._spawn(self.flush())

    async def flush(self) -> None:
        """Stores what is due now, or as soon as the store is there again."""
        while self._due:
            moves, self._due = self._due, {}
            self._under_way.append(moves)
            try:
                await self._store.move_cursors(tuple(moves.values()))
            except StoreUnavailable:
                newer, self._due = self._due, moves
                for move in newer.values():
                    self._keep(move)
                self._retry_later(self._start)
                return
            except Exception:
                # A fault of ours: these moves are given up, which costs repeats after a reconnect; the next ones are stored.
                self._writing = False
                if self._due:
                    self._begin()
                raise
            finally:
                self._under_way = [others for others in self._under_way if others is not moves]
        self._writing = False
