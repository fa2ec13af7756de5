from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher

from streampush.observe.lag import LagWatch


class Recorder:
    def __init__(self) -> None:
        self.lags: list[float] = []
        self.broken = False

    def reactor_lag(self, seconds: float) -> None:
        if self.broken:
            raise RuntimeError("no room")
        self.lags.append(seconds)


def test_timer_in_time_measures_nothing_a_late_one_its_lateness() -> None:
    clock, recorder = Clock(), Recorder()
    watch = LagWatch(clock, recorder, 0.5)
    watch.start()
    clock.advance(0.5)
    clock.advance(0.75)
    assert recorder.lags == [0.0, 0.25]
    watch.stop()


def test_failure_inside_is_logged_and_does_not_end_the_watch() -> None:
    clock, recorder, events = Clock(), Recorder(), []
    publisher = LogPublisher(events.append)
    watch = LagWatch(clock, recorder, 0.5)
    watch._log = Logger(observer=publisher)
    watch.start()
    recorder.broken = True
    clock.advance(0.5)
    recorder.broken = False
    clock.advance(0.5)
    assert recorder.lags == [0.0]
    assert events[0]["log_failure"].check(RuntimeError)
    watch.stop()


def test_stopped_watch_leaves_no_timer() -> None:
    clock = Clock()
    watch = LagWatch(clock, Recorder(), 0.5)
    watch.start()
    watch.start()
    assert len(clock.getDelayedCalls()) == 1
    watch.stop()
    watch.stop()
    assert clock.getDelayedCalls() == []
