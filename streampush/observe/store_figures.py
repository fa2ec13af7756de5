"""What is counted and measured of the store, on an injected Prometheus registry; see observe/metrics.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from streampush.observe.tallies import OTHER, Buckets, Tally
from streampush.push.values import StoreStatus

FAULTS = (
    "full",
    "locked",
    "damaged",
    "readonly",
    "unopened",
    "io",
    "memory",
    "gone",
    "slow",
    "connection",
    "silent",
    "refused",
    OTHER,
)
"""Kinds of faults, as in store.sqlite.file; the last but one are of store.redis.link."""

COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a commit on a good disk to one that hangs."""

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Operations of one commit; the default store.max_batch is 1000."""


class StoreFigures:
    """The figures of one store, for the reactor's thread. Raises ValueError if the registry has metrics of these names already."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._status: StoreStatus | None = None
        self._files: tuple[int, int] | None = None
        self._clock_ahead: float | None = None
        self._after_a_stop = True
        self._works: Callable[[], bool] = lambda: True
        self._waiting: Callable[[], int] = lambda: 0
        self._seconds = Buckets("streampush_store_batch_seconds", "Batches of operations, with their commit.", COMMIT_BOUNDS)
        self._sizes = Buckets("streampush_store_batch_operations", "Operations of each batch.", BATCH_BOUNDS)
        self._operations = Tally("streampush_store_operations_total", "Operations that were committed.")
        self._faults = Tally(
            "streampush_store_faults_total",
            "Batches that failed, and times that the file was gone or the disk did not keep up.",
            ("kind",),
            (FAULTS,),
        )
        self._connected = Tally("streampush_redis_connections_total", "Connections to Redis that were made and could be used.")
        self._failovers = Tally(
            "streampush_redis_failovers_total", "Times that this node found Redis with another history: promoted, or started anew."
        )
        registry.register(self)

    def store_watched(self, works: Callable[[], bool], waiting: Callable[[], int]) -> None:
        """From now on these are asked at each scrape: whether the store works, and how many operations wait for it."""
        self._works, self._waiting = works, waiting

    def store_opened(self, *, after_a_stop: bool) -> None:
        """The store was opened; whether the run before this one ended by a stop."""
        self._after_a_stop = after_a_stop

    def store_batch(self, operations: int, seconds: float) -> None:
        """The store has committed a batch."""
        self._seconds.observe(seconds)
        self._sizes.observe(operations)
        self._operations.add(amount=operations)

    def store_fault(self, kind: str) -> None:
        """A batch of the store failed."""
        self._faults.add(kind)

    def redis_failed_over(self) -> None:
        """Redis was found with another history."""
        self._failovers.add()

    def redis_clock(self, ahead: float) -> None:
        """By how many seconds this machine's clock is ahead of Redis's."""
        self._clock_ahead = ahead

    def redis_connected(self) -> None:
        """There is a connection to Redis again."""
        self._connected.add()

    def store_holds(self, status: StoreStatus) -> None:
        """How much the store holds."""
        self._status = status

    def store_files(self, file: int, log: int) -> None:
        """How many bytes the store's file has, and its write-ahead log."""
        self._files = file, log

    def describe(self) -> Iterable[Metric]:
        """For the registry, which checks the names at registration."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry, at every scrape."""
        yield self._seconds.export()
        yield self._sizes.export()
        yield self._operations.export()
        yield self._faults.export()
        yield self._connected.export()
        yield self._failovers.export()
        yield GaugeMetricFamily("streampush_store_works", "1 while the store does its work, else 0.", value=int(self._works()))
        yield GaugeMetricFamily(
            "streampush_store_after_crash",
            "1 if the run before this one did not end by a stop, else 0.",
            value=int(not self._after_a_stop),
        )
        yield GaugeMetricFamily("streampush_store_waiting", "Operations that wait for the disk.", value=self._waiting())
        if self._clock_ahead is not None:
            yield GaugeMetricFamily(
                "streampush_redis_clock_ahead_seconds",
                "By how much this machine's clock is ahead of that of Redis's machine.",
                value=self._clock_ahead,
            )
        yield _gauge("streampush_store_file_bytes", "Bytes on disk.", "file", self._on_disk())
        yield _gauge("streampush_store_held", "What the store holds.", "what", self._held())
        if self._status is not None:
            yield GaugeMetricFamily("streampush_store_bytes", "Bytes that count against store.max_bytes.", value=self._status.bytes)

    def _on_disk(self) -> dict[str, int]:
        return {} if self._files is None else {"store": self._files[0], "log": self._files[1]}

    def _held(self) -> dict[str, int]:
        status = self._status
        if status is None:
            return {}
        return {
            "channels": status.channels,
            "publications": status.publications,
            "devices": status.devices,
            "scheduled": status.scheduled,
            "dead_letters": status.dead_letters,
            "outbox": status.outbox,
            "keys": status.keys,
        }


def _gauge(name: str, help_text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family
