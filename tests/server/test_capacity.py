from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.server.capacity import (
    ASSUMED_COST,
    ASSUMED_REST,
    LONG_SPAN,
    MEASURED_AFTER,
    MOST_REST,
    SPAN,
    SPANS,
    WINDOW,
    HandshakeCapacity,
)


class Process:
    """What it has used, and what it will have used."""

    def __init__(self) -> None:
        self.cpu = 0.0

    def seconds(self) -> float:
        return self.cpu


def capacity(share: float = 0.5, most: float = 10_000.0, process: Process | None = None) -> HandshakeCapacity:
    return HandshakeCapacity(share, most, (process or Process()).seconds)


def storm(used: HandshakeCapacity, process: Process, began: float, *, a_second: int, each: float, beside: float = 0.0) -> float:
    """So many come in each of two spans: an OpenSSL's millisecond and `each` seconds of CPU; and `beside` a second. The end."""
    for number in range(int(2 * SPAN * a_second) + 1):
        used.made(0.001, began + number / a_second, resumed=False)
        process.cpu += 0.001 + each + beside / a_second
    return began + 2 * SPAN


def test_before_handshakes_were_made_the_cost_is_assumed_and_said_to_be() -> None:
    fresh = capacity()
    for _ in range(MEASURED_AFTER - 1):
        fresh.made(0.1, 0.0, resumed=False)
    assert (fresh.is_measured, fresh.full_cost) == (False, ASSUMED_COST)
    assert fresh.rest_cost == ASSUMED_REST
    assert fresh.per_second == 0.5 / (ASSUMED_COST + ASSUMED_REST)


def test_capacity_is_the_share_of_a_core_over_what_a_full_handshake_and_the_rest_cost() -> None:
    used = capacity()
    for _ in range(MEASURED_AFTER):
        used.made(0.001, 0.0, resumed=False)
        used.made(0.0002, 0.0, resumed=True)
    assert used.is_measured
    assert used.per_second == pytest.approx(0.5 / (0.001 + ASSUMED_REST))
    assert used.resumed_cost == pytest.approx(0.0002)


def test_more_than_admission_lets_in_is_never_promised() -> None:
    assert capacity(most=50.0).per_second == 50.0


def test_a_machine_that_has_become_slower_is_noticed() -> None:
    used = capacity()
    for cost in (0.001, 0.004):
        for _ in range(500):
            used.made(cost, 0.0, resumed=False)
    assert used.full_cost == pytest.approx(0.004, rel=0.05)


def test_the_rest_is_what_the_process_used_beside_the_handshakes_of_those_who_came() -> None:
    process = Process()
    used = capacity(process=process)
    storm(used, process, 10.0, a_second=50, each=0.004)
    assert used.rest_cost == pytest.approx(0.004)
    assert used.per_second == pytest.approx(0.5 / 0.005)


def test_who_resumes_costs_the_rest_too() -> None:
    process = Process()
    used = capacity(process=process)
    for number in range(int(50 * SPAN) + 1):
        used.made(0.0002, number / 50, resumed=True)
        process.cpu += 0.0042
    assert used.rest_cost == pytest.approx(0.004)


def test_what_the_process_did_before_they_came_is_not_theirs() -> None:
    process = Process()
    used = capacity(process=process)
    used.made(0.001, 0.0, resumed=False)
    process.cpu += 0.2 * 60
    used.made(0.001, 60.0, resumed=False)  # few came, and 0.2 of a core was used
    end = storm(used, process, 60.0, a_second=50, each=0.004, beside=0.2)
    assert used.rest_cost == pytest.approx(0.004, rel=0.05)
    storm(used, process, end, a_second=50, each=0.004, beside=0.1)  # less beside them: they do not cost less than nothing
    assert used.rest_cost > 0.0


def test_few_who_come_say_nothing_of_what_each_costs() -> None:
    process = Process()
    used = capacity(process=process)
    for number in range(MEASURED_AFTER):
        used.made(0.001, number * LONG_SPAN / (MEASURED_AFTER - 1), resumed=False)
        process.cpu += 0.1
    assert used.rest_cost == ASSUMED_REST


def test_those_who_come_slowly_are_counted_until_they_are_enough() -> None:
    process = Process()
    used = capacity(process=process)
    for number in range(1000):  # 9 a second; now and then the process does something long
        used.made(0.001, number / 9, resumed=False)
        process.cpu += 0.005 + 0.1 * (number % 100 == 50)
    assert used.rest_cost == pytest.approx(0.005, rel=0.3)


def test_other_work_that_began_with_a_storm_is_not_all_put_on_it_and_is_soon_forgotten() -> None:
    process = Process()
    used = capacity(process=process)
    end = storm(used, process, 0.0, a_second=20, each=0.004, beside=5.0)
    assert used.rest_cost == pytest.approx(MOST_REST)
    for _ in range(SPANS):
        end = storm(used, process, end, a_second=20, each=0.004)
    assert used.rest_cost < 0.007


def test_what_is_made_now_is_not_free() -> None:
    used = capacity(most=100.0)
    for number in range(int(60 * WINDOW)):  # 40 a second, for one and a half windows
        used.made(0.001, number / 40, resumed=True)
    now = 60 * WINDOW / 40
    assert used.recent(now) == pytest.approx(40 * (1 - 2.718281828**-1.5), rel=0.05)
    assert used.free(now) == pytest.approx(100 - used.recent(now))
    assert used.free(now + 10 * WINDOW) == pytest.approx(100, abs=1)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100), st.booleans()), max_size=50))
def test_whatever_was_measured_figures_stay_within_bounds(handshakes: list[tuple[float, float, bool]]) -> None:
    used = capacity(most=500.0)
    for cost, at, resumed in handshakes:
        used.made(cost, at, resumed=resumed)
    assert 0 < used.per_second <= 500
    assert 0 <= used.free(50.0) <= used.per_second
