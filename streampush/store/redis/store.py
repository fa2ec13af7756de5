"""See push.store_ports.Store: the parts of the store in Redis, put together."""

from __future__ import annotations

from collections.abc import Callable

from streampush.config import DeliveryConfig, StoreConfig
from streampush.protocol.terms import Durability
from streampush.push.ports import Scheduler
from streampush.store.redis.appends import Appends
from streampush.store.redis.devices import RedisDevices
from streampush.store.redis.letters import RedisLetters
from streampush.store.redis.logs import RedisLogs
from streampush.store.redis.messages import RedisMessages
from streampush.store.redis.nodes import RedisNodes
from streampush.store.redis.outbox import RedisOutbox
from streampush.store.redis.places import RedisPlaces
from streampush.store.redis.presence import RedisPresence
from streampush.store.redis.recording import RedisRecording
from streampush.store.redis.replication import Replication
from streampush.store.redis.scripts import Scripts


class RedisStore(
    RedisLogs, RedisPlaces, RedisRecording, RedisDevices, RedisLetters, RedisMessages, RedisPresence, RedisNodes, RedisOutbox
):
    """The store of any number of processes that have the same `scripts.prefix`. `wall_ms` gives Unix milliseconds; `new_epoch` a
    random id, for a store that is begun; `call_soon` runs a function when the present turn of the reactor is over: what is
    appended in one goes out together. `replication`: publications are answered when replicas have them. `ahead_ms`: by how much
    this clock is ahead of Redis's, where that is too much: what is thrown away for its age is judged by the earlier one, because a
    clock that is wrong must not empty the logs of all."""

    def __init__(
        self,
        scripts: Scripts,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        call_soon: Scheduler,
        *,
        max_dead_letters: int = DeliveryConfig().max_dead_letters,
        max_cursors: int = DeliveryConfig().max_subscriptions,
        replication: Replication | None = None,
        ahead_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._scripts = scripts.beginning(new_epoch)
        self._replication = replication
        self._writing = self._scripts if replication is None else self._scripts.over(replication.link)
        self.durability = Durability.MEMORY if replication is None else Durability.REPLICATED
        self._limits = limits.sized()
        self._wall_ms = wall_ms
        self._ahead_ms = ahead_ms
        self._new_epoch = new_epoch
        self._max_dead_letters = max_dead_letters
        self._max_cursors = max_cursors
        self._appends = Appends(self._writing, self._terms, call_soon, limits.max_queue)

    @property
    def more_waiting(self) -> int:
        """Operations that wait for Redis, but for the commands that their connection counts."""
        return self._appends.more_waiting
