"""The store in Redis: the contract, on a real server."""

from __future__ import annotations

from tests.store.contract import StoreContract
from tests.store.redis_world import RedisTestCase


class RedisStoreTests(RedisTestCase, StoreContract):
    pass
