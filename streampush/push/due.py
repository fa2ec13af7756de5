"""A step over the store whenever something that waits there falls due.

Theory of operation. One timer waits for the earliest of what is known to wait. The store is the truth: each step asks it for what
is due, and for the time of the next; what this process adds is announced with `expect`, as a hint. So nothing is kept here, and a
restart only asks the store. The timer runs on another clock than the wall time, and stands still while the machine is suspended, so
it waits at most LONGEST_WAIT at a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from twisted.logger import Logger

from streampush.errors import StoreUnavailable
from streampush.push.ports import Delayer, Spawner, Timer

LONGEST_WAIT = 30.0
"""Seconds after which the wall time is looked at again, whatever was expected."""

RETRY_PAUSE = 1.0
"""Seconds before a store that was not there is asked again."""

Step: TypeAlias = Callable[[int | None], Coroutine[Any, Any, int | None]]
"""Does what is due, a bounded part of it at a time, and gives the time of what is not, Unix milliseconds; None if nothing waits. It
is given the time for which the timer waited, if it did."""


class DueSteps:
    """Calls `step` when something is due, between `start` and `stop`, and never while one is under way.

    `what` names what waits in the log line that says that the store is away; `stalled` is called each time that it is. `done`:
    after each step. `poll`: seconds after which the store is asked again although nothing was expected: other processes add to what
    waits there, and leave work behind; 0: there are none. `wall_ms` gives Unix milliseconds.
    """

    _log = Logger()

    def __init__(
        self,
        what: str,
        step: Step,
        *,
        stalled: Callable[[], None],
        wall_ms: Callable[[], int],
        call_later: Delayer,
        spawn: Spawner,
        done: Callable[[], None] = lambda: None,
        poll: float = 0.0,
    ) -> None:
        self._what = what
        self._step = step
        self._stalled = stalled
        self._wall_ms = wall_ms
        self._call_later = call_later
        self._spawn = spawn
        self._done = done
        self._poll_ms = int(poll * 1000)
        self.running = False
        self.working = False
        """Whether a step is under way."""
        self._held = False
        self._said = False  # that the store is away
        self._due_ms: int | None = None  # what the timer waits for
        self._timer: Timer | None = None

    def start(self) -> None:
        """Asks the store what is due. Starting twice is harmless."""
        if not self.running:
            self.running = True
            self._begin()

    def stop(self) -> None:
        """Begins no step any more, and leaves no timer behind; one that is under way goes on. Stopping twice is harmless."""
        self.running = False
        self._due_ms = None
        self._disarm()

    def expect(self, due_ms: int) -> None:
        """Something waits for this time, Unix milliseconds."""
        if self.running and not self._held and (self._due_ms is None or due_ms < self._due_ms):
            self._arm(due_ms)

    def hold(self) -> None:
        """For a step that can do nothing now: there is no other until `go_on`, whatever falls due."""
        self._held = True

    def go_on(self) -> None:
        """Ends `hold`."""
        if self._held:
            self._held = False
            if self.running:
                self._begin()

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self, due_ms: int) -> None:
        self._disarm()
        self._due_ms = due_ms
        if not self.working:  # else when the step is done
            wait = max(0.0, (due_ms - self._wall_ms()) / 1000)
            self._timer = self._call_later(min(wait, LONGEST_WAIT), self._fire)

    def _fire(self) -> None:
        self._timer = None
        due_ms = self._due_ms
        if due_ms is not None and due_ms > self._wall_ms():
            self._arm(due_ms)
        else:
            self._begin()

    def _begin(self) -> None:
        if not self.working:
            self._disarm()
            self.working = True
            self._spawn(self._work())

    async def _work(self) -> None:
        """One step; then the timer waits for the next."""
        due_ms, self._due_ms = self._due_ms, None
        again_ms: int | None = self._wall_ms() + int(RETRY_PAUSE * 1000)
        try:
            again_ms = await self._step(due_ms)
            self._said = False
        except StoreUnavailable as away:
            self._stalled()
            if not self._said:
                self._said = True
                self._log.warn("{what} waits for the store: {problem}", what=self._what, problem=away.detail)
        finally:  # also after a fault of ours, which must not end the steps for good
            self.working = False
            poll_ms = self._wall_ms() + self._poll_ms if self._poll_ms else None
            waiting = [moment for moment in (again_ms, self._due_ms, poll_ms) if moment is not None]
            if self.running and waiting and not self._held:
                self._arm(min(waiting))
            self._done()
