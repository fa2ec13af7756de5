"""Silence, PINGs and the wait for SETTINGS: RFC 9113 sections 6.5.3 and 6.7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import frames
from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError
from streampush.apns.http2.events import ConnectionFailed, PingAnswered, Verdict
from streampush.apns.http2.frames import FrameType
from streampush.apns.http2.limits import Allowance, Limits
from tests.apns.http2.driving import Driven, connected, idle, kinds

LIMITS = Limits(ping_interval=60, ping_timeout=10, settings_timeout=5)


def pong(ping_id: int) -> bytes:
    return frames.ping(ping_id.to_bytes(8, "big"), ack=True)


def test_a_connection_that_is_not_started_waits_for_nothing() -> None:
    driven = idle()
    assert driven.connection.deadline is None
    assert driven.connection.tick(1e9) == []


def test_silence_brings_a_ping() -> None:
    driven = connected(LIMITS)
    assert driven.wait(59.9) == []
    assert driven.written() == []
    driven.wait(0.2)
    assert kinds(driven.written()) == [(FrameType.PING, 0)]


def test_any_frame_is_life() -> None:
    driven = connected(LIMITS)
    driven.wait(50)
    driven.serve(frames.window_update(0, 1))
    driven.wait(59)
    assert driven.written() == []


def test_a_part_of_a_frame_is_no_life() -> None:
    driven = connected(LIMITS)
    driven.wait(50)
    driven.serve(b"\0\0")
    driven.wait(11)
    assert kinds(driven.written()) == [(FrameType.PING, 0)]


def test_silence_after_a_ping_ends_the_connection() -> None:
    driven = connected(LIMITS)
    driven.requests(1)
    driven.written()
    driven.wait(60)
    driven.written()
    assert driven.wait(9.9) == []
    (event,) = driven.wait(0.2)
    assert event == ConnectionFailed(ErrorCode.NO_ERROR, "silence for 10 s after a PING", ((1, Verdict.UNKNOWN),))


def test_an_answer_to_the_ping_tells_how_long_it_took() -> None:
    driven = Driven(ClientConnection(LIMITS, first_ping_id=2**64 - 1))
    driven.start()
    driven.serve(frames.settings([]), frames.settings_ack())
    driven.wait(60)
    driven.now += 0.25
    assert driven.serve(pong(2**64 - 1)) == [PingAnswered(2**64 - 1, 0.25)]
    assert driven.connection.ping(driven.now) == 0


def test_a_day_of_idleness_is_borne() -> None:
    driven = connected(LIMITS)
    pings = 0
    for _ in range(24 * 60):
        assert driven.wait(60) == []
        for kind, _, _, payload in driven.written():
            assert kind == FrameType.PING
            pings += 1
            driven.serve(frames.ping(payload, ack=True))
    assert pings == 24 * 60


def test_a_ping_of_the_caller_has_the_same_deadline() -> None:
    driven = connected(LIMITS)
    driven.connection.ping(driven.now)
    (event,) = driven.wait(10)
    assert isinstance(event, ConnectionFailed)


def test_more_pings_of_the_caller_do_not_put_the_deadline_off() -> None:
    driven = connected(LIMITS)
    driven.connection.ping(driven.now)
    driven.wait(9)
    driven.connection.ping(driven.now)
    (event,) = driven.wait(1)
    assert isinstance(event, ConnectionFailed)


def test_an_answer_stands_for_those_before_it_that_were_lost() -> None:
    driven = connected(LIMITS)
    driven.connection.ping(driven.now)
    driven.now += 1
    second = driven.connection.ping(driven.now)
    driven.now += 1
    assert driven.serve(pong(second)) == [PingAnswered(second, 1.0)]
    assert driven.wait(59) == []


def test_pings_without_an_answer_are_bounded() -> None:
    driven = connected(Limits(max_pings=2))
    _, second, third = (driven.connection.ping(driven.now) for _ in range(3))
    assert third == second
    assert kinds(driven.written()) == [(FrameType.PING, 0)] * 2
    assert driven.serve(pong(second)) == [PingAnswered(second, 0.0)]
    assert driven.connection.ping(driven.now) == second + 1


def test_a_closed_connection_does_not_ping() -> None:
    driven = connected()
    driven.connection.end_of_input()
    with pytest.raises(LocalProtocolError, match="closed"):
        driven.connection.ping(driven.now)


def test_a_watcher_that_slept_waits_anew() -> None:
    driven = connected(LIMITS)
    driven.wait(60)
    driven.now += 3600
    assert driven.connection.tick(driven.now) == []
    (event,) = driven.wait(10)
    assert isinstance(event, ConnectionFailed)


def test_settings_that_do_not_come_end_the_connection() -> None:
    driven = idle(LIMITS)
    driven.start()
    assert driven.wait(4.9) == []
    (event,) = driven.wait(0.2)
    assert event == ConnectionFailed(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS within 5 s", ())


def test_settings_that_are_not_acknowledged_end_the_connection() -> None:
    driven = idle(LIMITS)
    driven.start()
    driven.serve(frames.settings([]))
    (event,) = driven.wait(5)
    assert event == ConnectionFailed(ErrorCode.SETTINGS_TIMEOUT, "no acknowledgement of SETTINGS within 5 s", ())


@given(st.integers(1, 20), st.integers(1, 50), st.lists(st.floats(0, 3), max_size=100))
def test_an_allowance_never_gives_more_than_burst_and_rate(rate: int, burst: int, pauses: list[float]) -> None:
    allowance = Allowance(rate, burst)
    now = 50.0
    taken = 0
    for pause in pauses:
        now += pause
        taken += allowance.take(now)
        assert taken <= burst + rate * (now - 50.0) + 1e-6


def test_an_allowance_saves_up_no_more_than_its_burst() -> None:
    allowance = Allowance(10, 5)
    for now in (0.0, 1000.0, 2000.0):
        assert [allowance.take(now) for _ in range(6)] == [True] * 5 + [False]


@given(st.integers(1, 20), st.integers(1, 50))
def test_an_allowance_gives_burst_and_then_the_rate(rate: int, burst: int) -> None:
    allowance = Allowance(rate, burst)
    assert [allowance.take(7.0) for _ in range(burst + 1)] == [True] * burst + [False]
    assert all(allowance.take(7.0 + number * 1.001 / rate) for number in range(1, 30))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_frame_size": 16_383},
        {"connection_window": 65_534},
        {"stream_window": 0},
        {"stream_window": 2**31},
        {"max_streams": 0},
        {"max_streams": 5, "assumed_max_streams": 6},
        {"max_pings": 0},
        {"max_block_size": 16_383},
        {"max_debug_size": -1},
        {"pings_rate": 0},
        {"ping_timeout": 0},
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        Limits(**wrong)  # type: ignore[arg-type]  # numbers all
