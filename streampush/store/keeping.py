"""A store with everything that belongs to it, from the start of the process to its end. `composition` chooses which."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.config import Config, DeliveryConfig
from streampush.errors import ConfigError, StoreUnavailable
from streampush.push.bus import Bus, Hearing, NoBus
from streampush.push.shared_rates import RateStore
from streampush.push.store_ports import Store
from streampush.push.values import StoreStatus
from streampush.store.memory import MemoryStore
from streampush.store.sqlite import FileFault, SqliteStore
from streampush.store.sqlite.file import Abandoned
from streampush.store.sqlite.upkeep import StoreMetrics, Upkeep, Watch
from streampush.store.sweeping import Sweeper

STATUS_INTERVAL = 5.0
"""Seconds between two looks at how much the store holds."""


MIN_CURSORS = 1_000
"""Cursors kept of a device at least: also where it may follow fewer channels at a time, it may come back to one."""


def max_cursors(delivery: DeliveryConfig) -> int:
    """Cursors kept of a device: of everything that it follows, or messages would be lost between two connections."""
    return max(delivery.max_subscriptions, MIN_CURSORS)


class KeepingMetrics(StoreMetrics, Protocol):
    """What is shown of any store."""

    def store_holds(self, status: StoreStatus) -> None:
        """How much it holds."""

    def store_files(self, file: int, log: int) -> None:
        """Bytes of its file, and of the write-ahead log."""

    def store_opened(self, *, after_a_stop: bool) -> None:
        """It works; whether the run before this one ended by a stop, as far as is known."""

    def store_watched(self, works: Callable[[], bool], waiting: Callable[[], int]) -> None:
        """Who knows whether it works, and how many operations wait for it."""


class Keeping(Protocol):
    """What a node needs of a store beside its port."""

    @property
    def store(self) -> Store:
        """Takes calls between `start` and `stop`."""

    @property
    def bus(self) -> Bus:
        """The way to other nodes that have the same store."""

    @property
    def rates(self) -> RateStore | None:
        """What nodes that have the same store share of rates; None: there is one node."""

    def hear(self, hearing: Hearing) -> None:
        """From now on what other nodes say is told. To be called once, behind `start`."""

    def start(self) -> None:
        """The store works from now on. Blocks on the disk. Raises ConfigError."""

    async def stop(self) -> None:
        """Everything that was accepted is stored, and nothing is left behind."""

    def reason(self, now: float) -> str:
        """A check for observe.health."""


class _Alone:
    """Of a store that only this process has."""

    rates: RateStore | None = None

    def __init__(self) -> None:
        self.bus = NoBus()

    def hear(self, hearing: Hearing) -> None:
        """There is nobody else."""


class MemoryKeeping(_Alone):
    """Of the store in memory."""

    def __init__(
        self, reactor: Any, config: Config, wall_ms: Callable[[], int], new_epoch: Callable[[], str], metrics: KeepingMetrics
    ) -> None:
        super().__init__()
        self.store = MemoryStore(
            config.store,
            wall_ms,
            new_epoch,
            max_dead_letters=config.delivery.max_dead_letters,
            max_cursors=max_cursors(config.delivery),
        )
        self._sweeper = Sweeper(reactor, self.store)
        self._metrics = metrics
        self._status = StatusWatch(reactor, self._look)

    async def _look(self) -> None:
        self._metrics.store_holds(await self.store.status())

    def start(self) -> None:
        self._sweeper.start()
        self._status.start()

    async def stop(self) -> None:
        self._status.stop()
        self._sweeper.stop()

    def reason(self, now: float) -> str:
        return ""


class SqliteKeeping(_Alone):
    """Of the store on disk."""

    _log = Logger(namespace="streampush.store")

    def __init__(
        self, reactor: Any, config: Config, wall_ms: Callable[[], int], new_epoch: Callable[[], str], metrics: KeepingMetrics
    ) -> None:
        super().__init__()
        self._config = config
        writes, reads = Watch("writes", metrics, counts=True), Watch("reads", metrics, counts=False)
        self.store = SqliteStore(
            config.store.path,
            config.store,
            wall_ms,
            new_epoch,
            reactor,
            max_dead_letters=config.delivery.max_dead_letters,
            max_cursors=max_cursors(config.delivery),
            observe_writes=writes,
            observe_reads=reads,
        )
        self._upkeep = Upkeep(reactor, self.store, writes, reads, metrics)
        self._metrics = metrics
        self._status = StatusWatch(reactor, self._look)
        metrics.store_watched(lambda: not self._upkeep.reason(reactor.seconds()), lambda: self.store.writer.waiting)

    async def _look(self) -> None:
        self._metrics.store_holds(await self.store.status())
        self._metrics.store_files(*await self.store.files())

    def reason(self, now: float) -> str:
        return self._upkeep.reason(now)

    def start(self) -> None:
        try:
            self.store.open()
        except FileFault as fault:
            raise ConfigError(self._config.file, "store.path", str(fault)) from fault
        self._look_back(self.store.abandoned)
        self._upkeep.start()
        self._status.start()

    def _look_back(self, abandoned: Abandoned | None) -> None:
        """Says what the run before this one has left. There is nothing to do: a commit is whole, or it is not there."""
        self._metrics.store_opened(after_a_stop=abandoned is None)
        if abandoned is not None:
            self._log.warn(
                "the last run (process {process}) did not end by a stop: it was killed, it crashed, or the system went down;"
                " {left} bytes of its write-ahead log were taken over, and nothing that was answered is lost",
                process=abandoned.process,
                left=abandoned.log_bytes,
            )

    async def stop(self) -> None:
        self._status.stop()
        self._upkeep.stop()
        if not await self.store.stop():
            self._log.error("the disk does not answer: what waited for it is not stored, and nobody was told that it is")


class StatusWatch:
    """Shows every few seconds how much a store holds."""

    _log = Logger(namespace="streampush.store")

    def __init__(self, reactor: Any, look: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._reactor = reactor
        self._look_once = look
        self._call: IDelayedCall | None = None
        self._running = False

    def start(self) -> None:
        """Looks at once, and then again and again."""
        self._running = True
        self._look()

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._running = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        looking = Deferred.fromCoroutine(self._look_once())
        looking.addErrback(self._failed)
        looking.addBoth(lambda done: self._again())

    def _failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, StoreUnavailable):  # that is known already
            self._log.failure("the store's status failed", failure=failure)

    def _again(self) -> None:
        if self._running:
            self._call = self._reactor.callLater(STATUS_INTERVAL, self._look)
