from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.concurrency import Concurrency, ConcurrencyPolicy

POLICY = ConcurrencyPolicy()
FAST = 0.025


def rounds(limit: Concurrency, count: int, latency: float, now: float, *, used: bool = True) -> float:
    """Whole rounds of answers with this latency, as many under way as may be (or one)."""
    for _ in range(count):
        answers = limit.limit
        now += max(latency, POLICY.min_round)
        for _ in range(answers):
            limit.answered(latency, answers if used else 1, now)
        if answers < limit.limit and not used:
            raise AssertionError("it grew unused")
    return now


def served(capacity: float, least: float, seconds: float, ceiling: int = 1000) -> Concurrency:
    """The limit after some time against a server that takes `least` seconds, and `capacity` pushes a second."""
    limit, now = Concurrency(0.0, ceiling=ceiling), 0.0
    while now < seconds:
        in_flight = limit.limit
        latency = max(least, in_flight / capacity)
        now += latency
        for _ in range(in_flight):
            limit.answered(latency, in_flight, now)
    return limit


def test_it_begins_small_and_doubles() -> None:
    limit, now, seen = Concurrency(0.0), 0.0, []
    for _ in range(8):
        seen.append(limit.limit)
        now = rounds(limit, 1, FAST, now)
    assert seen == [16, 32, 64, 128, 256, 512, 1000, 1000]


def test_it_never_begins_above_what_is_allowed() -> None:
    assert Concurrency(0.0, ceiling=1).limit == 1


def test_after_a_refusal_it_halves_and_then_grows_by_steps() -> None:
    limit = Concurrency(0.0)
    now = rounds(limit, 3, FAST, 0.0)
    assert limit.limit == 128
    limit.refused(now)
    assert limit.limit == 64
    rounds(limit, 3, FAST, now)
    assert limit.limit == 64 + 3 * POLICY.step


def test_refusals_of_what_was_under_way_together_count_once() -> None:
    limit = Concurrency(0.0, ceiling=64)
    rounds(limit, 2, FAST, 0.0)
    for n in range(50):
        limit.refused(1.0 + n * 0.001)
    assert limit.limit == 32
    limit.refused(1.2)
    assert limit.limit == 16


def test_a_slow_round_takes_a_fifth_off() -> None:
    limit = Concurrency(0.0, ceiling=100)
    now = rounds(limit, 5, FAST, 0.0)
    assert limit.limit == 100
    rounds(limit, 1, FAST * POLICY.slow_ratio + POLICY.slow_slack + 0.001, now)
    assert limit.limit == 80


def test_noise_below_the_slack_takes_nothing_off() -> None:
    limit = Concurrency(0.0, ceiling=100)
    now = rounds(limit, 5, 0.001, 0.0)
    rounds(limit, 20, 0.04, now)
    assert limit.limit == 100


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = Concurrency(0.0)
    rounds(limit, 50, FAST, 0.0, used=False)
    assert limit.limit == POLICY.start


def test_down_at_its_start_it_doubles_again() -> None:
    limit = Concurrency(0.0)
    rounds(limit, 2, FAST, 0.0)
    assert limit.limit == 64
    limit.refused(10.0)
    rounds(limit, 1, FAST, 10.0)
    assert limit.limit == 32 + POLICY.step
    limit.refused(20.0)
    limit.refused(30.0)
    assert limit.limit == 9
    rounds(limit, 2, FAST, 30.0)
    assert limit.limit == 36


def test_a_batch_of_answers_is_one_round() -> None:
    limit = Concurrency(0.0)
    for _ in range(1000):
        limit.answered(0.02, 16, POLICY.min_round / 2)
    assert limit.limit == POLICY.start
    limit.answered(0.02, 16, POLICY.min_round)
    assert limit.limit == 2 * POLICY.start


def test_few_answers_make_a_round_after_a_second() -> None:
    limit = Concurrency(0.0)
    for n in range(1, 4):
        limit.answered(0.02, 16, n * 0.5)
    assert limit.limit == 32


def test_when_less_is_allowed_it_shrinks_at_once_and_grows_back_only_by_rounds() -> None:
    limit = Concurrency(0.0)
    now = rounds(limit, 7, FAST, 0.0)
    limit.allow(1)
    assert limit.limit == 1
    limit.allow(1000)
    assert limit.limit == 1
    rounds(limit, 4, FAST, now)
    assert limit.limit == 16


def test_a_service_that_is_slower_for_good_gets_a_new_base() -> None:
    limit = Concurrency(0.0, ceiling=64)
    now = rounds(limit, 10, FAST, 0.0)
    now = rounds(limit, 10, 0.4, now)
    assert limit.limit <= POLICY.start
    rounds(limit, 20, 0.4, now)
    assert limit.limit == 64


@pytest.mark.parametrize(("capacity", "least"), [(5000.0, 0.02), (1000.0, 0.02), (20_000.0, 0.02), (2000.0, 0.1)])
def test_it_keeps_a_server_busy_without_queueing_long(capacity: float, least: float) -> None:
    limit = served(capacity, least, seconds=120.0)
    needed = capacity * least
    assert limit.limit >= min(needed, 1000)
    assert limit.limit / capacity <= least * POLICY.slow_ratio * 2 + POLICY.slow_slack


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(["answer", "refuse", "allow"]), st.floats(0, 2), st.floats(0, 60), st.integers(0, 3000)),
        max_size=200,
    ),
    st.integers(1, 2000),
)
def test_whatever_comes_it_stays_between_floor_and_ceiling(events: list[tuple[str, float, float, int]], ceiling: int) -> None:
    limit, now = Concurrency(0.0, ceiling=ceiling), 0.0
    for what, pause, latency, number in events:
        now += pause
        if what == "answer":
            limit.answered(latency, number, now)
        elif what == "refuse":
            limit.refused(now)
        else:
            ceiling = number
            limit.allow(ceiling)
        assert POLICY.floor <= limit.limit <= max(ceiling, POLICY.floor)
