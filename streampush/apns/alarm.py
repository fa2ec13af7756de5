"""One timer for many deadlines: whoever has them tells the first, and looks at all when it comes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """`ring` is called with the time, once for all that was asked for; it asks again for what is left.

    `at`: when it will be, or inf.
    """

    __slots__ = ("_call", "_clock", "_ring", "at")

    def __init__(self, clock: IReactorTime, ring: Callable[[float], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._call: IDelayedCall | None = None
        self.at = inf

    def set(self, at: float) -> None:
        """It comes no later than that: seconds of the clock."""
        if at >= self.at:
            return
        if self._call is not None:
            self._call.cancel()
        self.at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._due)

    def stop(self) -> None:
        """It does not come."""
        call, self._call = self._call, None
        self.at = inf
        if call is not None:
            call.cancel()

    def _due(self) -> None:
        now = max(self._clock.seconds(), self.at)  # a clock may come a rounding error too early
        self._call = None
        self.at = inf
        self._ring(now)
