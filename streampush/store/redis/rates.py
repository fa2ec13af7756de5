"""Buckets of tokens that all nodes share, in Redis. What a failover forgets of them is full again."""

from __future__ import annotations

from collections.abc import Callable

from streampush.errors import StoreUnavailable
from streampush.store.redis.link import RedisLink
from streampush.store.redis.scripts import Scripts


class RedisRates:
    """push.shared_rates.RateStore. `wall_ms` gives Unix milliseconds; the clocks of nodes may differ by some seconds."""

    def __init__(self, link: RedisLink, scripts: Scripts, wall_ms: Callable[[], int]) -> None:
        self._link = link
        self._scripts = scripts
        self._wall_ms = wall_ms

    async def take_tokens(self, bucket: str, wanted: int, rate: float, burst: int) -> tuple[int, float]:
        """See push.shared_rates.RateStore. Does not wait for a Redis that is away."""
        if not self._link.connected:
            raise StoreUnavailable(f"Redis is away: {self._link.reason}")
        taken, wait_ms = await self._scripts.run("take_tokens", bucket, wanted, rate, burst, self._wall_ms())
        return taken, wait_ms / 1000

    async def look_at_tokens(self, bucket: str, rate: float, burst: int) -> float:
        """See push.shared_rates.RateStore. Does not wait for a Redis that is away."""
        if not self._link.connected:
            raise StoreUnavailable(f"Redis is away: {self._link.reason}")
        return float(await self._scripts.run("look_at_tokens", bucket, rate, burst, self._wall_ms()))
