from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher, formatEvent

from streampush.observe.steadiness import ClockWatch
from streampush.push.steady import NANOSECONDS, SteadyClock


class Recorder:
    def __init__(self) -> None:
        self.deviations: list[float] = []
        self.steps = 0
        self.broken = False

    def clock_deviation(self, seconds: float) -> None:
        if self.broken:
            raise RuntimeError("no room")
        self.deviations.append(round(seconds, 3))

    def clock_stepped(self) -> None:
        self.steps += 1


class Watched:
    """A watch on a machine whose wall clock is `ahead` of the time since boot."""

    def __init__(self) -> None:
        self.ahead = 0
        self.clock, self.recorder = Clock(), Recorder()
        self.events: list[Any] = []
        steady = SteadyClock(lambda: self.boot_ns() + self.ahead * NANOSECONDS, self.boot_ns)
        self.watch = ClockWatch(self.clock, steady, self.recorder)
        self.watch._log = Logger(observer=LogPublisher(self.events.append))
        self.watch.start()

    def boot_ns(self) -> int:
        return round(self.clock.seconds() * NANOSECONDS)


def test_jump_is_counted_shown_and_logged_once() -> None:
    watched = Watched()
    watched.clock.advance(1.0)
    watched.ahead = 86_400
    watched.clock.advance(1.0)
    watched.clock.advance(1.0)
    assert watched.recorder.steps == 1
    assert watched.recorder.deviations == [0.0, 86_399.99, 86_399.98]
    (event,) = watched.events
    assert formatEvent(event).startswith("the system's clock has jumped by 86400.0 s")


def test_failure_inside_is_logged_and_does_not_end_the_watch() -> None:
    watched = Watched()
    watched.recorder.broken = True
    watched.clock.advance(1.0)
    watched.recorder.broken = False
    watched.clock.advance(1.0)
    assert watched.recorder.deviations == [0.0]
    assert [event["log_level"].name for event in watched.events] == ["critical"]


def test_stopping_leaves_no_timer() -> None:
    watched = Watched()
    watched.watch.stop()
    watched.watch.stop()
    assert watched.clock.getDelayedCalls() == []
