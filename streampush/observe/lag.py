"""How late the reactor is: the one figure that says that something blocked it."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger


class LagMetrics(Protocol):
    """Where measurements go."""

    def reactor_lag(self, seconds: float) -> None:
        """A timer fired `seconds` late."""


class LagWatch:
    """Measures, every `interval` seconds, how late its own timer fires."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, metrics: LagMetrics, interval: float = 0.5) -> None:
        self._clock = clock
        self._metrics = metrics
        self._interval = interval
        self._call: IDelayedCall | None = None
        self._deadline = 0.0

    def start(self) -> None:
        """Begins to measure. Starting twice is harmless."""
        if self._call is None:
            self._schedule()

    def stop(self) -> None:
        """Leaves no timer behind. Stopping twice is harmless."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _schedule(self) -> None:
        self._deadline = self._clock.seconds() + self._interval
        self._call = self._clock.callLater(self._interval, self._fire)

    def _fire(self) -> None:
        late = max(0.0, self._clock.seconds() - self._deadline)
        self._schedule()  # first: what goes wrong below must not end the watch
        try:
            self._metrics.reactor_lag(late)
        except Exception:  # noqa: BLE001 - the owner of this timer is nobody but us; the failure is logged
            self._log.failure("reactor lag was not counted")
