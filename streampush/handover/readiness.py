"""A process that follows another says so when it is ready, and gives up if it does not become so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

READY_TIMEOUT: Final = 60.0
"""Seconds in which a process that follows another must become ready; else it gives up, and the other one goes on."""

LOOK_INTERVAL: Final = 0.05
"""Seconds between two looks at whether it is."""


class ReadyWatch:
    """Calls `done` once, as soon as `ready` says so. Where it does not in time the process ends by SIGTERM: the status, which is
    not 0 then, tells whoever started it.
    """

    _log = Logger(namespace="streampush.handover")

    def __init__(self, reactor: Any, ready: Callable[[], tuple[bool, tuple[str, ...]]], done: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ready = ready
        self._done = done
        self._call: IDelayedCall | None = None
        self._give_up_at = 0.0
        self._stopped = False

    def start(self) -> None:
        """Looks when the reactor runs, and then again and again."""
        self._give_up_at = self._reactor.seconds() + READY_TIMEOUT
        self._reactor.callWhenRunning(self._look)

    def stop(self) -> None:
        """Leaves no timer behind. Stopping twice is harmless."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._stopped:
            return
        ready, reasons = self._ready()
        if ready:
            self._stopped = True
            self._done()
        elif self._reactor.seconds() < self._give_up_at:
            self._call = self._reactor.callLater(LOOK_INTERVAL, self._look)
        else:
            self._log.error("not ready within {limit} s, giving up: {reasons}", limit=READY_TIMEOUT, reasons="; ".join(reasons))
            os.kill(os.getpid(), signal.SIGTERM)
