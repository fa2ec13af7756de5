"""Frees what is too old in the store in memory, a few channels at a time, so that no sweep is ever long."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streampush.store.memory import MemoryStore

INTERVAL = 0.5
"""Seconds between two sweeps."""

CHANNELS = 200
"""Channels looked at in one sweep: 100 000 channels are seen within about four minutes."""


class Sweeper:
    """Sweeps a MemoryStore between `start` and `stop`."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, store: MemoryStore) -> None:
        self._clock = clock
        self._store = store
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begins."""
        self._call = self._clock.callLater(INTERVAL, self._sweep)

    def stop(self) -> None:
        """Leaves no timer behind."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _sweep(self) -> None:
        self._call = self._clock.callLater(INTERVAL, self._sweep)
        try:
            self._store.sweep(CHANNELS)
        except Exception:  # noqa: BLE001 - a failed sweep must not end the sweeping; it is logged
            self._log.failure("sweeping the store failed")
