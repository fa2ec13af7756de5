"""The deadlines of one connection."""

from __future__ import annotations

from math import inf

from streampush.apns.pool_limits import PoolLimits

IDS_END = 0.0
"""`worn_at` of a connection that is worn because its stream ids come to an end."""


class LinkTimes:
    """Seconds of the clock; inf: there is none.

    `connecting_until`: it is given up if it is not secure by then. `probing_until`: it counts as good then, without an answer.
    `closing_until`: it is reset then. `resting_until`: no new requests before that. `worn_at`: a successor is wanted.
    `idle_at`: the next look whether it was used. `doubt_at`: no PING for a late answer before that.
    """

    __slots__ = ("closing_until", "connecting_until", "doubt_at", "idle_at", "probing_until", "resting_until", "worn_at")

    def __init__(self, limits: PoolLimits, now: float, age: float) -> None:
        self.connecting_until = now + limits.connect_timeout
        self.probing_until = inf
        self.closing_until = inf
        self.resting_until = inf
        self.worn_at = now + age
        self.idle_at = now + limits.idle_timeout
        self.doubt_at = now

    def first(self) -> float:
        """When something has to be done. What is doubted is not: that comes with a late answer."""
        return min(self.connecting_until, self.probing_until, self.closing_until, self.resting_until, self.worn_at, self.idle_at)
