"""Wall time that does not jump.

Theory of operation. Expiry, schedules and ids are in wall time, and a machine's wall clock can be set, by hand or by NTP, a day
forward or back at any moment. So the process takes the system's clock once, at its start, and goes on with the time since
boot, which nobody sets and which runs on while the machine is suspended. The difference to the system's clock is worn off
slowly, by at most one part in a hundred: small ones are gone soon, a jump of a day fires and expires nothing at once, and is
shown to the operator, who restarts the process to adopt it.
"""

from __future__ import annotations

from collections.abc import Callable

NANOSECONDS = 1_000_000_000

SLEW = 100
"""The difference is worn off by at most one part in this many of the time that passes: 36 s in an hour."""

STEP = 1.0
"""Seconds by which the system's clock must move against the time since boot to be called a jump: NTP slews less than that
between two readings."""

LOOK = 1_000_000
"""Nanoseconds between two looks at the system's clock: several readings of one millisecond, as a busy server makes, need one."""

DRIFT = 1_000
"""One part in this many of the time since the last look is no jump either: NTP slews by at most 500 parts in a million."""


class SteadyClock:
    """Unix time that goes on steadily. `system_ns` gives the system's wall clock, `boot_ns` the time since boot, nanoseconds.

    May be read from any thread; `stepped` belongs to one.
    """

    __slots__ = ("_boot_ns", "_seen", "_state", "_system_ns")

    def __init__(self, system_ns: Callable[[], int], boot_ns: Callable[[], int]) -> None:
        self._system_ns = system_ns
        self._boot_ns = boot_ns
        boot = boot_ns()
        difference = system_ns() - boot
        self._state = difference, boot  # wall time minus time since boot, as of that reading; replaced as a whole
        self._seen = difference, boot  # the same for the system's clock, at the last look of `stepped`

    def wall_ms(self) -> int:
        """Unix milliseconds; never goes back."""
        difference, at = self._state
        boot = self._boot_ns()
        if boot - at >= LOOK:
            difference = self._look(boot)
        return (boot + difference) // 1_000_000

    def deviation(self) -> float:
        """Seconds by which the system's clock is ahead of this one."""
        boot = self._boot_ns()
        return (self._system_ns() - boot - self._look(boot)) / NANOSECONDS

    def stepped(self) -> float:
        """Seconds by which the system's clock has jumped since the last call; 0.0 if it has not. To be asked every second or so."""
        boot = self._boot_ns()
        difference = self._system_ns() - boot
        before, before_boot = self._seen
        self._seen = difference, boot
        moved = (difference - before) / NANOSECONDS
        allowed = STEP + (boot - before_boot) / NANOSECONDS / DRIFT
        return moved if abs(moved) > allowed else 0.0

    def _look(self, boot: int) -> int:
        """Wall time minus time since boot, after a look at the system's clock if it is time for one."""
        difference, at = self._state
        if boot - at >= LOOK:
            most = (boot - at) // SLEW
            wanted = self._system_ns() - boot - difference
            difference += max(-most, min(most, wanted))
            self._state = difference, boot
        return difference
