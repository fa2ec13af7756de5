"""What a supervisor exports of itself, beside the sums over its workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streampush.supervisor.roster import ALIVE, Roster


class SupervisorFigures(Collector):
    """Reads them off the table at every scrape. `unanswered` is counted by who asks the workers."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self.unanswered = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self._registry).decode("utf-8")

    def describe(self) -> Iterable[Metric]:
        """For the registry, which checks the names at registration."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry, at every scrape."""
        workers = GaugeMetricFamily("streampush_workers", "Workers by state.", labels=("state",))
        for state, number in self._roster.states().items():
            workers.add_metric((state.value,), number)
        yield workers
        up = GaugeMetricFamily("streampush_worker_up", "Whether the worker has a process.", labels=("worker",))
        for worker in self._roster.workers:
            up.add_metric((str(worker.number),), worker.state in ALIVE)
        yield up
        restarts = CounterMetricFamily(
            "streampush_worker_restarts_total", "Workers that died or left and are started again, by why.", labels=("reason",)
        )
        for reason, count in self._roster.restarts.items():
            restarts.add_metric((reason.value,), count)
        yield restarts
        yield CounterMetricFamily(
            "streampush_worker_metrics_missing_total", "Workers whose metrics did not come in time.", value=self.unanswered
        )
