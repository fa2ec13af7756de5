"""What is shown of pushes to Apple: counted where it happens, asked at the scrape where it changes by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from streampush.apns.breaker import State
from streampush.apns.client_figures import ClientFigures
from streampush.apns.http2 import ErrorCode
from streampush.apns.link_state import LinkState
from streampush.apns.ports import ApnsMetrics
from streampush.observe.apns_figures import GOAWAY_CODES, STATES, ApnsFigures
from streampush.observe.tallies import OTHER

FIGURES = ClientFigures(
    queued=1,
    resting=2,
    held=3,
    queued_bytes=600,
    in_flight=40,
    limit=50,
    breaker=State.CLOSED,
    delivered=700,
    outcomes={},
    token_age=80.0,
    stopped_by="",
    stopped_topics=(),
    clock_offset=-9.0,
)


@pytest.fixture
def figures(registry: CollectorRegistry) -> ApnsFigures:
    return ApnsFigures(registry)


def test_they_are_what_the_apns_room_asks_for(figures: ApnsFigures) -> None:
    metrics: ApnsMetrics = figures
    assert metrics is figures
    assert set(STATES) == {state.value for state in LinkState if state is not LinkState.CLOSED}
    assert set(GOAWAY_CODES) == {code.name for code in ErrorCode} | {OTHER}


def test_pushes_are_counted_by_app_outcome_and_reason(registry: CollectorRegistry, figures: ApnsFigures) -> None:
    figures.watched(lambda: {"shop": FIGURES}, dict)
    figures.push_ended("shop", "rejected", "Unregistered")
    figures.push_repeated("shop", "refused", "gone_away")
    figures.order_put_off("shop")
    figures.broadcast_ended("shop", "create", "rejected", "TooManyRequests")

    def value(name: str, outcome: str, reason: str) -> float | None:
        return registry.get_sample_value(name, {"app": "shop", "outcome": outcome, "reason": reason})

    assert value("streampush_apns_pushes_total", "delivered", "") == 700
    assert value("streampush_apns_pushes_total", "rejected", "Unregistered") == 1
    assert value("streampush_apns_repeated_total", "refused", "gone_away") == 1
    assert registry.get_sample_value("streampush_apns_put_off_total", {"app": "shop"}) == 1
    of_broadcasts = {"app": "shop", "request": "create", "outcome": "rejected", "reason": "TooManyRequests"}
    assert registry.get_sample_value("streampush_apns_broadcasts_total", of_broadcasts) == 1


def test_a_connection_is_in_one_state(registry: CollectorRegistry, figures: ApnsFigures) -> None:
    figures.link_moved(None, LinkState.CONNECTING)
    figures.link_moved(LinkState.CONNECTING, LinkState.PROBING)
    figures.link_moved(LinkState.PROBING, LinkState.OPEN)
    figures.link_moved(None, LinkState.CONNECTING)
    figures.link_moved(LinkState.CONNECTING, LinkState.CLOSED)
    shown = {state: registry.get_sample_value("streampush_apns_connections", {"state": state}) for state in STATES}
    assert shown == {"connecting": 0, "probing": 0, "open": 1, "draining": 0}


def test_faults_of_connections_are_counted(registry: CollectorRegistry, figures: ApnsFigures) -> None:
    figures.link_failed(permanent=True)
    figures.gone_away("NO_ERROR")
    figures.gone_away("other")
    assert registry.get_sample_value("streampush_apns_connections_failed_total", {"kind": "permanent"}) == 1
    assert registry.get_sample_value("streampush_apns_goaways_total", {"code": "NO_ERROR"}) == 1
    assert registry.get_sample_value("streampush_apns_goaways_total", {"code": "other"}) == 1


def test_what_there_is_of_an_app_is_asked_at_the_scrape(registry: CollectorRegistry, figures: ApnsFigures) -> None:
    apps = {"shop": FIGURES}
    figures.watched(lambda: apps, lambda: {"shop": 12.5})
    for what, number in (("room", 1), ("next_try", 2), ("credential", 3)):
        assert registry.get_sample_value("streampush_apns_waiting", {"app": "shop", "what_for": what}) == number
    expected = {"waiting_bytes": 600, "in_flight": 40, "limit": 50, "token_age_seconds": 80, "clock_offset_seconds": -9}
    for name, number in {**expected, "stopped": 0, "breaker_open": 0, "certificate_days": 12.5}.items():
        assert registry.get_sample_value(f"streampush_apns_{name}", {"app": "shop"}) == number
    apps["shop"] = replace(FIGURES, breaker=State.HALF_OPEN, stopped_by="InvalidProviderToken", token_age=None)
    assert registry.get_sample_value("streampush_apns_breaker_open", {"app": "shop"}) == 1
    assert registry.get_sample_value("streampush_apns_stopped", {"app": "shop"}) == 1
    assert registry.get_sample_value("streampush_apns_token_age_seconds", {"app": "shop"}) is None


def test_a_refused_credential_is_counted(registry: CollectorRegistry, figures: ApnsFigures) -> None:
    figures.credential_stopped("shop", "InvalidProviderToken")
    labels = {"app": "shop", "reason": "InvalidProviderToken"}
    assert registry.get_sample_value("streampush_apns_credential_stopped_total", labels) == 1


def test_the_time_in_the_queue_and_on_the_wire_is_shown(registry: CollectorRegistry, figures: ApnsFigures) -> None:
    figures.push_delivered(0.002, 0.02)
    figures.push_delivered(0.0, 0.2)
    assert registry.get_sample_value("streampush_apns_queue_seconds_sum") == 0.002
    assert registry.get_sample_value("streampush_apns_answer_seconds_bucket", {"le": "0.025"}) == 1
    assert registry.get_sample_value("streampush_apns_answer_seconds_count") == 2
