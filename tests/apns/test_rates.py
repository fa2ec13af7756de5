from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.lanes import Lane, Lanes
from streampush.apns.outcome import Delivered, NotSent, Outcome, Rejected, Unknown, Why
from streampush.apns.rates import FIRST_REST, FORGET_AFTER, MAX_REST, AppRate, AppRates, RestingDevices

TOKEN, OTHER = "aa" * 32, "bb" * 32
TOO_MANY = Rejected(429, "TooManyRequests")
GONE = Rejected(410, "Unregistered", 1)


def test_a_device_rests_and_the_others_do_not() -> None:
    devices = RestingDevices()
    assert devices.too_many(TOKEN, 0.0) == FIRST_REST
    assert devices.wait(TOKEN, 1.0) == FIRST_REST - 1
    assert devices.wait(OTHER, 1.0) == 0.0
    assert devices.wait(TOKEN, FIRST_REST) == 0.0


def test_the_rest_doubles_with_each_429_in_a_row() -> None:
    devices, now, rests = RestingDevices(), 0.0, []
    for _ in range(10):
        rests.append(devices.too_many(TOKEN, now))
        now += rests[-1]
    assert rests[:5] == [5, 10, 20, 40, 80]
    assert rests[-1] == MAX_REST


def test_many_429_of_what_was_under_way_together_count_once() -> None:
    devices = RestingDevices()
    assert [devices.too_many(TOKEN, n * 0.01) for n in range(3)] == pytest.approx([5, 4.99, 4.98])
    assert devices.too_many(TOKEN, FIRST_REST) == 2 * FIRST_REST


def test_retry_after_is_obeyed_and_never_shortens_a_rest() -> None:
    devices = RestingDevices()
    assert devices.too_many(TOKEN, 0.0, retry_after=60.0) == 60.0
    assert devices.too_many(TOKEN, 1.0, retry_after=2.0) == 59.0
    assert devices.wait(TOKEN, 1.0) == 59.0


def test_a_push_that_was_taken_ends_it() -> None:
    devices = RestingDevices()
    devices.too_many(TOKEN, 0.0)
    devices.too_many(TOKEN, FIRST_REST)
    devices.delivered(TOKEN)
    assert devices.wait(TOKEN, FIRST_REST) == 0.0
    assert devices.too_many(TOKEN, 20.0) == FIRST_REST


def test_long_after_its_rest_a_429_is_a_first_one_again() -> None:
    devices = RestingDevices()
    devices.too_many(TOKEN, 0.0)
    assert devices.too_many(TOKEN, FIRST_REST + FORGET_AFTER) == FIRST_REST


def test_what_is_over_is_forgotten() -> None:
    devices = RestingDevices()
    for n in range(10):
        devices.too_many(f"{n:02}", float(n))
    devices.forget(FIRST_REST + FORGET_AFTER + 4.0)
    assert len(devices) == 5
    devices.forget(1e9)
    assert len(devices) == 0


def test_a_million_devices_do_not_fill_the_memory() -> None:
    devices = RestingDevices(max_devices=100)
    for n in range(1000):
        devices.too_many(f"{n:04}", 0.0)
    assert len(devices) == 100
    assert devices.wait("0999", 0.0) > 0
    assert devices.wait("0899", 0.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100), st.none() | st.floats(0, 5000), st.booleans()), max_size=60))
def test_a_device_never_gets_a_push_before_its_rest_is_over(events: list[tuple[str, float, float | None, bool]]) -> None:
    devices, now, until = RestingDevices(), 0.0, dict.fromkeys("abc", 0.0)
    for token, pause, retry_after, delivered in events:
        now += pause
        if delivered:
            devices.delivered(token)
            until[token] = now
        else:
            wait = devices.too_many(token, now, retry_after)
            assert now + wait >= until[token] - 1e-6
            until[token] = now + wait
        devices.forget(now)
        for each in "abc":
            assert devices.wait(each, now) == pytest.approx(max(0.0, until[each] - now), abs=1e-6)


def test_an_app_is_held_to_its_rate_and_the_others_are_not() -> None:
    rates = AppRates({"shop": AppRate(10.0, 2.0)}, 0.0)
    assert [rates.take("shop", 0.0) for _ in range(3)] == [0.0, 0.0, 0.1]
    assert rates.take("shop", 0.1) == 0.0
    assert not any(rates.take("chat", 0.0) for _ in range(1000))


def test_a_reload_keeps_the_level_of_a_rate_that_stays() -> None:
    rates = AppRates({"shop": AppRate(1.0, 1.0), "chat": AppRate(1.0, 1.0)}, 0.0)
    rates.take("shop", 0.0)
    rates.take("chat", 0.0)
    rates.reload({"shop": AppRate(1.0, 1.0), "chat": AppRate(1.0, 5.0)}, 0.0)
    assert rates.take("shop", 0.0) == 1.0
    assert rates.take("chat", 0.0) == 0.0
    rates.reload({}, 0.0)
    assert rates.take("shop", 0.0) == 0.0


@pytest.mark.parametrize("rate", [AppRate(0.0, 1.0), AppRate(1.0, 0.0), AppRate(float("nan"), 1.0)])
def test_a_rate_that_is_none_is_refused(rate: AppRate) -> None:
    with pytest.raises(ValueError, match="app shop"):
        AppRates({"shop": rate}, 0.0)


@pytest.mark.parametrize(
    ("outcome", "lane"),
    [
        (GONE, Lane.SUSPECT),
        (Rejected(400, "BadDeviceToken"), Lane.SUSPECT),
        (TOO_MANY, Lane.SUSPECT),
        (Rejected(413, "PayloadTooLarge"), Lane.HEALTHY),
        (Rejected(403, "InvalidProviderToken"), Lane.HEALTHY),
        (Rejected(503, "Unregistered"), Lane.HEALTHY),
        (Unknown(Why.NO_ANSWER), Lane.HEALTHY),
        (NotSent(Why.EXPIRED), Lane.HEALTHY),
        (Delivered(""), Lane.HEALTHY),
    ],
)
def test_a_token_is_suspect_when_apple_said_something_against_it(outcome: Outcome, lane: Lane) -> None:
    lanes = Lanes()
    lanes.note(TOKEN, outcome)
    assert lanes.lane(TOKEN) is lane
    assert lanes.lane(OTHER) is Lane.HEALTHY


def test_a_push_that_was_taken_clears_it() -> None:
    lanes = Lanes()
    lanes.note(TOKEN, GONE)
    lanes.note(TOKEN, Unknown(Why.NO_ANSWER))
    assert lanes.lane(TOKEN) is Lane.SUSPECT
    lanes.note(TOKEN, Delivered(""))
    assert lanes.lane(TOKEN) is Lane.HEALTHY


def test_suspects_are_remembered_in_bounded_number_the_latest_of_them() -> None:
    lanes = Lanes(max_suspects=2)
    for token in ("a", "b", "a", "c"):
        lanes.note(token, GONE)
    assert len(lanes) == 2
    assert [lanes.lane(token) for token in "abc"] == [Lane.SUSPECT, Lane.HEALTHY, Lane.SUSPECT]


@pytest.mark.parametrize(("limit", "width"), [(1000, 100), (10, 1), (1, 1)])
def test_suspects_share_a_tenth_and_have_at_least_one(limit: int, width: int) -> None:
    assert Lanes().width(Lane.SUSPECT, limit) == width
    assert Lanes().width(Lane.HEALTHY, limit) == limit


def test_no_token_is_in_a_repr() -> None:
    lanes, devices = Lanes(), RestingDevices()
    lanes.note(TOKEN, GONE)
    devices.too_many(TOKEN, 0.0)
    assert TOKEN not in repr(lanes) + repr(devices)
