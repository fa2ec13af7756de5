"""How late this process is itself, so that it is not taken for the other side's slowness.

An answer that lies in a socket while the reactor does something else, or while other processes have the processor, looks like a
slow one. If it were taken for one, more work than can be done would lower the concurrency, and so what can be done.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL = 0.02
"""Seconds between two looks, while anything is under way: finer than any latency that a policy cares for."""

FADE = 0.8
"""What is left of an earlier lag at the next look: a turn that was long is forgotten in some tenths of a second."""

SHARE = 3.0
"""How often a request can meet the lag: before it is written, before its answer is read, and among what is read with it."""


class LoopLag:
    """`wanted`: whether anybody is under way; asked at each look, which is the last if not. `allowance`: seconds of a latency that
    may be our own."""

    __slots__ = ("_call", "_clock", "_due_at", "_lag", "_wanted", "allowance", "running")

    def __init__(self, clock: IReactorTime, wanted: Callable[[], bool]) -> None:
        self._clock = clock
        self._wanted = wanted
        self._call: IDelayedCall | None = None
        self._due_at = 0.0
        self._lag = 0.0
        self.allowance = 0.0
        self.running = False

    def run(self) -> None:
        """Looks from now on, until it is not wanted."""
        self.running = True
        self._due_at = self._clock.seconds() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """Looks no more, whatever is wanted."""
        call, self._call = self._call, None
        self.running = False
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        late = max(0.0, self._clock.seconds() - self._due_at)
        self._lag = max(late, self._lag * FADE)
        self.allowance = self._lag * SHARE
        if self._wanted():
            self.run()
        else:
            self.running = False
            self._lag = self.allowance = 0.0
