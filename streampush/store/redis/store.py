"""See push.store_ports.Store: the parts of the store in Redis, put together."""

from __future__ import annotations

from collections.abc import Callable

from streampush.config import DeliveryConfig, StoreConfig
from streampush.store.redis.devices import RedisDevices
from streampush.store.redis.outbox import RedisOutbox
from streampush.store.redis.places import RedisPlaces
from streampush.store.redis.presence import RedisPresence
from streampush.store.redis.scripts import Scripts


class RedisStore(RedisPlaces, RedisDevices, RedisPresence, RedisOutbox):
    """The store of any number of processes that have the same `scripts.prefix`. `wall_ms` gives Unix milliseconds; `new_epoch` a
    random id, for a store that is begun."""

    def __init__(
        self,
        scripts: Scripts,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        *,
        max_dead_letters: int = DeliveryConfig().max_dead_letters,
        max_cursors: int = DeliveryConfig().max_subscriptions,
    ) -> None:
        self._scripts = scripts
        self._limits = limits.sized()
        self._wall_ms = wall_ms
        self._new_epoch = new_epoch
        self._max_dead_letters = max_dead_letters
        self._max_cursors = max_cursors
