from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from streampush.apns.loop_lag import INTERVAL, SHARE, LoopLag
from tests.apns.clienting import ClientWorld


def test_a_process_in_time_allows_nothing() -> None:
    clock = Clock()
    lag = LoopLag(clock, lambda: True)
    lag.run()
    clock.pump([INTERVAL] * 10)
    assert lag.allowance == pytest.approx(0.0)


def test_what_was_late_is_allowed_for_and_forgotten() -> None:
    clock = Clock()
    lag = LoopLag(clock, lambda: True)
    lag.run()
    clock.advance(INTERVAL + 0.1)
    assert lag.allowance == pytest.approx(SHARE * 0.1)
    clock.pump([INTERVAL] * 30)
    assert lag.allowance < 0.001


def test_nobody_looks_when_nothing_is_under_way() -> None:
    clock = Clock()
    lag = LoopLag(clock, lambda: False)
    lag.run()
    clock.advance(INTERVAL)
    assert not lag.running
    assert clock.getDelayedCalls() == []


def test_stopping_leaves_no_timer() -> None:
    clock = Clock()
    lag = LoopLag(clock, lambda: True)
    lag.run()
    clock.advance(INTERVAL)
    lag.stop()
    lag.stop()
    assert clock.getDelayedCalls() == []
    assert not lag.running


def test_our_own_slowness_does_not_lower_the_concurrency() -> None:
    world = ClientWorld(latency=0.005)
    world.push(100)
    world.advance(2)
    before = world.client.figures().limit
    limits = []
    for _ in range(30):
        world.push(before)
        for _ in range(4):
            world.clock.advance(0.2)  # everything comes late, timers too
        limits.append(world.client.figures().limit)
    assert min(limits) >= before
    world.advance(5)
    world.stop()
