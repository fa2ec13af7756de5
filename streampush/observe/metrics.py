"""What the process counts and measures, on an injected Prometheus registry.

`Metrics` is what `push/`, `server/` and `rest/` ask for by their own protocols. Its methods are additions on plain objects, never
raise for a label, and are not thread-safe: they belong to the reactor's thread. docs/operations.md lists the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from streampush.observe.tallies import OTHER, Buckets, Tally
from streampush.protocol.codes import Code
from streampush.protocol.state import State
from streampush.protocol.terms import LossReason, Milestone, Outcome

HANDSHAKE_RESULTS = (
    "ok",
    "resumed",
    "no_certificate",
    "unknown_ca",
    "expired",
    "revoked",
    "denied",
    "bad_identity",
    "bad_certificate",
    "not_tls",
    "tls_error",
    "timeout",
    "aborted",
)
REFUSAL_REASONS = (
    "connection_limit",
    "address_limit",
    "accept_rate",
    "handshake_limit",
    "draining",
    "file_descriptors",
    "not_a_proxy",
    "proxy_header",
    "proxy_timeout",
    "proxy_waiting",
)
SENT_ELSEWHERE = ("drain", "rebalance", "stop")
CLOSED_BY = ("server", "peer", "network")
PRINCIPAL_KINDS = ("device", "publisher", "key", "probe", "server")
NOT_PUBLISHED = ("duplicate", "superseded")
RECALLED = ("stored", "scheduled", "recalled", "processed")
REST_STATUSES = ("200", "201", "400", "401", "403", "404", "405", "408", "409", "413", "415", "429", "500", "503", "507")
IGNORED = ("older", "other_epoch")
IN_VAIN = ("timeout", "retry_later")
FELL_BACK = ("delivered", "rejected", "not_sent", "unknown", "cancelled")

MILLISECOND_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From what one turn of the reactor takes to what a person would notice."""
SECOND_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Round trips over mobile networks, handshakes."""
SILENCE_BOUNDS = (1.0, 5.0, 10.0, 30.0, 45.0, 60.0, 75.0, 90.0, 120.0, 180.0, 300.0)
"""Around two and three of the default heartbeat intervals, between which silence is called jitter."""

_CODES = tuple(str(int(code)) for code in Code)
_NO_CODE = "0"  # a connection that went without saying why


class Metrics:
    """Everything that is counted; registers itself and the process's own figures with `registry`.

    `version` is shown by `streampush_build_info`. Raises ValueError if the registry has metrics of these names already.
    """

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self._version = version
        self._connections: dict[str, int] = {state.value: 0 for state in State if state is not State.CLOSED}
        self._frames_received = 0
        self._frames_sent = 0
        self._bytes_received = 0
        self._bytes_sent = 0
        self._deliveries_live = 0
        self._deliveries_log = 0
        self._fan_outs = 0
        self._last_lag = 0.0
        self._event_streams = 0
        self._clock_deviation = 0.0
        self._count_connections()
        self._count_messages()
        self._count_process()
        registry.register(self)
        ProcessCollector(registry=registry)

    def _count_connections(self) -> None:
        self._handshakes = Tally("streampush_handshakes_total", "TLS handshakes by result.", ("result",), (HANDSHAKE_RESULTS,))
        self._handshake_seconds = Buckets("streampush_handshake_seconds", "Duration of TLS handshakes.", SECOND_BOUNDS)
        self._refused_connections = Tally(
            "streampush_refused_connections_total", "Connections refused before TLS.", ("reason",), (REFUSAL_REASONS,)
        )
        self._proxy_checks = Tally("streampush_proxy_checks_total", "Connections of proxies that carried no client.")
        self._closes = Tally(
            "streampush_closes_total",
            "Closed connections by code (0: none was given) and by who closed.",
            ("code", "by"),
            ((_NO_CODE, *_CODES), CLOSED_BY),
        )
        self._sent_elsewhere = Tally(
            "streampush_sent_elsewhere_total", "Connections told to leave for another node.", ("why",), (SENT_ELSEWHERE,)
        )
        self._faults = Tally("streampush_faults_total", "Errors of peers that the connection survived.", ("code",), (_CODES,))
        self._round_trips = Buckets("streampush_heartbeat_round_trip_seconds", "Ping to pong.", SECOND_BOUNDS)
        self._jitter = Tally("streampush_heartbeat_jitter_total", "Peers that were silent for longer than normal.")
        self._silence = Buckets("streampush_heartbeat_silence_seconds", "The silence when it became jitter.", SILENCE_BOUNDS)
        self._pings_missed = Tally("streampush_pings_missed_total", "Pings without an answer in time.")

    def _count_messages(self) -> None:
        self._published = Tally("streampush_published_total", "Publications stored.", ("kind",), (PRINCIPAL_KINDS,))
        self._published_bytes = Tally(
            "streampush_published_bytes_total", "Payload of publications stored.", ("kind",), (PRINCIPAL_KINDS,)
        )
        self._not_published = Tally(
            "streampush_not_published_total", "Publishes answered well with nothing stored.", ("reason",), (NOT_PUBLISHED,)
        )
        self._fired = Tally("streampush_scheduled_fired_total", "Scheduled publications appended at their time.")
        self._fired_late = Buckets("streampush_scheduled_late_seconds", "How late the earliest of a step was.", SECOND_BOUNDS)
        self._stalled = Tally("streampush_schedule_stalled_total", "Times the store was not there for what was due.")
        self._recalled = Tally("streampush_recalled_total", "Recalls, by what the message was.", ("was",), (RECALLED,))
        self._refused = Tally("streampush_refused_total", "Requests refused, by code.", ("code",), (_CODES,))
        self._publish_to_write = Buckets(
            "streampush_publish_to_write_seconds", "From publish to the write of a delivery, live ones.", MILLISECOND_BOUNDS
        )
        outcomes = [outcome.name.lower() for outcome in Outcome]
        self._acknowledged = Tally("streampush_acknowledgements_total", "Acknowledgements.", ("outcome",), (outcomes,))
        milestones = [milestone.name.lower() for milestone in Milestone if milestone]
        self._receipts = Tally("streampush_receipts_total", "Milestones told to publishers.", ("milestone",), (milestones,))
        self._receipts_dropped = Tally("streampush_receipts_dropped_total", "Messages whose receipts are told no more.")
        self._acknowledgements_ignored = Tally(
            "streampush_acknowledgements_ignored_total", "Acknowledgements that changed nothing.", ("reason",), (IGNORED,)
        )
        self._redelivered = Tally("streampush_redelivered_total", "Deliveries written again.", ("reason",), (IN_VAIN,))
        self._dead_lettered = Tally("streampush_dead_letters_total", "Messages given up for a device.", ("reason",), (IN_VAIN,))
        losses = [reason.name.lower() for reason in LossReason if reason]
        self._lost = Tally("streampush_positions_lost_total", "Positions not recovered without loss.", ("reason",), (losses,))
        self._fell_back = Tally(
            "streampush_fallbacks_total", "Messages with an alert, by device and what came of the push.", ("outcome",), (FELL_BACK,)
        )
        self._fallback_stalled = Tally(
            "streampush_fallback_stalled_total", "Times the store was not there for what was to be pushed."
        )
        self._marks_dropped = Tally("streampush_marks_dropped_total", "Milestones of receipts that could not be stored.")

    def _count_process(self) -> None:
        self._reloads = Tally("streampush_reloads_total", "Reloads of certificates and lists.", ("result",), (("ok", "failed"),))
        self._probes = Tally("streampush_probes_total", "Probe messages through the whole path.", ("result",), (("ok", "failed"),))
        self._probe_seconds = Buckets("streampush_probe_seconds", "Probe messages that arrived.", MILLISECOND_BOUNDS)
        self._lag = Buckets("streampush_reactor_lag_seconds", "How late timers of the reactor fire.", MILLISECOND_BOUNDS)
        self._clock_steps = Tally("streampush_clock_steps_total", "Jumps of the system's clock.")
        self._rest = Tally("streampush_rest_requests_total", "REST requests by status.", ("status",), (REST_STATUSES,))
        self._rest_seconds = Buckets("streampush_rest_request_seconds", "Duration of REST requests.", MILLISECOND_BOUNDS)
        self._rest_refused = Tally("streampush_rest_refused_connections_total", "HTTP connections above the limit.")

    # ------------------------------------------------------------------------------------------------------- push.PushMetrics

    def published(self, kind: str, size: int) -> None:
        """A publication was stored; `size` in bytes of payload."""
        self._published.add(kind)
        self._published_bytes.add(kind, amount=size)

    def not_published(self, reason: str) -> None:
        """A publish was answered well, and nothing was stored."""
        self._not_published.add(reason)

    def fired(self, publications: int, late: float) -> None:
        """Scheduled publications were appended, the earliest `late` seconds after its time."""
        self._fired.add(amount=publications)
        self._fired_late.observe(late)

    def schedule_stalled(self) -> None:
        """The store was not there when scheduled publications were due."""
        self._stalled.add()

    def recalled(self, was: str) -> None:
        """A message was recalled."""
        self._recalled.add(was)

    def refused(self, code: Code) -> None:
        """A request was refused."""
        self._refused.add(str(int(code)))

    def fanned_out(self, deliveries: int, publications: int, oldest_wait: float) -> None:
        """`deliveries` frames were written, each at most `oldest_wait` seconds after its publish."""
        self._deliveries_live += deliveries
        self._fan_outs += publications
        self._publish_to_write.observe(oldest_wait, deliveries)

    def read_from_log(self, deliveries: int) -> None:
        """Deliveries were read from the log for a connection that had fallen behind."""
        self._deliveries_log += deliveries

    def acknowledged(self, outcome: str) -> None:
        """An acknowledgement arrived; `outcome` is the lower-case name of a terms.Outcome."""
        self._acknowledged.add(outcome)

    def acknowledgement_ignored(self, reason: str) -> None:
        """An acknowledgement changed nothing: "older" or "other_epoch"."""
        self._acknowledgements_ignored.add(reason)

    def redelivered(self, reason: str) -> None:
        """A delivery was written again: "timeout" or "retry_later"."""
        self._redelivered.add(reason)

    def dead_lettered(self, reason: str) -> None:
        """A publication was given up for a device: "timeout" or "retry_later"."""
        self._dead_lettered.add(reason)

    def positions_lost(self, reason: str) -> None:
        """A position was not recovered; `reason` is the lower-case name of a terms.LossReason."""
        self._lost.add(reason)

    def fell_back(self, outcome: str, count: int) -> None:
        """Follow-ups of messages to devices ended so."""
        self._fell_back.add(outcome, amount=count)

    def fallback_stalled(self) -> None:
        """The store was not there when follow-ups were due."""
        self._fallback_stalled.add()

    def marks_dropped(self, count: int) -> None:
        """So many milestones were dropped: the store was away for too long."""
        self._marks_dropped.add(amount=count)

    # --------------------------------------------------------------------------------------------------- server.ServerMetrics

    def connection_state(self, old: str | None, new: str | None) -> None:
        """A connection moves between states; None: it was not there before, or is gone."""
        if old is not None:
            self._count_state(old, -1)
        if new is not None:
            self._count_state(new, 1)

    def _count_state(self, state: str, change: int) -> None:
        if state not in self._connections:
            state = OTHER
        self._connections[state] = self._connections.get(state, 0) + change

    def handshake(self, result: str, seconds: float | None) -> None:
        """A TLS handshake ended; `seconds` None: its duration says nothing."""
        self._handshakes.add(result)
        if seconds is not None:
            self._handshake_seconds.observe(seconds)

    def refused_connection(self, reason: str) -> None:
        """A connection was refused before TLS."""
        self._refused_connections.add(reason)

    def proxy_check(self) -> None:
        """A proxy connected for itself, to see whether we live."""
        self._proxy_checks.add()

    def sent_elsewhere(self, why: str) -> None:
        """See server.ports."""
        self._sent_elsewhere.add(why)

    def closed(self, code: int, by: str) -> None:
        """A connection closed; code 0: none was given."""
        self._closes.add(str(int(code)), by)

    def received(self, frames: int, bytes: int) -> None:
        """Frames and bytes came in."""
        self._frames_received += frames
        self._bytes_received += bytes

    def sent(self, frames: int, bytes: int) -> None:
        """Frames and bytes went out."""
        self._frames_sent += frames
        self._bytes_sent += bytes

    def faulted(self, code: int) -> None:
        """A peer erred and the connection survived."""
        self._faults.add(str(int(code)))

    def round_trip(self, seconds: float) -> None:
        """A ping was answered."""
        self._round_trips.observe(seconds)

    def jitter(self, silence: float) -> None:
        """A peer has been silent for longer than normal, `silence` seconds."""
        self._jitter.add()
        self._silence.observe(silence)

    def ping_missed(self) -> None:
        """A ping was not answered in time."""
        self._pings_missed.add()

    def reloads(self, result: str) -> None:
        """Certificates and lists were reloaded: "ok" or "failed"."""
        self._reloads.add(result)

    def probe(self, seconds: float | None) -> None:
        """A probe message arrived after `seconds`; None: it did not."""
        if seconds is None:
            self._probes.add("failed")
            return
        self._probes.add("ok")
        self._probe_seconds.observe(seconds)

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

    # ------------------------------------------------------------------------------------------------------- rest.RestMetrics

    def rest_request(self, status: int, seconds: float) -> None:
        """A REST request was answered."""
        self._rest.add(str(status))
        self._rest_seconds.observe(seconds)

    def rest_refused_connection(self) -> None:
        """An HTTP connection above the limit was cut."""
        self._rest_refused.add()

    def receipts_told(self, milestone: str, number: int) -> None:
        """Publishers were told of milestones; `milestone` is the lower-case name of a terms.Milestone."""
        self._receipts.add(milestone, amount=number)

    def receipts_dropped(self, number: int) -> None:
        """Messages whose receipts are told no more, for their publisher has too many newer ones."""
        self._receipts_dropped.add(amount=number)

    def event_streams(self, number: int) -> None:
        """So many event streams of the REST API are open."""
        self._event_streams = number

    # -------------------------------------------------------------------------------------------------------------- the scrape

    def describe(self) -> Iterable[Metric]:
        """For the registry, which checks the names at registration."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry, at every scrape."""
        yield self._gauge("streampush_connections", "Open connections by state.", "state", self._connections)
        for tally in (
            self._handshakes,
            self._refused_connections,
            self._closes,
            self._sent_elsewhere,
            self._faults,
            self._jitter,
            self._pings_missed,
        ):
            yield tally.export()
        yield self._proxy_checks.export()
        for tally in (self._published, self._published_bytes, self._not_published, self._fired, self._stalled, self._recalled):
            yield tally.export()
        for tally in (self._refused, self._acknowledged, self._lost, self._marks_dropped, self._receipts, self._receipts_dropped):
            yield tally.export()
        yield GaugeMetricFamily("streampush_event_streams", "Event streams of the REST API.", value=self._event_streams)
        for tally in (
            self._acknowledgements_ignored,
            self._redelivered,
            self._dead_lettered,
            self._fell_back,
            self._fallback_stalled,
        ):
            yield tally.export()
        for tally in (self._reloads, self._probes, self._rest, self._rest_refused, self._clock_steps):
            yield tally.export()
        yield self._counter("frames", "Frames of the stream protocol.", "direction", self._frames_received, self._frames_sent)
        yield self._counter("bytes", "Bytes of the stream protocol.", "direction", self._bytes_received, self._bytes_sent)
        deliveries = CounterMetricFamily("streampush_deliveries_total", "Deliveries written, by where from.", labels=("path",))
        deliveries.add_metric(("live",), self._deliveries_live)
        deliveries.add_metric(("log",), self._deliveries_log)
        yield deliveries
        yield CounterMetricFamily(
            "streampush_fanned_out_publications_total", "Publications that had a live follower.", value=self._fan_outs
        )
        for buckets in (self._handshake_seconds, self._round_trips, self._silence, self._publish_to_write, self._fired_late):
            yield buckets.export()
        for buckets in (self._probe_seconds, self._lag, self._rest_seconds):
            yield buckets.export()
        yield GaugeMetricFamily("streampush_reactor_last_lag_seconds", "The last measurement.", value=self._last_lag)
        yield GaugeMetricFamily(
            "streampush_clock_deviation_seconds",
            "The system's clock minus the time that messages go by.",
            value=self._clock_deviation,
        )
        yield self._gauge("streampush_build_info", "The running version.", "version", {self._version: 1})

    @staticmethod
    def _gauge(name: str, help_text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, help_text, labels=(label,))
        for value, number in values.items():
            family.add_metric((value,), number)
        return family

    @staticmethod
    def _counter(noun: str, help_text: str, label: str, received: int, sent: int) -> CounterMetricFamily:
        family = CounterMetricFamily(f"streampush_{noun}_total", help_text, labels=(label,))
        family.add_metric(("received",), received)
        family.add_metric(("sent",), sent)
        return family
