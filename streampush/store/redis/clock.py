"""Whether this machine and that of Redis agree on the time.

What nodes keep in Redis is dated by each node's own clock, so theirs must agree; Redis's is the one that all can look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger

CLOCKS_APART = 5.0
"""Seconds above which something is wrong, and is said: before other nodes take this one for gone (server.membership.LEASE)."""

MAX_ASKING = 1.0
"""Seconds that an answer with the time may take to be worth anything."""


class RedisClock:
    """Compares both. `wall_ms` gives Unix milliseconds; `measured` is told by how many seconds this machine's is ahead."""

    _log = Logger(namespace="streampush.store")

    def __init__(self, wall_ms: Callable[[], int], measured: Callable[[float], None]) -> None:
        self.wall_ms = wall_ms
        self.ahead_ms = 0
        """By how much this machine's clock is ahead, if that is more than it should be; else 0."""
        self._measured = measured
        self._is_apart = False

    def compare(self, about: Mapping[str, str], asked_ms: int) -> None:
        """Looks at what `INFO server` says, which was asked for at that time and answered now."""
        told, now_ms = about.get("server_time_usec", ""), self.wall_ms()
        if not told.isdecimal() or now_ms - asked_ms > MAX_ASKING * 1000:
            return
        ahead = (asked_ms + now_ms) / 2000 - int(told) / 1_000_000
        self._measured(ahead)
        self.ahead_ms = int(ahead * 1000) if ahead > CLOCKS_APART else 0
        was_apart, self._is_apart = self._is_apart, abs(ahead) > CLOCKS_APART
        if self._is_apart and not was_apart:
            self._log.error(
                "the clock of this machine is {seconds:.1f} s {direction} that of Redis's machine: messages expire and come at"
                " wrong times, and nodes count as gone; set the one that is wrong (NTP), and restart what ran on that machine",
                seconds=abs(ahead),
                direction="ahead of" if ahead > 0 else "behind",
            )
