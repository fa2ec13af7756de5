"""What is counted and measured of the REST API: `rest.ports.RestMetrics`; see observe/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from streampush.observe.tallies import MILLISECOND_BOUNDS, Buckets, Tally

REST_STATUSES = ("200", "201", "400", "401", "403", "404", "405", "408", "409", "413", "415", "429", "500", "503", "507")


class RestFigures:
    """Requests, and what stays open."""

    def __init__(self) -> None:
        self._event_streams = 0
        self._rest = Tally("streampush_rest_requests_total", "REST requests by status.", ("status",), (REST_STATUSES,))
        self._rest_seconds = Buckets("streampush_rest_request_seconds", "Duration of REST requests.", MILLISECOND_BOUNDS)
        self._rest_refused = Tally("streampush_rest_refused_connections_total", "HTTP connections above the limit.")

    def rest_request(self, status: int, seconds: float) -> None:
        """A REST request was answered."""
        self._rest.add(str(status))
        self._rest_seconds.observe(seconds)

    def rest_refused_connection(self) -> None:
        """An HTTP connection above the limit was cut."""
        self._rest_refused.add()

    def event_streams(self, number: int) -> None:
        """So many event streams of the REST API are open."""
        self._event_streams = number

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        yield self._rest.export()
        yield self._rest_refused.export()
        yield GaugeMetricFamily("streampush_event_streams", "Event streams of the REST API.", value=self._event_streams)
        yield self._rest_seconds.export()
