"""The schedule: messages that wait in the store for their time, and go out then like any other.

Theory of operation. One timer waits for the earliest of them. It looks at the wall time when it fires, and waits on if that has
not come: the timer runs on another clock, which stands still while the machine is suspended, so it waits at most LONGEST_WAIT
at a stretch. What is due is moved to the logs by the store, at most STEP_MESSAGES in a turn of the reactor; the store says what
is due next. So nothing is kept here, and a restart only asks the store.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from streampush.errors import StoreUnavailable
from streampush.push.fanout import FanOut
from streampush.push.ports import Delayer, PushMetrics, Spawner, Store, Timer

STEP_MESSAGES = 100
"""Fired in one turn of the reactor: a few milliseconds."""

LONGEST_WAIT = 30.0
"""Seconds after which the wall time is looked at again, if the machine was suspended meanwhile."""

RETRY_PAUSE = 1.0
"""Seconds before a store that was not there is asked again."""


class Schedule:
    """Fires what is due, between `start` and `stop`. `clock` gives monotonic seconds, `wall_ms` Unix milliseconds. `falls_back` is
    told when some of it may have an alert to follow up, Unix milliseconds."""

    _log = Logger()

    def __init__(
        self,
        store: Store,
        fanout: FanOut,
        metrics: PushMetrics,
        *,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        call_later: Delayer,
        spawn: Spawner,
        falls_back: Callable[[int], None] | None = None,
    ) -> None:
        self._store = store
        self._fanout = fanout
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        self._call_later = call_later
        self._spawn = spawn
        self._falls_back = falls_back
        self._running = False
        self._working = False
        self._stalled = False  # and that was said
        self._due_ms: int | None = None  # what the timer waits for
        self._timer: Timer | None = None

    def start(self) -> None:
        """Asks the store what is due. Starting twice is harmless."""
        if not self._running:
            self._running = True
            self._begin()

    def stop(self) -> None:
        """Leaves no timer behind; what is under way in the store still goes out. Stopping twice is harmless."""
        self._running = False
        self._disarm()

    def expect(self, due_ms: int) -> None:
        """A message waits for this time, Unix milliseconds."""
        if self._running and (self._due_ms is None or due_ms < self._due_ms):
            self._arm(due_ms)

    def _disarm(self) -> None:
        self._due_ms = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self, due_ms: int) -> None:
        self._disarm()
        self._due_ms = due_ms
        if not self._working:  # else when the work is done
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
        if not self._working:
            self._working = True
            self._spawn(self._work())

    async def _work(self) -> None:
        """One step; then the timer waits for the next."""
        due_ms, self._due_ms = self._due_ms, None
        again_ms: int | None = self._wall_ms() + int(RETRY_PAUSE * 1000)
        try:
            again_ms = await self._step(due_ms)
            self._stalled = False
        except StoreUnavailable as away:
            self._metrics.schedule_stalled()
            if not self._stalled:
                self._stalled = True
                self._log.warn("the schedule waits for the store: {problem}", problem=away.detail)
        finally:  # also after a fault of ours, which must not end the schedule for good
            self._working = False
            waiting = [moment for moment in (again_ms, self._due_ms) if moment is not None]
            if self._running and waiting:
                self._arm(min(waiting))

    async def _step(self, due_ms: int | None) -> int | None:
        """Fires what is due; gives the time of what is not."""
        now_ms = self._wall_ms()
        fired = await self._store.fire_due(now_ms, STEP_MESSAGES)
        at = self._clock()
        for appended in fired:
            self._fanout.appended(appended, at)
        if fired and self._falls_back is not None:
            self._falls_back(now_ms)
        if fired:
            self._metrics.fired(len(fired), max(0.0, (now_ms - (due_ms or now_ms)) / 1000))
        return await self._store.next_due_ms()
