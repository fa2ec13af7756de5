"""What is counted and measured of connections: `server.ports.ServerMetrics`; see observe/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from streampush.observe.tallies import MILLISECOND_BOUNDS, OTHER, SECOND_BOUNDS, Buckets, Tally
from streampush.protocol.codes import Code
from streampush.protocol.state import State
from streampush.protocol.terms import Milestone

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

SILENCE_BOUNDS = (1.0, 5.0, 10.0, 30.0, 45.0, 60.0, 75.0, 90.0, 120.0, 180.0, 300.0)
"""Around two and three of the default heartbeat intervals, between which silence is called jitter."""

_CODES = tuple(str(int(code)) for code in Code)
_NO_CODE = "0"  # a connection that went without saying why


class ServerFigures:
    """Connections from the first handshake to the last close, what passes through them, and what the server does for itself."""

    def __init__(self) -> None:
        self._connections: dict[str, int] = {state.value: 0 for state in State if state is not State.CLOSED}
        self._frames_received = 0
        self._frames_sent = 0
        self._bytes_received = 0
        self._bytes_sent = 0
        self._count_ends()
        self._count_life()

    def _count_ends(self) -> None:
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

    def _count_life(self) -> None:
        milestones = [milestone.name.lower() for milestone in Milestone if milestone]
        self._faults = Tally("streampush_faults_total", "Errors of peers that the connection survived.", ("code",), (_CODES,))
        self._round_trips = Buckets("streampush_heartbeat_round_trip_seconds", "Ping to pong.", SECOND_BOUNDS)
        self._jitter = Tally("streampush_heartbeat_jitter_total", "Peers that were silent for longer than normal.")
        self._silence = Buckets("streampush_heartbeat_silence_seconds", "The silence when it became jitter.", SILENCE_BOUNDS)
        self._pings_missed = Tally("streampush_pings_missed_total", "Pings without an answer in time.")
        self._receipts = Tally("streampush_receipts_total", "Milestones told to publishers.", ("milestone",), (milestones,))
        self._receipts_dropped = Tally("streampush_receipts_dropped_total", "Messages whose receipts are told no more.")
        self._reloads = Tally("streampush_reloads_total", "Reloads of certificates and lists.", ("result",), (("ok", "failed"),))
        self._probes = Tally("streampush_probes_total", "Probe messages through the whole path.", ("result",), (("ok", "failed"),))
        self._probe_seconds = Buckets("streampush_probe_seconds", "Probe messages that arrived.", MILLISECOND_BOUNDS)

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

    def receipts_told(self, milestone: str, number: int) -> None:
        """Publishers were told of milestones; `milestone` is the lower-case name of a terms.Milestone."""
        self._receipts.add(milestone, amount=number)

    def receipts_dropped(self, number: int) -> None:
        """Messages whose receipts are told no more, for their publisher has too many newer ones."""
        self._receipts_dropped.add(amount=number)

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        connections = GaugeMetricFamily("streampush_connections", "Open connections by state.", labels=("state",))
        for state, number in self._connections.items():
            connections.add_metric((state,), number)
        yield connections
        for tally in (self._handshakes, self._refused_connections, self._proxy_checks, self._closes, self._sent_elsewhere):
            yield tally.export()
        for tally in (self._faults, self._jitter, self._pings_missed, self._receipts, self._receipts_dropped):
            yield tally.export()
        yield self._reloads.export()
        yield self._probes.export()
        yield _both_ways("frames", "Frames of the stream protocol.", self._frames_received, self._frames_sent)
        yield _both_ways("bytes", "Bytes of the stream protocol.", self._bytes_received, self._bytes_sent)
        for buckets in (self._handshake_seconds, self._round_trips, self._silence, self._probe_seconds):
            yield buckets.export()


def _both_ways(noun: str, help_text: str, received: int, sent: int) -> CounterMetricFamily:
    family = CounterMetricFamily(f"streampush_{noun}_total", help_text, labels=("direction",))
    family.add_metric(("received",), received)
    family.add_metric(("sent",), sent)
    return family
