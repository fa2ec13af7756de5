"""One timer for many deadlines."""

from __future__ import annotations

from math import inf

from twisted.internet.task import Clock

from streampush.apns.alarm import Alarm


def made() -> tuple[Clock, Alarm, list[float]]:
    clock = Clock()
    rung: list[float] = []
    return clock, Alarm(clock, rung.append), rung


def test_it_comes_once_for_the_first_of_all() -> None:
    clock, alarm, rung = made()
    for at in (5.0, 3.0, 4.0):
        alarm.set(at)
    assert len(clock.getDelayedCalls()) == 1
    assert alarm.at == 3.0
    clock.pump([2.0, 1.0, 10.0])
    assert rung == [3.0]
    assert alarm.at == inf


def test_what_is_over_comes_at_once() -> None:
    clock, alarm, rung = made()
    clock.advance(7.0)
    alarm.set(3.0)
    clock.advance(0.0)
    assert rung == [7.0]


def test_who_is_called_may_ask_again() -> None:
    clock = Clock()
    rung: list[float] = []

    def ring(now: float) -> None:
        rung.append(now)
        alarm.set(now + 1.0)

    alarm = Alarm(clock, ring)
    alarm.set(1.0)
    clock.pump([1.0, 1.0, 1.0])
    assert rung == [1.0, 2.0, 3.0]


def test_after_stop_it_does_not_come_and_leaves_nothing() -> None:
    clock, alarm, rung = made()
    alarm.set(1.0)
    alarm.stop()
    alarm.stop()
    assert not clock.getDelayedCalls()
    clock.advance(2.0)
    assert rung == []


def test_a_clock_that_comes_a_rounding_error_too_early_does_not_make_it_come_twice() -> None:
    clock, alarm, rung = made()
    alarm.set(0.3)
    clock.rightNow = 0.3 - 1e-12  # a reactor whose timer went off by another clock
    (call,) = clock.getDelayedCalls()
    call.reset(0.0)
    clock.advance(0.0)
    assert rung == [0.3]
