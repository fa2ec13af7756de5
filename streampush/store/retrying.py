"""What the store could not do is tried again later, and no more when the node has ended."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL = 1.0
"""Seconds before something that the store could not do is tried again."""


class Retries:
    """Calls what it is given a while later, until it is stopped."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: set[IDelayedCall] = set()
        self._stopped = False

    def later(self, work: Callable[[], None]) -> None:
        """Calls `work` once, INTERVAL seconds from now."""
        if self._stopped:
            return

        def due() -> None:
            self._calls.discard(call)
            work()

        call = self._clock.callLater(INTERVAL, due)
        self._calls.add(call)

    def stop(self) -> None:
        """Leaves no timer behind: with a store that is away to the very end nothing more can be done."""
        self._stopped = True
        for call in self._calls:
            call.cancel()
        self._calls.clear()
