"""When to connect again after a failure, and when to tell those who wait. Pure: time and chance are inputs."""

from __future__ import annotations

from random import Random

from streampush.apns.link_state import LinkEnd
from streampush.apns.pool_limits import PoolLimits
from streampush.backoff import doubled


class Redialing:
    """Exponential backoff with full jitter. A failure is a connection that ended before it was of use.

    `next_at`: not before that. `failures`: in a row. `last`: the latest, None after a success.
    """

    __slots__ = ("_failing_since", "_limits", "_random", "failures", "last", "next_at")

    def __init__(self, limits: PoolLimits, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._failing_since = 0.0
        self.next_at = float("-inf")
        self.failures = 0
        self.last: LinkEnd | None = None

    def failed(self, end: LinkEnd, now: float) -> None:
        """A connection failed."""
        if self.last is None or now - self.next_at > 2 * self._limits.max_backoff:  # an old failure says nothing of this one
            self._failing_since = now
            self.failures = 0
        top = doubled(self._limits.first_backoff, self.failures, self._limits.max_backoff)
        self.next_at = now + self._random.uniform(0.0, top)
        self.failures += 1
        self.last = end

    def succeeded(self) -> None:
        """A connection was of use."""
        self.failures = 0
        self.last = None
        self.next_at = float("-inf")

    def hopeless(self, now: float) -> bool:
        """Whether waiting is of no use now: it will be the same again, or has been for long, and the next try is yet to come."""
        if self.last is None or now >= self.next_at:
            return False
        return self.last.permanent or now - self._failing_since >= self._limits.connect_patience
