from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.server.capacity import ASSUMED_COST, MEASURED_AFTER, WINDOW, HandshakeCapacity


def capacity(share: float = 0.5, most: float = 10_000.0) -> HandshakeCapacity:
    return HandshakeCapacity(share, most)


def test_before_handshakes_were_made_the_cost_is_assumed_and_said_to_be() -> None:
    fresh = capacity()
    for _ in range(MEASURED_AFTER - 1):
        fresh.made(0.1, 0.0, resumed=False)
    assert (fresh.is_measured, fresh.full_cost) == (False, ASSUMED_COST)
    assert fresh.per_second == 0.5 / ASSUMED_COST


def test_capacity_is_the_share_of_a_core_over_what_a_full_handshake_costs() -> None:
    used = capacity()
    for _ in range(MEASURED_AFTER):
        used.made(0.001, 0.0, resumed=False)
        used.made(0.0002, 0.0, resumed=True)
    assert used.is_measured
    assert used.per_second == pytest.approx(500)
    assert used.resumed_cost == pytest.approx(0.0002)


def test_more_than_admission_lets_in_is_never_promised() -> None:
    assert capacity(most=50.0).per_second == 50.0


def test_a_machine_that_has_become_slower_is_noticed() -> None:
    used = capacity()
    for cost in (0.001, 0.004):
        for _ in range(500):
            used.made(cost, 0.0, resumed=False)
    assert used.full_cost == pytest.approx(0.004, rel=0.05)


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
