"""How many pushes may be under way at once: additive increase, multiplicative decrease, within what the other side allows.

The other side's MAX_CONCURRENT_STREAMS says what it bears at most, not what is good. So the limit begins small and doubles with
each round of answers, until the first sign of too much; from then on it grows by a little a round, and shrinks by a part at each
sign. Signs are: refused streams, and answers that take much longer than the shortest rounds did. It grows only while it is used,
or an idle sender would have an untried limit.

What is "long" is measured against a base, the fastest round so far. Pushes that queue at the other side because we send too many
must not raise it, or the queue would justify itself; so it rises only while the limit is down at its start, where we are not the
reason. A service that has become slower for good is understood there, in some ten rounds, and doubling begins anew.

A round is as many answers as may be under way, and not shorter than `min_round`: about one round trip. The cost for an answer is
an addition or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConcurrencyPolicy:
    """Times in seconds."""

    start: int = 16
    """Pushes under way at first. Few enough for any server; six doublings are a thousand."""
    floor: int = 1
    """Fewest. With none under way nothing is ever learned again."""
    step: int = 4
    """What a round adds once doubling is over. Of a thousand, 0.4 %."""
    refused_factor: float = 0.5
    """What is left after a refusal: the other side said it in words."""
    slow_factor: float = 0.8
    """What is left after a slow round: a guess, so less."""
    slow_ratio: float = 2.0
    """A round is slow that takes this many times the base ..."""
    slow_slack: float = 0.05
    """... and this much more, which is noise on a fast network."""
    base_growth: float = 1.25
    """How fast the base rises, in a round that does not reach it with the limit down at its start: doubled in three rounds."""
    min_round: float = 0.02
    """Shortest round. In less, a reactor's turn brings a batch of answers that belong together."""
    max_round: float = 1.0
    """Longest: with few pushes a round of answers takes for ever."""
    cooldown: float = 0.1
    """Between two decreases: what was under way at the first is not a second sign."""


class Concurrency:
    """The limit of one app to one host. `limit` is read before each push, the rest is told afterwards."""

    __slots__ = (
        "_answers",
        "_base",
        "_ceiling",
        "_doubling",
        "_lowered_at",
        "_over_at",
        "_peak",
        "_policy",
        "_ripe_at",
        "_total",
        "limit",
    )

    _answers: int
    _total: float
    _peak: int
    _over_at: float
    _ripe_at: float

    def __init__(self, now: float, policy: ConcurrencyPolicy | None = None, ceiling: int = 1000) -> None:
        self._policy = policy or ConcurrencyPolicy()
        self._ceiling = max(ceiling, self._policy.floor)
        self._doubling = True
        self._base = 0.0
        self._lowered_at = float("-inf")
        self._begin(now)
        self.limit = min(max(self._policy.start, self._policy.floor), self._ceiling)
        """Pushes that may be under way."""

    @property
    def base(self) -> float:
        """Mean latency of the fastest round, in seconds; 0.0 before the first."""
        return self._base

    def allow(self, ceiling: int) -> None:
        """The other side takes so many now (the sum over its connections)."""
        self._ceiling = max(ceiling, self._policy.floor)
        self.limit = min(self.limit, self._ceiling)

    def answered(self, latency: float, in_flight: int, now: float) -> None:
        """An answer came after `latency` seconds, with `in_flight` pushes under way, itself included."""
        self.all_answered((latency,), in_flight, now)

    def all_answered(self, latencies: Sequence[float], in_flight: int, now: float) -> None:
        """Answers came together; `in_flight`: the most that were under way at one of them."""
        self._answers += len(latencies)
        self._total += sum(latencies)
        if in_flight > self._peak:
            self._peak = in_flight
        if now >= self._ripe_at and (self._answers >= self.limit or now >= self._over_at):
            self._round(now)

    def refused(self, now: float) -> None:
        """A stream was refused."""
        self._lower(self._policy.refused_factor, now)

    def _begin(self, now: float) -> None:
        """A round."""
        self._answers = 0
        self._total = 0.0
        self._peak = 0
        self._over_at = now + self._policy.max_round
        self._ripe_at = min(now + self._policy.min_round, self._over_at)  # not before that, however many answers came

    def _round(self, now: float) -> None:
        policy, mean = self._policy, self._total / self._answers
        is_low = self.limit <= policy.start
        if not self._base or mean < self._base:
            self._base = mean
        elif is_low:
            self._base = min(mean, self._base * policy.base_growth)
        was_used = self._peak * 4 >= self.limit * 3
        self._begin(now)
        if mean > self._base * policy.slow_ratio + policy.slow_slack:
            self._lower(policy.slow_factor, now)
        elif was_used:
            self._doubling = self._doubling or is_low
            self.limit = min(self.limit * 2 if self._doubling else self.limit + policy.step, self._ceiling)

    def _lower(self, factor: float, now: float) -> None:
        self._doubling = False
        if now - self._lowered_at < self._policy.cooldown:
            return
        self._lowered_at = now
        self.limit = max(int(self.limit * factor), self._policy.floor)
