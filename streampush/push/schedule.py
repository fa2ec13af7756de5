"""The schedule: messages that wait in the store for their time, and go out then like any other.

What is due is moved to the logs by the store, at most STEP_MESSAGES in a turn of the reactor: see `due` for when.
"""

from __future__ import annotations

from collections.abc import Callable

from streampush.push.due import DueSteps
from streampush.push.fanout import FanOut
from streampush.push.ports import Delayer, PushMetrics, Spawner
from streampush.push.store_ports import Store

POLL = 5.0
"""Seconds after which other nodes' messages are looked for, where there may be any: theirs wait in the store when they are gone."""

STEP_MESSAGES = 100
"""Fired in one turn of the reactor: a few milliseconds."""


class Schedule:
    """Fires what is due, between `start` and `stop`; what is under way in the store at the stop still goes out. `expect` is told of
    a message that waits. `clock` gives monotonic seconds, `wall_ms` Unix milliseconds. `falls_back` is told when some of it may
    have an alert to follow up, Unix milliseconds. `shared`: other processes put messages into the store, too."""

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
        shared: bool = False,
    ) -> None:
        self._store = store
        self._fanout = fanout
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        self._falls_back = falls_back
        steps = DueSteps(
            "the schedule",
            self._step,
            stalled=metrics.schedule_stalled,
            wall_ms=wall_ms,
            call_later=call_later,
            spawn=spawn,
            poll=POLL if shared else 0.0,
        )
        self.start = steps.start
        self.stop = steps.stop
        self.expect = steps.expect

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
