"""Rates: token buckets, one per principal, in bounded number."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

DEFAULT_MAX_KEYS = 200_000


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up. Time is an input, in seconds of a monotonic clock."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens", "refused")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now
        self.refused = 0
        """How often there were too few tokens."""

    def level(self, now: float) -> float:
        """The tokens that are there now."""
        return min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)

    def take(self, now: float, amount: float = 1.0) -> float:
        """Takes the tokens and gives 0.0, or takes none and gives the seconds until they are there."""
        tokens, at = self._tokens, self._at
        if now > at:  # as `level`, without its calls: every request comes by here
            tokens += (now - at) * self._rate
            if tokens > self._burst:
                tokens = self._burst
            self._at = now
        if tokens >= amount:
            self._tokens = tokens - amount
            return 0.0
        self._tokens = tokens
        self.refused += 1
        return (amount - tokens) / self._rate


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket as it is: `rate` tokens a second come, `tokens` of `burst` are there, `refused` requests found too few on this node.

    `shared`: the tokens are those of all nodes together, else of this one.
    """

    rate: float
    burst: float
    tokens: float
    refused: int
    shared: bool = False


class KeyedBuckets:
    """A bucket for each key. Above `max_keys` the one that was not asked for longest is dropped, and begins full again."""

    __slots__ = ("_buckets", "_burst", "_max_keys", "_rate")

    def __init__(self, rate: float, burst: float, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """As TokenBucket.take, for one token of the key."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)

    def refused(self, key: str) -> None:
        """A request that was let through here was refused nevertheless: `look` shows it."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.refused += 1

    def look(self, key: str, now: float) -> Level:
        """What is left to the key; nothing is taken."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return Level(self._rate, self._burst, self._burst, 0)
        return Level(self._rate, self._burst, bucket.level(now), bucket.refused)
