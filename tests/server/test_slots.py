from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.server.slots import HORIZON, MIN_RATE, Slots


def slots(horizon: float = HORIZON) -> Slots:
    return Slots(Random(1), horizon)


def test_slots_follow_each_other_at_the_rate() -> None:
    calendar = slots()
    assert [calendar.take(100.0, 4.0) for _ in range(4)] == [0.0, 0.25, 0.5, 0.75]


def test_what_was_promised_counts_however_much_time_has_passed() -> None:
    calendar = slots()
    for _ in range(8):
        calendar.take(100.0, 4.0)
    assert calendar.take(101.0, 4.0) == pytest.approx(1.0)
    assert calendar.take(110.0, 4.0) == 0.0


def test_nobody_comes_before_the_earliest_moment() -> None:
    calendar = slots()
    assert calendar.take(100.0, 4.0, 2.0) == 2.0
    assert calendar.take(100.0, 4.0) == 2.25


def test_another_rate_holds_from_then_on() -> None:
    calendar = slots()
    assert [calendar.take(100.0, rate) for rate in (1.0, 10.0, 10.0)] == pytest.approx([0.0, 1.0, 1.1])


def test_a_rate_of_nothing_is_the_least_rate() -> None:
    calendar = slots()
    calendar.take(100.0, 0.0)
    assert calendar.take(100.0, 0.0) == 1 / MIN_RATE


def test_behind_the_horizon_slots_are_spread_over_its_second_half() -> None:
    calendar = slots(horizon=10.0)
    waits = [calendar.take(100.0, 1.0) for _ in range(500)]
    assert waits[:11] == [float(number) for number in range(11)]
    assert all(5.0 <= wait <= 10.0 for wait in waits[11:])
    assert len(set(waits[11:])) == len(waits[11:])


def test_promised_are_those_whose_slot_is_to_come() -> None:
    calendar = slots()
    for _ in range(40):
        calendar.take(100.0, 4.0)
    assert calendar.promised(100.0) == 40
    assert calendar.promised(105.0) == 20
    assert calendar.promised(200.0) == 0


def test_time_in_which_nobody_was_told_to_come_promises_nothing() -> None:
    calendar = slots()
    calendar.take(100.0, 4.0, 50.0)
    assert calendar.promised(100.0) == 1


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(1, 100), st.floats(0, 3)), max_size=60))
def test_no_two_slots_are_the_same_and_none_is_closer_than_its_rate(asked: list[tuple[float, float, float]]) -> None:
    calendar = slots()
    now, last, rate = 0.0, None, 1.0
    for passed, wanted, earliest in asked:
        now += passed
        wait = calendar.take(now, wanted, earliest)
        assert wait >= earliest - 1e-9
        assert last is None or now + wait - last >= 1 / rate - 1e-6
        last, rate = now + wait, wanted
