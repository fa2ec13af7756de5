"""The reactor's timers go by a clock that nobody sets."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.selectreactor import SelectReactor

from streampush.clocks import run_timers_steadily


def make_reactor() -> Any:
    """A reactor of this test's own, whose wall clock can be set."""
    reactor: Any = SelectReactor()
    reactor.ahead = 0.0
    reactor.seconds = lambda: time.time() + reactor.ahead
    return reactor


def test_a_jump_of_the_wall_clock_moves_no_timer() -> None:
    reactor = make_reactor()
    run_timers_steadily(reactor)
    fired: list[str] = []
    reactor.callLater(3_600.0, fired.append, "late")
    reactor.callLater(0.0, fired.append, "now")
    reactor.ahead = 86_400.0
    reactor.runUntilCurrent()
    assert fired == ["now"]


def test_what_is_scheduled_already_keeps_its_delay() -> None:
    reactor = make_reactor()
    fired: list[str] = []
    reactor.callLater(0.0, fired.append, "soon")
    reactor.callLater(3_600.0, fired.append, "late")
    run_timers_steadily(reactor)
    reactor.runUntilCurrent()
    assert fired == ["soon"]
    (left,) = reactor.getDelayedCalls()
    assert 3_590.0 < left.getTime() - reactor.seconds() <= 3_600.0
