"""The clocks of the machine, as a server needs them."""

from __future__ import annotations

import time
from typing import Any


def boot_ns() -> int:
    """Nanoseconds since the machine's boot, with the time that it was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def run_timers_steadily(reactor: Any) -> None:
    """From now on the reactor's timers go by the monotonic clock.

    Twisted's go by the wall clock: were that set forward, every heartbeat would be lost at once; set back, nothing would time
    out for as long. To be called early: what is scheduled already is scheduled anew.
    """
    waiting = [(max(0.0, call.getTime() - reactor.seconds()), call) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for delay, call in waiting:
        reactor.callLater(delay, call.func, *call.args, **call.kw)
        call.cancel()
