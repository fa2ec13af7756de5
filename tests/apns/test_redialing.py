"""When to connect again."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.link_state import LinkEnd, LinkState, may_follow
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.redialing import Redialing
from streampush.apns.timeline import Timeline, printable

LIMITS = PoolLimits(first_backoff=1.0, max_backoff=20.0, connect_patience=5.0)
END = LinkEnd("nobody is there")


@given(seed=st.integers(), count=st.integers(1, 200))
def test_the_wait_doubles_up_to_its_top(seed: int, count: int) -> None:
    redialing = Redialing(LIMITS, Random(seed))
    now = 100.0
    for number in range(count):
        redialing.failed(END, now)
        assert now <= redialing.next_at <= now + min(2.0**number, 20.0)
        now = redialing.next_at


def test_a_success_forgets_the_failures() -> None:
    redialing = Redialing(LIMITS, Random(1))
    for _ in range(10):
        redialing.failed(END, 100.0)
    redialing.succeeded()
    assert redialing.next_at < 0
    assert redialing.last is None
    redialing.failed(END, 100.0)
    assert redialing.next_at <= 101.0


def test_it_is_hopeless_after_some_patience_until_the_next_try() -> None:
    redialing = Redialing(LIMITS, Random(1))
    redialing.failed(END, 100.0)
    assert not redialing.hopeless(100.0)
    redialing.failed(END, 105.0)
    assert redialing.hopeless(105.0)
    assert not redialing.hopeless(redialing.next_at)


def test_what_stays_as_it_is_is_hopeless_at_once() -> None:
    redialing = Redialing(LIMITS, Random(1))
    redialing.failed(LinkEnd("the certificate has expired", permanent=True), 100.0)
    assert redialing.hopeless(100.0)


def test_a_failure_of_long_ago_says_nothing_of_this_one() -> None:
    redialing = Redialing(LIMITS, Random(1))
    redialing.failed(END, 100.0)
    redialing.failed(END, 1000.0)
    assert redialing.failures == 1
    assert not redialing.hopeless(1000.0)


def test_a_connection_only_goes_forward() -> None:
    order = list(LinkState)
    for number, old in enumerate(order):
        assert not any(may_follow(old, new) for new in order[: number + 1])
        assert may_follow(old, LinkState.CLOSED) or old is LinkState.CLOSED


def test_a_timeline_keeps_the_first_moment_and_the_latest() -> None:
    timeline = Timeline(4)
    for number in range(10):
        timeline.add(float(number), str(number))
    assert [moment.what for moment in timeline.moments()] == ["0", "7", "8", "9"]
    assert timeline.dropped == 6


def test_what_a_server_wrote_is_shown_without_control_characters_and_cut() -> None:
    assert printable(b'{"reason":"Bad\r\n\x1b[2J\xff"}') == '{"reason":"Bad???[2J?"}'
    assert printable(b"x" * 500) == "x" * 100 + "..."
