"""Work that is done again and again, one round at a time: the next begins so long after the last one is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streampush.errors import StoreUnavailable
from streampush.push.ports import Delayer, Spawner, Timer


class Rounds:
    """Does `work` every `interval` seconds between `start` and `stop`. A store that is away ends a round early, and no more than
    that; another failure of `work` is logged by `spawn`, and the rounds go on."""

    def __init__(self, interval: float, work: Callable[[], Awaitable[None]], *, call_later: Delayer, spawn: Spawner) -> None:
        self._interval = interval
        self._work = work
        self._call_later = call_later
        self._spawn = spawn
        self._running = False
        self._under_way = False
        self._timer: Timer | None = None

    def start(self) -> None:
        """The first round begins after the interval. Starting twice is harmless."""
        self._running = True
        self._next()

    def stop(self) -> None:
        """Leaves no timer behind; a round that is under way is the last one."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        if self._running and self._timer is None and not self._under_way:
            self._timer = self._call_later(self._interval, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._under_way = True
        self._spawn(self._round())

    async def _round(self) -> None:
        try:
            await self._work()
        except StoreUnavailable:
            return
        finally:
            self._under_way = False
            self._next()
