"""The store in Redis: the contract, on a real server."""

from __future__ import annotations

from tests.store.redis_world import RedisTestCase


class RedisStoreTests(RedisTestCase):
    """Each part of the contract that is there."""
