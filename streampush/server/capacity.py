"""How many clients this node can take in a second: measured in CPU time at those that it takes. Sans-IO, time is an input.

The CPU seconds inside OpenSSL say what a handshake costs, whatever else the machine does. What comes with it, from accept to the
device's subscriptions in the store, costs more than the handshake, and is spread over many turns: it is what the whole process
used while many came, less the handshakes, and less what it used just before, while few came. What may be spent on all of it is a
share of one core, because a process of Python has one; the rest is for what the connections do once they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Final

ASSUMED_COST: Final = 0.0015
"""CPU seconds of a full handshake with a client's certificate, until some were made: twice what it takes on a machine of 2024."""

ASSUMED_REST: Final = 0.003
"""CPU seconds of all else that a new connection costs, until many came at once."""

MOST_REST: Final = 0.03
"""CPU seconds. More than this is other work that began at the same time."""

SPAN: Final = 2.0
"""Seconds at least, over which the process's CPU time is shared out among those who came."""

LONG_SPAN: Final = 10.0
"""Seconds in which so few came that what was used is what the process uses without them."""

SPANS: Final = 5
"""The mean of what comes with a handshake goes back about so many spans."""

MEASURED_AFTER: Final = 20
"""Full handshakes; the first ones also pay for what is loaded and cached once. And how many must come in a span to measure by."""

REMEMBERED: Final = 100
"""Handshakes that the mean goes back, about: a machine that is slowed down is noticed within the first seconds of a storm."""

WINDOW: Final = 10.0
"""Seconds over which the present rate is taken."""


class HandshakeCapacity:
    """`share`: of one core, for those who come. `most`: handshakes per second that are let in, whatever they cost.

    `cpu` gives the CPU seconds of the process so far.
    """

    def __init__(self, share: float, most: float, cpu: Callable[[], float]) -> None:
        self._share = share
        self._most = most
        self._full = _Mean(REMEMBERED)
        self._resumed = _Mean(REMEMBERED)
        self._rest = _Rest(cpu)
        self._recent = 0.0
        self._counted_at = 0.0

    def made(self, seconds: float, now: float, *, resumed: bool) -> None:
        """A handshake has succeeded and took so many CPU seconds; `now` in monotonic seconds."""
        (self._resumed if resumed else self._full).add(seconds)
        self._rest.came(seconds, now)
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
    def rest_cost(self) -> float:
        """CPU seconds of all that comes with a handshake."""
        return self._rest.cost

    @property
    def per_second(self) -> float:
        """Clients per second, with full handshakes: one who comes from another node has no session to resume here."""
        return min(self._most, self._share / max(self.full_cost + self.rest_cost, 1e-6))

    def recent(self, now: float) -> float:
        """Handshakes per second of the last seconds."""
        return self._decayed(now) / WINDOW

    def free(self, now: float) -> float:
        """Handshakes per second that are left beside those of the last seconds."""
        return max(0.0, self.per_second - self.recent(now))

    def _decayed(self, now: float) -> float:
        return self._recent * exp(-max(0.0, now - self._counted_at) / WINDOW)


class _Rest:
    """What comes with a handshake, see the module's text."""

    def __init__(self, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._mean = _Mean(SPANS)
        self._usual = _Mean(SPANS)  # CPU seconds a second while few come
        self._began: tuple[float, float] | None = None  # the span, in monotonic and in CPU seconds
        self._came = 0
        self._shaken = 0.0

    @property
    def cost(self) -> float:
        """CPU seconds."""
        return self._mean.value if self._mean.count else ASSUMED_REST

    def came(self, seconds: float, now: float) -> None:
        """A handshake of so many CPU seconds."""
        if self._began is not None:
            self._came += 1
            self._shaken += seconds
            span = now - self._began[0]
            if span < (SPAN if self._came >= MEASURED_AFTER else LONG_SPAN):
                return
            self._share_out(span, self._cpu() - self._began[1])
        self._began = (now, self._cpu())
        self._came, self._shaken = 0, 0.0

    def _share_out(self, span: float, used: float) -> None:
        if self._came >= MEASURED_AFTER:
            each = (used - self._usual.value * span - self._shaken) / self._came
            self._mean.add(min(max(each, 0.0), MOST_REST))
        else:
            self._usual.add(max(0.0, used - self._shaken - self._came * self.cost) / span)


class _Mean:
    """Of all at first, then of the newer ones, about `remembered`."""

    __slots__ = ("_remembered", "count", "value")

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self.count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) / min(self.count, self._remembered)
