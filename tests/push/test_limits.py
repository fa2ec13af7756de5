"""Token buckets, against a model that counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.push.limits import KeyedBuckets, Level, TokenBucket


def test_a_burst_is_taken_at_once_and_no_more() -> None:
    bucket = TokenBucket(1.0, 3, 10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_the_wait_is_the_time_until_the_token_is_there() -> None:
    bucket = TokenBucket(4.0, 1, 0.0)
    bucket.take(0.0)
    assert bucket.take(0.0) == 0.25
    assert bucket.take(0.125) == 0.125
    assert bucket.take(0.25) == 0.0


def test_no_more_than_the_burst_is_saved_up() -> None:
    bucket = TokenBucket(100.0, 2, 0.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 0.01]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1.0, 1, 10.0)
    bucket.take(10.0)
    assert bucket.take(5.0) == 1.0
    assert bucket.take(10.5) == 0.5


def test_several_tokens_are_taken_together_or_not_at_all() -> None:
    bucket = TokenBucket(1.0, 3, 0.0)
    assert bucket.take(0.0, 2) == 0.0
    assert bucket.take(0.0, 2) == 1.0
    assert bucket.take(0.0, 1) == 0.0


@given(
    st.integers(1, 8),
    st.integers(1, 10),
    st.lists(st.integers(0, 16), max_size=60),
)
def test_it_lets_through_what_a_count_of_tokens_does(rate: int, burst: int, gaps: list[int]) -> None:
    """Time in eighths of a second, so that nothing is rounded; the model counts in eighths of a token."""
    bucket = TokenBucket(float(rate), burst, 0.0)
    now = 0
    saved = burst * 8
    for gap in gaps:
        now += gap
        saved = min(burst * 8, saved + gap * rate)
        wait = bucket.take(now / 8)
        if saved >= 8:
            saved -= 8
            assert wait == 0.0
        else:
            assert wait == pytest.approx((8 - saved) / 8 / rate)


def test_keys_do_not_share_a_bucket() -> None:
    buckets = KeyedBuckets(1.0, 1)
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 0.0) == 1.0


def test_above_the_bound_the_longest_unused_key_is_dropped() -> None:
    buckets = KeyedBuckets(1.0, 1, max_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0.0
    assert len(buckets._buckets) == 2


def test_looking_at_a_bucket_takes_nothing_and_tells_what_was_refused() -> None:
    buckets = KeyedBuckets(rate=2.0, burst=3.0)
    assert buckets.look("a", 10.0) == Level(2.0, 3.0, 3.0, 0)
    for _ in range(5):
        buckets.take("a", 10.0)
    assert buckets.look("a", 10.5) == Level(2.0, 3.0, 1.0, 2)
    assert buckets.look("a", 10.5) == Level(2.0, 3.0, 1.0, 2)
    assert buckets.take("a", 10.5) == 0.0
