"""How many TLS handshakes this node can make in a second: measured in CPU time at those that it makes. Sans-IO, time is an input.

The CPU seconds inside OpenSSL say what a handshake costs, whatever else the machine does. What may be spent on them is a share of
one core, because a process of Python has one; the rest is for what comes with them, such as the greetings, and for what the
connections do once they are there.
"""

from __future__ import annotations

from math import exp
from typing import Final

ASSUMED_COST: Final = 0.0015
"""CPU seconds of a full handshake with a client's certificate, until some were made: twice what it takes on a machine of 2024."""

MEASURED_AFTER: Final = 20
"""Full handshakes; the first ones also pay for what is loaded and cached once."""

REMEMBERED: Final = 100
"""Handshakes that the mean goes back, about: a machine that is slowed down is noticed within the first seconds of a storm."""

WINDOW: Final = 10.0
"""Seconds over which the present rate is taken."""


class HandshakeCapacity:
    """`share`: of one core, for handshakes. `most`: handshakes per second that are let in, whatever they cost."""

    def __init__(self, share: float, most: float) -> None:
        self._share = share
        self._most = most
        self._full = _Mean()
        self._resumed = _Mean()
        self._recent = 0.0
        self._counted_at = 0.0

    def made(self, seconds: float, now: float, *, resumed: bool) -> None:
        """A handshake has succeeded and took so many CPU seconds; `now` in monotonic seconds."""
        (self._resumed if resumed else self._full).add(seconds)
        self._recent = self._decayed(now) + 1.0
        self._counted_at = now

    @property
    def is_measured(self) -> bool:
        """Whether the figures come from handshakes that were made."""
        return self._full.count >= MEASURED_AFTER

    @property
    def full_cost(self) -> float:
        """CPU seconds of a full handshake."""
        return self._full.value if self.is_measured else ASSUMED_COST

    @property
    def resumed_cost(self) -> float:
        """CPU seconds of a handshake that resumes a session; 0.0 if there was none."""
        return self._resumed.value

    @property
    def per_second(self) -> float:
        """Full handshakes per second: one who comes from another node has no session to resume here."""
        return min(self._most, self._share / max(self.full_cost, 1e-6))

    def recent(self, now: float) -> float:
        """Handshakes per second of the last seconds."""
        return self._decayed(now) / WINDOW

    def free(self, now: float) -> float:
        """Handshakes per second that are left beside those of the last seconds."""
        return max(0.0, self.per_second - self.recent(now))

    def _decayed(self, now: float) -> float:
        return self._recent * exp(-max(0.0, now - self._counted_at) / WINDOW)


class _Mean:
    """Of all at first, then of the newer ones."""

    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) / min(self.count, REMEMBERED)
