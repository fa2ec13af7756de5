"""What publishers and devices may ask for: by buckets of this node, and where there are others, by buckets of all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from streampush.config import PublishConfig
from streampush.errors import StoreUnavailable
from streampush.push.limits import KeyedBuckets, Level
from streampush.push.ports import Spawner
from streampush.push.shared_rates import RateStore, SharedRate
from streampush.push.values import Principal

SHARED = ("publisher", "key", "device")
"""Kinds of principals that may use several nodes at once. The server's own do not."""


class Rates:
    """`store`: what nodes share; None: this is the only one. `clock` gives monotonic seconds."""

    def __init__(self, limits: PublishConfig, store: RateStore | None, clock: Callable[[], float], spawn: Spawner) -> None:
        self._publishers = KeyedBuckets(limits.publisher_rate, limits.publisher_burst)
        self._devices = KeyedBuckets(limits.device_rate, limits.device_burst)
        self._shared: dict[str, SharedRate] = {}
        if store is not None:
            publishers = SharedRate(store, limits.publisher_rate, limits.publisher_burst, clock=clock, spawn=spawn)
            devices = SharedRate(store, limits.device_rate, limits.device_burst, clock=clock, spawn=spawn)
            self._shared = {kind: devices if kind == "device" else publishers for kind in SHARED}

    def take(self, principal: Principal, now: float) -> float:
        """Of this node: as limits.TokenBucket.take, for one request of the principal."""
        return self._here(principal).take(f"{principal.kind}:{principal.name}", now)

    def is_shared(self, principal: Principal) -> bool:
        """Whether other nodes may serve the principal, so that `take_shared` is to be asked, too."""
        return principal.kind in self._shared

    async def take_shared(self, principal: Principal) -> float:
        """Of all nodes, for a request that this node's bucket has let through. Requests go on in the order in which they came."""
        key = f"{principal.kind}:{principal.name}"
        wait = await self._shared[principal.kind].take(key)
        if wait:
            self._here(principal).refused(key)
        return wait

    async def device_level(self, device_id: str, now: float) -> Level:
        """What is left of a device's rate: over all nodes if they share it, but on this one while the store does not answer."""
        key = f"device:{device_id}"
        here = self._devices.look(key, now)
        if "device" in self._shared:
            with suppress(StoreUnavailable):
                left = await self._shared["device"].look(key)
                return replace(here, tokens=min(here.tokens, left), shared=True)
        return here

    def _here(self, principal: Principal) -> KeyedBuckets:
        return self._devices if principal.kind == "device" else self._publishers
