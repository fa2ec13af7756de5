"""The metrics of several workers as those of one node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streampush.observe.metrics import Metrics
from streampush.supervisor import totals
from streampush.supervisor.totals import SUMMED, BadMetrics, Family, Totals, parse


class Process:
    """What one process of a worker counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.published = Counter("streampush_published_total", "Messages.", ("by",), registry=self.registry)
        self.seconds = Histogram("streampush_seconds", "Times.", buckets=(1, 2), registry=self.registry)
        self.connections = Gauge("streampush_connections", "Open.", ("state",), registry=self.registry)
        self.lag = Gauge("streampush_lag", "The last.", registry=self.registry)

    def families(self) -> dict[str, Family]:
        return parse(generate_latest(self.registry).decode())


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read by Prometheus' own parser."""
    families = text_string_to_metric_families(text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples}


def test_counters_and_histograms_are_sums() -> None:
    one, two = Process(), Process()
    one.published.labels("rest").inc(3)
    two.published.labels("rest").inc(4)
    two.published.labels("stream").inc()
    one.seconds.observe(0.5)
    two.seconds.observe(1.5)
    found = samples(Totals().render({1: (1, one.families()), 2: (1, two.families())}))
    assert found["streampush_published_total", (("by", "rest"),)] == 7
    assert found["streampush_published_total", (("by", "stream"),)] == 1
    assert found["streampush_seconds_bucket", (("le", "1.0"),)] == 1
    assert found["streampush_seconds_bucket", (("le", "+Inf"),)] == 2
    assert found["streampush_seconds_sum", ()] == 2.0


def test_connections_are_a_sum_and_other_gauges_name_their_worker() -> None:
    one, two = Process(), Process()
    one.connections.labels("established").set(2)
    two.connections.labels("established").set(5)
    one.lag.set(0.25)
    found = samples(Totals().render({1: (1, one.families()), 2: (1, two.families())}))
    assert found["streampush_connections", (("state", "established"),)] == 7
    assert found["streampush_lag", (("worker", "1"),)] == 0.25
    assert found["streampush_lag", (("worker", "2"),)] == 0.0
    assert ("streampush_lag", ()) not in found


def test_a_gauge_with_labels_keeps_them_beside_its_worker() -> None:
    text = '# HELP g x\n# TYPE g gauge\ng{what="a b"} 3.0\n'
    assert Totals().render({4: (1, parse(text))}) == '# HELP g x\n# TYPE g gauge\ng{worker="4",what="a b"} 3.0\n'


def test_each_metric_is_described_once() -> None:
    lines = Totals().render({1: (1, Process().families()), 2: (1, Process().families())}).splitlines()
    heads = [line for line in lines if line.startswith("# ")]
    assert len(heads) == len(set(heads)) > 0


def test_a_counter_does_not_fall_when_its_worker_is_started_again() -> None:
    both, first = Totals(), Process()
    first.published.labels("rest").inc(100)
    both.render({1: (1, first.families())})
    second = Process()
    second.published.labels("rest").inc(2)
    assert samples(both.render({1: (2, second.families())}))["streampush_published_total", (("by", "rest"),)] == 102


def test_a_counter_does_not_fall_while_its_worker_does_not_answer() -> None:
    both, one, two = Totals(), Process(), Process()
    one.published.labels("rest").inc(10)
    two.published.labels("rest").inc(20)
    one.lag.set(1)
    both.render({1: (1, one.families()), 2: (1, two.families())})
    found = samples(both.render({2: (1, two.families())}))
    assert found["streampush_published_total", (("by", "rest"),)] == 30
    assert ("streampush_lag", (("worker", "1"),)) not in found


def test_what_only_an_ended_process_counted_stays() -> None:
    both, first = Totals(), Process()
    first.published.labels("odd").inc(7)
    both.render({1: (1, first.families())})
    for _ in range(2):
        assert samples(both.render({1: (2, Process().families())}))["streampush_published_total", (("by", "odd"),)] == 7
    assert samples(both.render({}))["streampush_published_total", (("by", "odd"),)] == 7


def test_a_nodes_own_metrics_pass_through_unchanged_but_for_the_worker() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "1.2.3")
    metrics.connection_state(None, "established")
    metrics.reactor_lag(0.5)
    text = generate_latest(registry).decode()
    gauges = {family.name for family in text_string_to_metric_families(text) if family.type == "gauge"}
    found = samples(Totals().render({1: (1, parse(text))}))
    before = samples(text)
    own = gauges - SUMMED
    expected = {(name, (*labels, ("worker", "1")) if name in own else labels): value for (name, labels), value in before.items()}
    assert {(name, tuple(sorted(labels))): value for (name, labels), value in expected.items()} == found


@pytest.mark.parametrize("text", ["# EOF\n", "# TYPE a\n", "a b c\n", "nothing\n", "# a"])
def test_what_no_worker_writes_is_refused(text: str) -> None:
    with pytest.raises(BadMetrics):
        parse(text)


def test_too_many_series_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MAX_SERIES", 2)
    parse('# TYPE a gauge\na{b="1"} 1\na{b="2"} 1\n')
    with pytest.raises(BadMetrics):
        parse('# TYPE a gauge\na{b="1"} 1\na{b="2"} 1\na{b="3"} 1\n')


@given(st.text(alphabet='# TYPEHLgauge{}="\n1.', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        families = parse(text)
    except BadMetrics:
        return
    Totals().render({1: (1, families)})


Step = tuple[int, bool, int]


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 5)), max_size=30))
def test_a_counter_never_falls_and_ends_at_what_was_shown(steps: list[Step]) -> None:
    both = Totals()
    processes = {number: (1, Process()) for number in (1, 2, 3)}
    shown_before = 0.0
    shown: dict[tuple[int, int], float] = {}
    for number, dies, more in steps:
        if dies:
            processes[number] = (processes[number][0] + 1, Process())
        incarnation, process = processes[number]
        process.published.labels("rest").inc(more)
        shown[number, incarnation] = shown.get((number, incarnation), 0.0) + more
        found = samples(both.render({number: (incarnation, process.families())}))
        now = found["streampush_published_total", (("by", "rest"),)]
        assert now >= shown_before
        assert now == sum(shown.values())
        shown_before = now
