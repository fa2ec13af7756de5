"""What is shown of the store: asked at the scrape where it changes by itself, counted where it happens."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from streampush.observe.store_figures import FAULTS, StoreFigures
from streampush.push.values import StoreStatus
from streampush.store.redis.link import LINK_FAULTS
from streampush.store.sqlite.file import FAULT_KINDS


@pytest.fixture
def figures(registry: CollectorRegistry) -> StoreFigures:
    return StoreFigures(registry)


def test_a_batch_is_counted_with_its_size_and_time(registry: CollectorRegistry, figures: StoreFigures) -> None:
    figures.store_batch(40, 0.003)
    figures.store_batch(1, 0.2)
    assert registry.get_sample_value("streampush_store_operations_total") == 41
    assert registry.get_sample_value("streampush_store_batch_operations_count") == 2
    assert registry.get_sample_value("streampush_store_batch_operations_bucket", {"le": "32.0"}) == 1
    assert registry.get_sample_value("streampush_store_batch_seconds_bucket", {"le": "0.005"}) == 1


def test_faults_are_counted_by_every_kind_that_the_store_has(registry: CollectorRegistry, figures: StoreFigures) -> None:
    assert set(FAULTS) == {*FAULT_KINDS, *LINK_FAULTS}
    for kind in FAULTS:
        assert registry.get_sample_value("streampush_store_faults_total", {"kind": kind}) == 0
        figures.store_fault(kind)
        assert registry.get_sample_value("streampush_store_faults_total", {"kind": kind}) == 1


def test_whether_it_works_and_what_waits_is_asked_at_the_scrape(registry: CollectorRegistry, figures: StoreFigures) -> None:
    assert registry.get_sample_value("streampush_store_works") == 1
    state = [True, 3]
    figures.store_watched(lambda: bool(state[0]), lambda: state[1])
    assert registry.get_sample_value("streampush_store_waiting") == 3
    state[:] = [False, 9000]
    assert registry.get_sample_value("streampush_store_works") == 0
    assert registry.get_sample_value("streampush_store_waiting") == 9000


def test_what_is_held_and_its_bytes_are_shown_when_known(registry: CollectorRegistry, figures: StoreFigures) -> None:
    assert registry.get_sample_value("streampush_store_held", {"what": "channels"}) is None
    figures.store_holds(StoreStatus(1, 2, 3, 4, 5, 6, 7, 8))
    figures.store_files(8, 9)
    expected = {"channels": 1, "publications": 2, "devices": 4, "scheduled": 5, "dead_letters": 6, "outbox": 7, "keys": 8}
    assert {what: registry.get_sample_value("streampush_store_held", {"what": what}) for what in expected} == expected
    assert registry.get_sample_value("streampush_store_bytes") == 3
    assert registry.get_sample_value("streampush_store_file_bytes", {"file": "store"}) == 8
    assert registry.get_sample_value("streampush_store_file_bytes", {"file": "log"}) == 9
