"""Waits that double."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampush.backoff import doubled


def test_it_doubles_up_to_the_most() -> None:
    assert [doubled(1.0, times, 10.0) for times in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_below_no_doubling_there_is_none() -> None:
    assert doubled(3.0, -5, 10.0) == 3.0


@given(st.floats(0.001, 1000.0), st.integers(0, 10**12), st.floats(0.001, 1e6))
def test_any_number_of_times_gives_a_wait_that_is_no_shorter_than_before_and_no_longer_than_allowed(
    first: float, times: int, most: float
) -> None:
    assert doubled(first, times, most) <= doubled(first, times + 1, most) <= most
