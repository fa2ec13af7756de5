"""Tells the operator when the system's clock jumps: the process goes on with its own time (push/steady.py)."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streampush.push.steady import SteadyClock

INTERVAL = 1.0
"""Seconds between two looks."""


class ClockMetrics(Protocol):
    """Where measurements go."""

    def clock_deviation(self, seconds: float) -> None:
        """The system's clock is ahead of the process's by so much."""

    def clock_stepped(self) -> None:
        """The system's clock has jumped."""


class ClockWatch:
    """Looks at the system's clock every second, between `start` and `stop`."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, steady: SteadyClock, metrics: ClockMetrics) -> None:
        self._clock = clock
        self._steady = steady
        self._metrics = metrics
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begins. Starting twice is harmless."""
        if self._call is None:
            self._call = self._clock.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """Leaves no timer behind. Stopping twice is harmless."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = self._clock.callLater(INTERVAL, self._look)  # first: what goes wrong below must not end the watch
        try:
            step = self._steady.stepped()
            deviation = self._steady.deviation()
            self._metrics.clock_deviation(deviation)
            if step:
                self._metrics.clock_stepped()
                self._log.warn(
                    "the system's clock has jumped by {step} s; messages go on in the time from before, "
                    "which is {deviation} s behind it now: restart to adopt the system's clock",
                    step=round(step, 3),
                    deviation=round(deviation, 3),
                )
        except Exception:  # noqa: BLE001 - the owner of this timer is nobody but us; the failure is logged
            self._log.failure("the system's clock was not looked at")
