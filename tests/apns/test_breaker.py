from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.breaker import Breaker, BreakerPolicy, State
from streampush.apns.latency import LatencyHistogram

POLICY = BreakerPolicy()
FAST = 0.02


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(0.0)
    for _ in range(POLICY.min_calls):
        breaker.bad(breaker.permit(now), now)
    assert breaker.state is State.OPEN
    return breaker


def tell(breaker: Breaker, now: float, *, good: int = 0, bad: int = 0, slow: int = 0) -> None:
    permit = breaker.permit(now)
    for _ in range(good):
        breaker.good(permit, FAST, now)
    for _ in range(slow):
        breaker.good(permit, breaker.slow_after + 0.1, now)
    for _ in range(bad):
        breaker.bad(permit, now)


def test_it_begins_closed_and_lets_all_through() -> None:
    breaker = Breaker(0.0)
    assert all(breaker.permit(0.0) for _ in range(10_000))
    assert breaker.wait(0.0) == 0.0


def test_a_few_bad_answers_are_no_outage() -> None:
    breaker = Breaker(0.0)
    tell(breaker, 1.0, bad=POLICY.min_calls - 1)
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize(("good", "bad", "state"), [(50, 49, State.CLOSED), (50, 50, State.OPEN)])
def test_it_opens_when_half_of_the_answers_are_bad(good: int, bad: int, state: State) -> None:
    breaker = Breaker(0.0)
    tell(breaker, 1.0, good=good, bad=bad)
    assert breaker.state is state


@pytest.mark.parametrize(("good", "slow", "state"), [(50, 49, State.CLOSED), (50, 50, State.OPEN)])
def test_it_opens_when_half_of_the_answers_are_slow(good: int, slow: int, state: State) -> None:
    breaker = Breaker(0.0)
    tell(breaker, 1.0, good=good, slow=slow)
    assert breaker.state is state


def test_what_is_older_than_the_window_is_forgotten() -> None:
    breaker = Breaker(0.0)
    tell(breaker, 1.0, bad=15)
    tell(breaker, 1.0 + POLICY.window + 1.0, bad=15)
    assert breaker.state is State.CLOSED
    tell(breaker, 1.0 + POLICY.window + 2.0, bad=5)
    assert breaker.state is State.OPEN


def test_what_is_within_the_window_counts_together() -> None:
    breaker = Breaker(0.0)
    for second in range(10):
        tell(breaker, float(second), bad=2)
    assert breaker.state is State.OPEN


def test_open_it_lets_nothing_through_until_it_has_rested() -> None:
    breaker = opened(now=5.0)
    assert breaker.wait(5.0) == POLICY.first_rest
    assert not breaker.permit(5.0 + POLICY.first_rest - 0.01)
    assert breaker.permit(5.0 + POLICY.first_rest)


def test_half_open_it_lets_one_probe_through() -> None:
    breaker = opened()
    assert breaker.permit(2.0)
    assert breaker.state is State.HALF_OPEN
    assert not any(breaker.permit(2.0 + n) for n in range(10))
    assert breaker.wait(2.0) == POLICY.probe_timeout


def test_a_good_probe_closes_it() -> None:
    breaker = opened()
    breaker.good(breaker.permit(2.0), FAST, 2.1)
    assert breaker.state is State.CLOSED
    tell(breaker, 2.2, bad=POLICY.min_calls - 1)
    assert breaker.state is State.CLOSED  # what was before is forgotten


def test_once_it_has_closed_again_good_answers_count_against_bad_ones() -> None:
    breaker = opened()
    breaker.good(breaker.permit(2.0), FAST, 2.1)
    tell(breaker, 2.2, good=2 * POLICY.min_calls, bad=POLICY.min_calls)
    assert breaker.state is State.CLOSED


def test_the_common_permit_is_that_of_every_push_while_it_is_closed_and_none_else() -> None:
    breaker = Breaker(0.0)
    assert breaker.common_permit == breaker.permit(0.0)
    breaker = opened()
    assert breaker.common_permit < 0
    probe = breaker.permit(2.0)
    assert breaker.common_permit < 0
    breaker.good(probe, FAST, 2.1)
    assert breaker.common_permit == breaker.permit(2.2) == probe


def test_a_bad_probe_opens_it_again_for_twice_as_long_up_to_a_top() -> None:
    breaker, now, rests = opened(), 0.0, []
    for _ in range(9):
        rests.append(breaker.wait(now))
        now += breaker.wait(now)
        breaker.bad(breaker.permit(now), now)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_after_it_was_closed_the_rest_is_short_again() -> None:
    breaker = opened()
    breaker.bad(breaker.permit(1.0), 1.0)
    breaker.good(breaker.permit(3.0), FAST, 3.0)
    tell(breaker, 4.0, bad=POLICY.min_calls)
    assert breaker.wait(4.0) == POLICY.first_rest


def test_a_probe_that_nobody_answers_for_gives_way_to_another() -> None:
    breaker = opened()
    lost = breaker.permit(1.0)
    second = breaker.permit(1.0 + POLICY.probe_timeout)
    assert second
    assert second != lost
    breaker.good(lost, FAST, 17.0)
    assert breaker.state is State.HALF_OPEN
    breaker.good(second, FAST, 17.0)
    assert breaker.state is State.CLOSED


def test_a_probe_that_was_never_sent_may_be_repeated_at_once() -> None:
    breaker = opened()
    breaker.silent(breaker.permit(1.0))
    assert breaker.wait(1.0) == 0.0
    assert breaker.permit(1.0)
    assert not breaker.permit(1.0)


def test_what_is_silent_says_nothing_while_it_is_closed() -> None:
    breaker = Breaker(0.0)
    for _ in range(1000):
        breaker.silent(breaker.permit(0.0))
    assert breaker.state is State.CLOSED


def test_answers_from_before_it_opened_do_not_count() -> None:
    breaker = Breaker(0.0)
    early = breaker.permit(0.0)
    tell(breaker, 0.0, bad=POLICY.min_calls)
    breaker.good(early, FAST, 0.5)
    assert breaker.state is State.OPEN
    probe = breaker.permit(1.0)
    breaker.bad(early, 1.1)
    assert breaker.state is State.HALF_OPEN
    breaker.good(probe, FAST, 1.2)
    for _ in range(1000):
        breaker.bad(early, 1.3)
    assert breaker.state is State.CLOSED


def answers(breaker: Breaker, latency: float, seconds: float, begin: float) -> float:
    """1000 good answers a second with this latency."""
    now = begin
    while now < begin + seconds:
        breaker.good(breaker.permit(now), latency, now)
        now += 0.001
    return now


def test_the_threshold_follows_the_measured_latency_up_in_steps() -> None:
    breaker = Breaker(0.0)
    now = answers(breaker, 0.9, 10.5, 0.0)
    assert breaker.slow_after == POLICY.min_slow_after * POLICY.growth
    answers(breaker, 0.9, 20, now)
    assert 2.7 <= breaker.slow_after <= 2.7 * 1.1


def test_the_threshold_follows_the_measured_latency_down() -> None:
    breaker = Breaker(0.0)
    now = answers(breaker, 0.9, 31, 0.0)
    answers(breaker, 0.4, 120, now)
    assert 1.2 <= breaker.slow_after <= 1.2 * 1.1


def test_fast_answers_leave_the_threshold_at_its_least() -> None:
    breaker = Breaker(0.0)
    answers(breaker, FAST, 21, 0.0)
    assert breaker.slow_after == POLICY.min_slow_after


def test_the_threshold_has_a_top() -> None:
    breaker = Breaker(0.0, BreakerPolicy(max_slow=1.1))
    answers(breaker, 9.0, 80, 0.0)
    assert breaker.slow_after == POLICY.max_slow_after


def test_a_few_answers_teach_nothing() -> None:
    breaker = Breaker(0.0)
    for second in range(100):
        breaker.good(breaker.permit(second), 0.9, float(second))
    assert breaker.slow_after == POLICY.min_slow_after


def test_an_outage_that_begins_slowly_is_not_learned_as_normal() -> None:
    breaker = Breaker(0.0)
    now = answers(breaker, FAST, 30, 0.0)
    answers(breaker, 8.0, POLICY.window, now)
    assert breaker.opened


def test_a_service_that_has_become_slower_for_good_is_used_again() -> None:
    breaker, now = Breaker(0.0), 0.0
    for _ in range(POLICY.min_calls):
        breaker.good(breaker.permit(now), 4.0, now)
    probes = 0
    while breaker.state is not State.CLOSED:
        now += breaker.wait(now)
        breaker.good(breaker.permit(now), 4.0, now)
        probes += 1
    assert probes == 5  # 1.5, 2.25, 3.4, 5.1, and good
    assert now == 5.0


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("gbs."), st.floats(0, 3), st.floats(0, 20)), max_size=120))
def test_whatever_comes_it_never_stays_closed_to_pushes_for_ever(events: list[tuple[str, float, float]]) -> None:
    breaker, now = Breaker(0.0, BreakerPolicy(min_calls=3)), 0.0
    for what, pause, latency in events:
        now += pause
        permit = breaker.permit(now)
        if what == "g":
            breaker.good(permit, latency, now)
        elif what == "b":
            breaker.bad(permit, now)
        elif what == "s":
            breaker.silent(permit)
        assert 0.0 <= breaker.wait(now) <= POLICY.max_rest
        assert POLICY.min_slow_after <= breaker.slow_after <= POLICY.max_slow_after
        again = now + breaker.wait(now) + 1e-6
        assert breaker.wait(again) == 0.0


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.999, 1.0]))
def test_a_percentile_is_right_within_nine_percent(latencies: list[float], share: float) -> None:
    histogram = LatencyHistogram()
    for latency in latencies:
        histogram.add(latency)
    ordered = sorted(latencies)
    exact = ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
    assert exact * 0.999 <= histogram.percentile(share) <= exact * 1.0906


def test_latencies_out_of_range_count_at_the_ends() -> None:
    histogram = LatencyHistogram()
    for latency in (0.0, -1.0, 1e-9, 1e9):
        histogram.add(latency)
    assert histogram.count == 4
    assert histogram.percentile(0.5) < 0.0003
    assert histogram.percentile(1.0) == 256.0


def test_an_empty_histogram_has_no_percentile_and_fading_halves() -> None:
    histogram = LatencyHistogram()
    assert histogram.percentile(0.999) == 0.0
    for _ in range(5):
        histogram.add(0.1)
    histogram.fade()
    assert histogram.count == 2
