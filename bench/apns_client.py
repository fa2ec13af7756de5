"""An ApnsClient with the policies of the product, for the processes that measure it."""

from __future__ import annotations

import time
from random import Random
from typing import Any
from uuid import uuid4

from streampush.apns.breaker import Breaker
from streampush.apns.client import ApnsClient
from streampush.apns.concurrency import Concurrency, ConcurrencyPolicy
from streampush.apns.dialing import TlsDialer
from streampush.apns.lanes import Lanes
from streampush.apns.pace import Pace
from streampush.apns.pool import Pool
from streampush.apns.ports import ApnsMetrics, NoMetrics
from streampush.apns.provider_token import ProviderToken
from streampush.apns.rates import AppRates, RestingDevices
from streampush.apns.retry import Retries, RetryBudget, RetryPolicy
from streampush.apns.signing_key import parse_signing_key
from streampush.apns.tls import Http2Tls

KEY_ID = "KEY1234567"
TEAM_ID = "TEAM123456"


def make_client(
    reactor: Any,
    port: int,
    ca: bytes,
    key: bytes,
    *,
    policy: ConcurrencyPolicy | None = None,
    ceiling: int = 1000,
    metrics: ApnsMetrics | None = None,
) -> tuple[ApnsClient, Pool]:
    """For a server on this port of localhost that `ca` (PEM) vouches for. `key`: the text of a .p8 file. `ceiling`: pushes under
    way at most."""
    metrics = metrics or NoMetrics()
    now = reactor.seconds()
    pool = Pool(TlsDialer(reactor, "localhost", port, Http2Tls("localhost", trust=ca), 3.0), reactor, metrics=metrics)
    budget = RetryBudget(now)
    pace = Pace(
        "bench",
        breaker=Breaker(now),
        concurrency=Concurrency(now, policy, ceiling=ceiling),
        lanes=Lanes(),
        devices=RestingDevices(),
        rates=AppRates({}, now),
        retries=Retries(RetryPolicy(), budget, Random(1)),
        budget=budget,
    )
    token = ProviderToken(parse_signing_key(key, TEAM_ID, KEY_ID))
    client = ApnsClient(
        "bench", "localhost", pool, pace, reactor, token=token, wall=time.time, new_id=lambda: str(uuid4()), metrics=metrics
    )
    return client, pool
