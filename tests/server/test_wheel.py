from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.server.wheel import NOT_SCHEDULED, TimingWheel


class Item:
    __slots__ = ("name", "wheel_tick")

    def __init__(self, name: object = None) -> None:
        self.name = name
        self.wheel_tick = NOT_SCHEDULED


def wheel(tick: float = 1.0, slots: int = 8, now: float = 100.0) -> TimingWheel[Item]:
    return TimingWheel(tick, slots, now)


def test_item_falls_due_at_its_deadline_and_not_before() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 103.0)
    assert timer.advance(102.9) == []
    assert timer.advance(103.0) == [item]
    assert timer.advance(104.0) == []
    assert len(timer) == 0


def test_deadline_within_a_tick_is_rounded_up() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 102.1)
    assert timer.advance(102.9) == []
    assert timer.advance(103.0) == [item]


def test_deadline_in_the_past_falls_due_with_the_next_tick() -> None:
    timer, item = wheel(), Item()
    timer.advance(110.0)
    timer.schedule(item, 50.0)
    assert timer.advance(110.5) == []
    assert timer.advance(111.0) == [item]


def test_deadline_beyond_the_horizon_waits_for_its_round() -> None:
    timer, item = wheel(slots=4), Item()
    timer.schedule(item, 111.0)
    for now in range(101, 111):
        assert timer.advance(float(now)) == []
    assert timer.advance(111.0) == [item]


def test_infinite_deadline_takes_the_item_out() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 103.0)
    timer.schedule(item, math.inf)
    assert len(timer) == 0
    assert timer.advance(200.0) == []


def test_removed_item_never_falls_due() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 103.0)
    timer.remove(item)
    timer.remove(item)
    assert timer.advance(200.0) == []
    assert item.wheel_tick == NOT_SCHEDULED


def test_later_deadline_does_not_touch_the_wheel() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 103.0)
    tick = item.wheel_tick
    timer.schedule(item, 106.0)
    assert item.wheel_tick == tick
    assert timer.advance(103.0) == [item]


def test_earlier_deadline_moves_the_item() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 106.0)
    timer.schedule(item, 102.0)
    assert timer.advance(102.0) == [item]
    assert timer.advance(106.0) == []


def test_item_can_be_scheduled_again_while_the_due_ones_are_handled() -> None:
    timer, item = wheel(), Item()
    timer.schedule(item, 101.0)
    for due in timer.advance(101.0):
        timer.schedule(due, 102.0)
    assert timer.advance(102.0) == [item]


def test_long_pause_gives_everything_in_order_of_deadline() -> None:
    timer = wheel(slots=4)
    items = [Item(n) for n in range(20)]
    for item in reversed(items):
        timer.schedule(item, 101.0 + item.name)  # type: ignore[operator]
    assert timer.advance(1000.0) == items


def test_clock_that_goes_back_gives_nothing() -> None:
    timer, item = wheel(), Item()
    timer.advance(105.0)
    timer.schedule(item, 106.0)
    assert timer.advance(101.0) == []
    assert timer.advance(106.0) == [item]


def test_iteration_shows_what_is_scheduled() -> None:
    timer, one, two = wheel(), Item(), Item()
    timer.schedule(one, 101.0)
    timer.schedule(two, 140.0)
    assert set(timer) == {one, two}


@pytest.mark.parametrize(("tick", "slots"), [(0.0, 8), (-1.0, 8), (1.0, 0)])
def test_senseless_dimensions_are_refused(tick: float, slots: int) -> None:
    with pytest.raises(ValueError, match="timing wheel"):
        TimingWheel(tick, slots, 0.0)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(0, 9), st.integers(-20, 400)),
        st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("advance"), st.integers(0, 120), st.just(0)),
    ),
    max_size=60,
)


@given(operations, st.integers(1, 16))
def test_wheel_agrees_with_a_sorted_list(steps: list[tuple[str, int, int]], slots: int) -> None:
    """Times are quarters of a tick, so that no rounding of floats is in the comparison."""
    timer = wheel(tick=1.0, slots=slots, now=0.0)
    items = [Item(n) for n in range(10)]
    model: dict[Item, int] = {}
    now, done = 0.0, 0
    for step, number, offset in steps:
        if step == "schedule":
            tick = max(math.ceil(now + offset / 4), done + 1)
            item = items[number]
            model[item] = min(model.get(item, tick), tick)
            timer.schedule(item, now + offset / 4)
        elif step == "remove":
            model.pop(items[number], None)
            timer.remove(items[number])
        else:
            now += number / 4
            done = math.floor(now)
            expected = sorted((tick, item.name) for item, tick in model.items() if tick <= done)
            due = timer.advance(now)
            assert sorted((model[item], item.name) for item in due) == expected
            assert [model[item] for item in due] == sorted(model[item] for item in due)
            for item in due:
                del model[item]
        assert len(timer) == len(model)
        assert set(timer) == set(model)
