"""What is shown of what nodes tell each other."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from streampush.observe.bus_figures import HEARD, LOST, SENT, BusFigures


def test_each_kind_is_shown_from_the_start_and_counted() -> None:
    registry = CollectorRegistry()
    figures = BusFigures(registry)
    for kind in HEARD:
        assert registry.get_sample_value("streampush_bus_heard_total", {"kind": kind}) == 0
        figures.bus_heard(kind, 7)
        assert registry.get_sample_value("streampush_bus_heard_bytes_total", {"kind": kind}) == 7
    for kind in SENT:
        figures.bus_sent(kind)
        assert registry.get_sample_value("streampush_bus_sent_total", {"kind": kind}) == 1
    for kind in LOST:
        figures.bus_lost(kind)
        assert registry.get_sample_value("streampush_bus_lost_total", {"kind": kind}) == 1
