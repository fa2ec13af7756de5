"""What the process counts and measures, on an injected Prometheus registry.

`Metrics` is what `push/`, `server/` and `rest/` ask for by their own protocols, a part for each. Its methods are additions on plain
objects, never raise for a label, and are not thread-safe: they belong to the reactor's thread. docs/operations.md lists the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from streampush.observe.push_figures import PushFigures
from streampush.observe.rest_figures import RestFigures
from streampush.observe.server_figures import ServerFigures
from streampush.observe.tallies import MILLISECOND_BOUNDS, Buckets, Tally


class Metrics(PushFigures, ServerFigures, RestFigures):
    """Everything that is counted; registers itself and the process's own figures with `registry`.

    `version` is shown by `streampush_build_info`. Raises ValueError if the registry has metrics of these names already.
    """

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        PushFigures.__init__(self)
        ServerFigures.__init__(self)
        RestFigures.__init__(self)
        self._version = version
        self._last_lag = 0.0
        self._clock_deviation = 0.0
        self._lag = Buckets("streampush_reactor_lag_seconds", "How late timers of the reactor fire.", MILLISECOND_BOUNDS)
        self._clock_steps = Tally("streampush_clock_steps_total", "Jumps of the system's clock.")
        registry.register(self)
        ProcessCollector(registry=registry)

    def reactor_lag(self, seconds: float) -> None:
        """A timer fired `seconds` late."""
        self._last_lag = seconds
        self._lag.observe(seconds)

    def clock_deviation(self, seconds: float) -> None:
        """The system's clock is `seconds` ahead of the time that the process goes by."""
        self._clock_deviation = seconds

    def clock_stepped(self) -> None:
        """The system's clock has jumped."""
        self._clock_steps.add()

    def describe(self) -> Iterable[Metric]:
        """For the registry, which checks the names at registration."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry, at every scrape."""
        for part in (ServerFigures, PushFigures, RestFigures):
            yield from part.collect(self)
        yield self._clock_steps.export()
        yield self._lag.export()
        yield GaugeMetricFamily("streampush_reactor_last_lag_seconds", "The last measurement.", value=self._last_lag)
        yield GaugeMetricFamily(
            "streampush_clock_deviation_seconds",
            "The system's clock minus the time that messages go by.",
            value=self._clock_deviation,
        )
        build = GaugeMetricFamily("streampush_build_info", "The running version.", labels=("version",))
        build.add_metric((self._version,), 1)
        yield build
