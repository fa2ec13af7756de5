"""What is counted and measured of pushes to Apple, on an injected Prometheus registry; see observe/metrics.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from streampush.observe.tallies import OTHER, Buckets, Tally

STATES = ("connecting", "probing", "open", "draining")
"""Of connections, as in apns.link_state. Those that are closed are not counted."""

GOAWAY_CODES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
    OTHER,
)
"""RFC 9113 section 7."""


PUSH_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: from a server near by to the longest that a push waits here."""


class Valued(Protocol):
    """A member of an enum whose value is a word."""

    @property
    def value(self) -> str:
        """The word."""


class AppFigures(Protocol):
    """What there is of an app's pushes at a moment; see apns.client_figures."""

    @property
    def queued(self) -> int: ...
    @property
    def resting(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def queued_bytes(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def breaker(self) -> Valued: ...
    @property
    def delivered(self) -> int: ...
    @property
    def token_age(self) -> float | None: ...
    @property
    def stopped_by(self) -> str: ...
    @property
    def clock_offset(self) -> float: ...


class ApnsFigures:
    """The figures of all apps, for the reactor's thread. Raises ValueError if the registry has metrics of these names already.

    Labels: apps are those of the configuration, outcomes and reasons closed sets of words (apns.client_figures.named).
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._apps: Callable[[], Mapping[str, AppFigures]] = dict
        self._days_left: Callable[[], Mapping[str, float]] = dict
        self._states = dict.fromkeys(STATES, 0)
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._repeated: Counter[tuple[str, str, str]] = Counter()
        self._put_off: Counter[tuple[str]] = Counter()
        self._broadcasts: Counter[tuple[str, str, str, str]] = Counter()
        self._stopped: Counter[tuple[str, str]] = Counter()
        self._failed = Tally(
            "streampush_apns_connections_failed_total",
            "Connections to Apple that ended before they were of any use; permanent: until somebody changes something.",
            ("kind",),
            (("passing", "permanent"),),
        )
        self._goaways = Tally("streampush_apns_goaways_total", "GOAWAY frames of Apple's, by code.", ("code",), (GOAWAY_CODES,))
        self._waited = Buckets(
            "streampush_apns_queue_seconds", "Pushes that Apple took: until they were sent, repeats included.", PUSH_BOUNDS
        )
        self._answered = Buckets("streampush_apns_answer_seconds", "Pushes that Apple took: from then to the answer.", PUSH_BOUNDS)
        registry.register(self)

    def watched(self, apps: Callable[[], Mapping[str, AppFigures]], days_left: Callable[[], Mapping[str, float]]) -> None:
        """From now on these are asked at each scrape, by the name of the app; `days_left` of those with a certificate."""
        self._apps, self._days_left = apps, days_left

    # -------------------------------------------------------------------------------------------------------- apns.ApnsMetrics

    def link_moved(self, old: Valued | None, new: Valued) -> None:
        """A connection began (`old` None) or went on to another state."""
        if old is not None and old.value in self._states:
            self._states[old.value] -= 1
        if new.value in self._states:
            self._states[new.value] += 1

    def link_failed(self, permanent: bool) -> None:
        """A connection ended before it was of any use."""
        self._failed.add("permanent" if permanent else "passing")

    def gone_away(self, code: str) -> None:
        """A server sent GOAWAY; `code`: the RFC's name."""
        self._goaways.add(code)

    def returned(self, why: str, again: bool) -> None:
        """Of requests that a client has sent its outcome tells."""

    def push_delivered(self, waited: float, answered: float) -> None:
        """Apple took a push."""
        self._waited.observe(waited)
        self._answered.observe(answered)

    def push_ended(self, app: str, outcome: str, reason: str) -> None:
        """A push ended, and was not delivered."""
        self._ended[app, outcome, reason] += 1

    def push_repeated(self, app: str, outcome: str, reason: str) -> None:
        """A push ended like that for now; it will be tried again."""
        self._repeated[app, outcome, reason] += 1

    def order_put_off(self, app: str) -> None:
        """A push from the outbox had no place and comes again."""
        self._put_off[app,] += 1

    def broadcast_ended(self, app: str, request: str, outcome: str, reason: str) -> None:
        """A request about a channel for Live Activities ended."""
        self._broadcasts[app, request, outcome, reason] += 1

    def credential_stopped(self, app: str, reason: str) -> None:
        """Apple refuses the app's key or certificate."""
        self._stopped[app, reason] += 1

    def clock_skewed(self, seconds: float) -> None:
        """The clients' own figures tell by how much."""

    # -------------------------------------------------------------------------------------------------------------- the export

    def describe(self) -> Iterable[Metric]:
        """For the registry, which checks the names at registration."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry, at every scrape."""
        apps = self._apps()
        labels = ("app", "outcome", "reason")
        delivered = {(app, "delivered", ""): one.delivered for app, one in apps.items()}
        yield _counter(
            "streampush_apns_pushes_total",
            "Pushes to Apple, by how they ended.",
            labels,
            (*delivered.items(), *self._ended.items()),
        )
        yield _counter(
            "streampush_apns_repeated_total",
            "Tries of pushes that were made again, by how they ended.",
            labels,
            self._repeated.items(),
        )
        yield _counter(
            "streampush_apns_put_off_total",
            "Times that work was put off because its app had as many pushes under way as it may.",
            ("app",),
            self._put_off.items(),
        )
        yield _counter(
            "streampush_apns_broadcasts_total",
            "Requests about channels for Live Activities, by how they ended.",
            ("app", "request", "outcome", "reason"),
            self._broadcasts.items(),
        )
        yield _counter(
            "streampush_apns_credential_stopped_total",
            "Times that Apple refused a key or certificate.",
            ("app", "reason"),
            self._stopped.items(),
        )
        yield self._waited.export()
        yield self._answered.export()
        yield self._failed.export()
        yield self._goaways.export()
        states = {(state,): number for state, number in self._states.items()}
        yield _gauge("streampush_apns_connections", "Connections to Apple.", ("state",), states.items())
        yield from _waiting(apps)
        yield from _standing(apps)
        days = {(app,): left for app, left in self._days_left().items()}
        yield _gauge("streampush_apns_certificate_days", "Days until the certificate's end.", ("app",), days.items())


def _waiting(apps: Mapping[str, AppFigures]) -> Iterator[Metric]:
    waiting = {}
    for app, one in apps.items():
        waiting[app, "room"] = one.queued
        waiting[app, "next_try"] = one.resting
        waiting[app, "credential"] = one.held
    yield _gauge("streampush_apns_waiting", "Pushes that wait here, by what for.", ("app", "what_for"), waiting.items())
    each: tuple[tuple[str, str, Callable[[AppFigures], float]], ...] = (
        ("streampush_apns_waiting_bytes", "Bytes of pushes that wait here.", lambda one: one.queued_bytes),
        ("streampush_apns_in_flight", "Pushes that wait for Apple's answer.", lambda one: one.in_flight),
        ("streampush_apns_limit", "How many may, as Apple's answers let it be.", lambda one: one.limit),
    )
    for name, text, value in each:
        yield _gauge(name, text, ("app",), [((app,), value(one)) for app, one in apps.items()])


def _standing(apps: Mapping[str, AppFigures]) -> Iterator[Metric]:
    each: tuple[tuple[str, str, Callable[[AppFigures], float]], ...] = (
        ("streampush_apns_stopped", "1 while Apple refuses the key or certificate, else 0.", lambda one: bool(one.stopped_by)),
        ("streampush_apns_breaker_open", "1 while no pushes go out because too many fail.", _is_open),
        ("streampush_apns_clock_offset_seconds", "By how much Apple's clock is ahead.", lambda one: one.clock_offset),
    )
    for name, text, value in each:
        yield _gauge(name, text, ("app",), [((app,), value(one)) for app, one in apps.items()])
    ages = {(app,): one.token_age for app, one in apps.items() if one.token_age is not None}
    yield _gauge("streampush_apns_token_age_seconds", "Age of the provider token; Apple takes an hour.", ("app",), ages.items())


def _is_open(one: AppFigures) -> float:
    return one.breaker.value != "closed"


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
