"""Steps over what falls due: when they are taken, and when not."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from streampush.errors import StoreUnavailable
from streampush.push.due import LONGEST_WAIT, RETRY_PAUSE, DueSteps


class Steps:
    """Counts them. `next_ms`: what a step answers; `away`: the store is; `waiting`: a step that the test ends."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.taken: list[int | None] = []
        self.next_ms: int | None = None
        self.away = self.holds = False
        self.waiting: Deferred[None] | None = None
        self.stalled = 0
        self.due = DueSteps(
            "what is tested",
            self._step,
            stalled=self._stall,
            wall_ms=lambda: int(self.clock.seconds() * 1000),
            call_later=self.clock.callLater,
            spawn=Deferred.fromCoroutine,
        )
        self.due.start()

    def _stall(self) -> None:
        self.stalled += 1

    async def _step(self, due_ms: int | None) -> int | None:
        self.taken.append(due_ms)
        if self.waiting is not None:
            await self.waiting
        if self.away:
            raise StoreUnavailable("the test says so")
        if self.holds:
            self.due.hold()
        return self.next_ms


def test_a_step_is_taken_at_the_earliest_time_that_was_announced() -> None:
    steps = Steps()
    steps.due.expect(5_000)
    steps.due.expect(2_000)
    steps.due.expect(9_000)
    steps.clock.advance(1.999)
    assert steps.taken == [None]
    steps.clock.advance(0.001)
    assert steps.taken == [None, 2_000]


def test_a_later_time_is_waited_for_in_stretches_without_a_step() -> None:
    steps = Steps()
    steps.due.expect(int(3 * LONGEST_WAIT * 1000))
    for _ in range(2):
        steps.clock.advance(LONGEST_WAIT)
        assert steps.taken == [None]
        assert [call.getTime() - steps.clock.seconds() for call in steps.clock.getDelayedCalls()] == [LONGEST_WAIT]
    steps.clock.advance(LONGEST_WAIT)
    assert len(steps.taken) == 2


def test_no_step_is_begun_while_one_is_under_way() -> None:
    steps = Steps()
    steps.waiting = Deferred()
    steps.due.expect(0)
    steps.clock.advance(0.0)
    steps.due.expect(0)
    steps.clock.advance(10.0)
    assert len(steps.taken) == 2
    waiting, steps.waiting = steps.waiting, None
    waiting.callback(None)
    steps.clock.advance(0.0)
    assert len(steps.taken) == 3


def test_nothing_is_done_while_it_is_held_and_once_when_it_goes_on() -> None:
    steps = Steps()
    steps.holds, steps.next_ms = True, 1_000
    steps.due.expect(0)
    steps.clock.advance(0.0)
    steps.due.expect(500)
    assert steps.clock.getDelayedCalls() == []
    steps.holds, steps.next_ms = False, None
    steps.due.go_on()
    steps.due.go_on()
    assert len(steps.taken) == 3


def test_what_is_held_does_not_go_on_when_it_was_stopped() -> None:
    steps = Steps()
    steps.holds = True
    steps.due.expect(0)
    steps.clock.advance(0.0)
    steps.due.stop()
    steps.due.go_on()
    assert len(steps.taken) == 2


def lines(steps: Steps, times: int) -> list[str]:
    """What is logged in so many pauses."""
    with capturedLogs() as captured:
        for _ in range(times):
            steps.clock.advance(RETRY_PAUSE)
    found: list[Any] = list(captured)
    return [formatEvent(event) for event in found]


def test_each_outage_of_the_store_is_said_once() -> None:
    steps = Steps()
    steps.away, steps.next_ms = True, 0
    steps.due.expect(0)
    said = "what is tested waits for the store: the test says so"
    assert lines(steps, 3) == [said]
    assert steps.stalled == 3
    steps.away, steps.next_ms = False, None
    assert lines(steps, 1) == []
    steps.away = True
    steps.due.expect(0)
    assert lines(steps, 2) == [said]


def test_a_stop_leaves_no_timer() -> None:
    steps = Steps()
    steps.due.expect(5_000)
    steps.due.stop()
    steps.due.expect(1_000)
    assert steps.clock.getDelayedCalls() == []
