"""Appointments: when each client that was sent away may come back, so that they come evenly. Sans-IO, time is an input.

Whoever is told "later" without a time comes back with all the others. A slot is a time of its own; the next slot is `1 / rate`
behind it, so what was promised before counts by itself, and no two clients are told the same moment. docs/protocol.md section 12.1.
"""

from __future__ import annotations

from random import Random
from typing import Final

HORIZON: Final = 600.0
"""Seconds. Nobody is told to wait longer: by then much may have changed, and who comes too early gets another slot."""

MIN_RATE: Final = 1.0
"""Slots per second at the least: a node that can do nothing at the moment must not put everybody off for hours."""


class Slots:
    """Slots of one kind of place: this node, or the others."""

    def __init__(self, random: Random, horizon: float = HORIZON) -> None:
        self._random = random
        self._horizon = horizon
        self._first_at = 0.0  # where the present row of slots without a gap begins
        self._next_at = 0.0
        self._rate = MIN_RATE

    def wait(self, now: float) -> float:
        """Seconds until the next slot that is free."""
        return max(0.0, self._next_at - now)

    def promised(self, now: float) -> int:
        """About how many slots are given out and still to come."""
        return round(max(0.0, self._next_at - max(now, self._first_at)) * self._rate)

    def take(self, now: float, rate: float, earliest: float = 0.0) -> float:
        """Seconds from `now` (monotonic) to a slot that is nobody else's, not before `earliest` seconds.

        `rate`: how many may come in a second from here on; it may be another one each time. Behind the horizon the slots are full:
        then it is a random one of its second half, which spreads those who must ask again.
        """
        self._rate = max(rate, MIN_RATE)
        at = max(self._next_at, now + earliest)
        if at - now > self._horizon:
            return self._random.uniform(0.5, 1.0) * self._horizon
        if at > self._next_at:
            self._first_at = at
        self._next_at = at + 1.0 / self._rate
        return at - now
