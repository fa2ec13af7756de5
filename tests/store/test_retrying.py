"""Retries are made after the interval, each once, and none behind the end."""

from __future__ import annotations

from twisted.internet.task import Clock

from streampush.store.retrying import INTERVAL, Retries


def test_work_is_called_once_after_the_interval() -> None:
    clock, called = Clock(), []
    Retries(clock).later(lambda: called.append(clock.seconds()))
    clock.pump([INTERVAL / 2] * 6)
    assert called == [INTERVAL]


def test_nothing_is_called_or_left_behind_after_the_stop() -> None:
    clock, called = Clock(), []
    retries = Retries(clock)
    retries.later(lambda: called.append("before"))
    retries.stop()
    retries.later(lambda: called.append("after"))
    assert clock.getDelayedCalls() == []
    clock.advance(INTERVAL)
    assert called == []


def test_work_may_ask_for_the_next_try() -> None:
    clock = Clock()
    retries = Retries(clock)
    called = []

    def work() -> None:
        called.append(clock.seconds())
        retries.later(work)

    retries.later(work)
    clock.pump([INTERVAL] * 3)
    assert len(called) == 3
    retries.stop()
    assert clock.getDelayedCalls() == []
