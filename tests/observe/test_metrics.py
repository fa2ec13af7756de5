from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streampush.observe.metrics import Metrics
from streampush.observe.server_figures import CLOSED_BY, HANDSHAKE_RESULTS, REFUSAL_REASONS
from streampush.observe.tallies import Buckets, Tally
from streampush.protocol.codes import Code
from streampush.push.ports import PushMetrics
from streampush.server.handshake import HandshakeResult


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, "1.2.3")


def test_every_known_label_is_there_with_zero_before_anything_happens(registry: CollectorRegistry, metrics: Metrics) -> None:
    for result in HANDSHAKE_RESULTS:
        assert registry.get_sample_value("streampush_handshakes_total", {"result": result}) == 0
    for reason in REFUSAL_REASONS:
        assert registry.get_sample_value("streampush_refused_connections_total", {"reason": reason}) == 0
    for code in Code:
        assert registry.get_sample_value("streampush_faults_total", {"code": str(int(code))}) == 0
        assert registry.get_sample_value("streampush_refused_total", {"code": str(int(code))}) == 0
        for by in CLOSED_BY:
            assert registry.get_sample_value("streampush_closes_total", {"code": str(int(code)), "by": by}) == 0
    assert registry.get_sample_value("streampush_heartbeat_jitter_total") == 0
    assert registry.get_sample_value("streampush_connections", {"state": "established"}) == 0


def test_every_result_of_a_handshake_has_a_label_of_its_own() -> None:
    assert {result.value for result in HandshakeResult} <= set(HANDSHAKE_RESULTS)


def test_exposition_parses_and_every_counter_is_named_total(registry: CollectorRegistry, metrics: Metrics) -> None:
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    ours = [family for family in families if family.name.startswith("streampush_")]
    assert len(ours) > 25
    for family in ours:
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_operations"))


def test_process_figures_are_on_the_same_registry(registry: CollectorRegistry, metrics: Metrics) -> None:
    assert registry.get_sample_value("process_start_time_seconds") is not None


def test_second_instance_on_a_registry_is_refused(registry: CollectorRegistry, metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry, "1.2.3")


def test_connection_moves_between_states_and_goes(registry: CollectorRegistry, metrics: Metrics) -> None:
    def value(state: str) -> float | None:
        return registry.get_sample_value("streampush_connections", {"state": state})

    metrics.connection_state(None, "await_tls")
    metrics.connection_state("await_tls", "await_hello")
    assert (value("await_tls"), value("await_hello")) == (0, 1)
    metrics.connection_state("await_hello", None)
    assert (value("await_tls"), value("await_hello")) == (0, 0)


def test_unknown_labels_make_one_more_series_however_many_there_are(registry: CollectorRegistry, metrics: Metrics) -> None:
    for number in range(5):
        metrics.handshake(f"surprise-{number}", None)
        metrics.closed(9000 + number, "server")
        metrics.connection_state(None, f"odd-{number}")
    metrics.connection_state("odd-1", None)
    assert registry.get_sample_value("streampush_handshakes_total", {"result": "other"}) == 5
    assert registry.get_sample_value("streampush_closes_total", {"code": "other", "by": "server"}) == 5
    assert registry.get_sample_value("streampush_connections", {"state": "other"}) == 4
    assert b"surprise" not in generate_latest(registry)


def test_handshake_without_a_duration_counts_but_is_not_measured(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.handshake("ok", 0.2)
    metrics.handshake("not_tls", None)
    assert registry.get_sample_value("streampush_handshakes_total", {"result": "not_tls"}) == 1
    assert registry.get_sample_value("streampush_handshake_seconds_count") == 1
    assert registry.get_sample_value("streampush_handshake_seconds_sum") == 0.2


def test_close_is_counted_by_code_and_side(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.closed(Code.SLOW_CONSUMER, "server")
    metrics.closed(0, "network")
    assert registry.get_sample_value("streampush_closes_total", {"code": "1005", "by": "server"}) == 1
    assert registry.get_sample_value("streampush_closes_total", {"code": "0", "by": "network"}) == 1


def test_traffic_is_counted_by_direction(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.received(2, 100)
    metrics.received(1, 11)
    metrics.sent(3, 300)
    assert registry.get_sample_value("streampush_frames_total", {"direction": "received"}) == 3
    assert registry.get_sample_value("streampush_bytes_total", {"direction": "received"}) == 111
    assert registry.get_sample_value("streampush_frames_total", {"direction": "sent"}) == 3
    assert registry.get_sample_value("streampush_bytes_total", {"direction": "sent"}) == 300


def test_publish_to_write_is_weighted_by_deliveries(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.fanned_out(1000, 1, 0.004)
    metrics.fanned_out(1, 1, 0.2)
    name = "streampush_publish_to_write_seconds"
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.0025"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.005"}) == 1000
    assert registry.get_sample_value(f"{name}_count") == 1001
    assert registry.get_sample_value(f"{name}_sum") == pytest.approx(4.2)
    assert registry.get_sample_value("streampush_deliveries_total", {"path": "live"}) == 1001


def test_deliveries_from_the_log_are_told_from_live_ones(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.read_from_log(7)
    assert registry.get_sample_value("streampush_deliveries_total", {"path": "log"}) == 7
    assert registry.get_sample_value("streampush_deliveries_total", {"path": "live"}) == 0


def test_push_figures(registry: CollectorRegistry, metrics: Metrics) -> None:
    push: PushMetrics = metrics
    push.published("key", 128)
    push.refused(Code.FORBIDDEN)
    push.acknowledged("processed")
    push.positions_lost("trimmed")
    push.marks_dropped(3)
    push.fell_back("not_sent", 2)
    push.fallback_stalled()
    push.acknowledgement_ignored("older")
    push.redelivered("timeout")
    push.dead_lettered("retry_later")
    assert registry.get_sample_value("streampush_published_total", {"kind": "key"}) == 1
    assert registry.get_sample_value("streampush_published_bytes_total", {"kind": "key"}) == 128
    assert registry.get_sample_value("streampush_refused_total", {"code": "3003"}) == 1
    assert registry.get_sample_value("streampush_acknowledgements_total", {"outcome": "processed"}) == 1
    assert registry.get_sample_value("streampush_positions_lost_total", {"reason": "trimmed"}) == 1
    assert registry.get_sample_value("streampush_marks_dropped_total") == 3
    assert registry.get_sample_value("streampush_fallbacks_total", {"outcome": "not_sent"}) == 2
    assert registry.get_sample_value("streampush_fallback_stalled_total") == 1
    assert registry.get_sample_value("streampush_acknowledgements_ignored_total", {"reason": "older"}) == 1
    assert registry.get_sample_value("streampush_redelivered_total", {"reason": "timeout"}) == 1
    assert registry.get_sample_value("streampush_dead_letters_total", {"reason": "retry_later"}) == 1


def test_server_figures(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.refused_connection("accept_rate")
    metrics.faulted(Code.CHECKSUM_MISMATCH)
    metrics.round_trip(0.05)
    metrics.jitter(61.0)
    metrics.ping_missed()
    metrics.reloads("failed")
    assert registry.get_sample_value("streampush_refused_connections_total", {"reason": "accept_rate"}) == 1
    assert registry.get_sample_value("streampush_faults_total", {"code": "2003"}) == 1
    assert registry.get_sample_value("streampush_heartbeat_round_trip_seconds_bucket", {"le": "0.05"}) == 1
    assert registry.get_sample_value("streampush_heartbeat_jitter_total") == 1
    assert registry.get_sample_value("streampush_heartbeat_silence_seconds_bucket", {"le": "60.0"}) == 0
    assert registry.get_sample_value("streampush_heartbeat_silence_seconds_bucket", {"le": "75.0"}) == 1
    assert registry.get_sample_value("streampush_pings_missed_total") == 1
    assert registry.get_sample_value("streampush_reloads_total", {"result": "failed"}) == 1


def test_failed_probe_counts_and_is_not_measured(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.probe(0.002)
    metrics.probe(None)
    assert registry.get_sample_value("streampush_probes_total", {"result": "ok"}) == 1
    assert registry.get_sample_value("streampush_probes_total", {"result": "failed"}) == 1
    assert registry.get_sample_value("streampush_probe_seconds_count") == 1


def test_last_lag_is_shown_beside_the_histogram(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.reactor_lag(0.3)
    metrics.reactor_lag(0.1)
    assert registry.get_sample_value("streampush_reactor_last_lag_seconds") == 0.1
    assert registry.get_sample_value("streampush_reactor_lag_seconds_count") == 2


def test_rest_figures(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.rest_request(413, 0.01)
    metrics.rest_request(299, 0.01)
    metrics.rest_refused_connection()
    assert registry.get_sample_value("streampush_rest_requests_total", {"status": "413"}) == 1
    assert registry.get_sample_value("streampush_rest_requests_total", {"status": "other"}) == 1
    assert registry.get_sample_value("streampush_rest_request_seconds_count") == 2
    assert registry.get_sample_value("streampush_rest_refused_connections_total") == 1


def test_build_info_names_the_version(registry: CollectorRegistry, metrics: Metrics) -> None:
    assert registry.get_sample_value("streampush_build_info", {"version": "1.2.3"}) == 1


def test_tally_wants_as_many_labels_as_it_has() -> None:
    tally = Tally("t_total", "", ("a",), (("x",),))
    with pytest.raises(ValueError, match="zip"):
        tally.add("x", "y")


def test_value_on_a_bound_belongs_to_its_bucket() -> None:
    buckets = Buckets("b", "", (1.0, 2.0))
    buckets.observe(1.0)
    buckets.observe(2.5)
    counts = {sample.labels["le"]: sample.value for sample in buckets.export().samples if sample.name == "b_bucket"}
    assert counts == {"1.0": 1, "2.0": 1, "+Inf": 2}


def test_receipts_and_event_streams_are_counted(registry: CollectorRegistry, metrics: Metrics) -> None:
    assert registry.get_sample_value("streampush_receipts_total", {"milestone": "delivered"}) == 0
    metrics.receipts_told("delivered", 3)
    metrics.receipts_dropped(2)
    metrics.event_streams(5)
    metrics.event_streams(4)
    assert registry.get_sample_value("streampush_receipts_total", {"milestone": "delivered"}) == 3
    assert registry.get_sample_value("streampush_receipts_dropped_total") == 2
    assert registry.get_sample_value("streampush_event_streams") == 4
