"""The policies of one app's pushes to one host, as its settings have them: values, of which a client is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from streampush.apns.breaker import Breaker, BreakerPolicy
from streampush.apns.concurrency import Concurrency
from streampush.apns.lanes import Lanes
from streampush.apns.pace import Pace
from streampush.apns.rates import FIRST_REST, MAX_REST, AppRates, RestingDevices
from streampush.apns.retry import RETRY_SHARE, RETRY_STOCK, Retries, RetryBudget, RetryPolicy


@dataclass(frozen=True, slots=True)
class Policies:
    """`max_concurrent`: pushes under way at once, at most. `retry_share`, `retry_stock`: see RetryBudget. `device_rest`,
    `device_max_rest`: seconds, see RestingDevices."""

    max_concurrent: int = 4000
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    retry_share: float = RETRY_SHARE
    retry_stock: int = RETRY_STOCK
    device_rest: float = FIRST_REST
    device_max_rest: float = MAX_REST

    def pace(self, app: str, retry: RetryPolicy, rates: AppRates, now: float, random: Random) -> Pace:
        """A pace that begins now."""
        budget = RetryBudget(now, ratio=self.retry_share, saved=self.retry_stock)
        return Pace(
            app,
            breaker=Breaker(now, self.breaker),
            concurrency=Concurrency(now, ceiling=self.max_concurrent),
            lanes=Lanes(),
            devices=RestingDevices(first_rest=self.device_rest, max_rest=self.device_max_rest),
            rates=rates,
            retries=Retries(retry, budget, random),
            budget=budget,
        )
