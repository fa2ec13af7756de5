"""Many times at which something is to be done, and one timer for all of them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from streampush.push.ports import Delayer, Timer

LONGEST = 3_600.0
"""Seconds. A timer is never set further ahead: the clock that the times were taken from may have been corrected by then."""

SLACK = 64
"""Cancelled times that may stay in the heap beside those in force before it is built anew."""


class Alarm:
    """Rings once for each key, at its time or a little later. `clock` and times are monotonic seconds.

    A key has one time: setting it again replaces it. `ring` is the owner's, called with the key.
    """

    def __init__(self, clock: Callable[[], float], call_later: Delayer) -> None:
        self.ring: Callable[[str], None] = lambda key: None
        self._clock = clock
        self._call_later = call_later
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._timer: Timer | None = None
        self._timer_at = 0.0

    def set(self, key: str, at: float, *, sooner: bool = False) -> None:
        """The alarm rings for the key at that time. `sooner`: a time in force that is nearer stays."""
        known = self._times.get(key)
        if known is not None and sooner and known <= at:
            return
        self._times[key] = at
        heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._times) + SLACK:
            self._heap = [(time, name) for name, time in self._times.items()]
            heapify(self._heap)
        self._arm()

    def cancel(self, key: str) -> None:
        """The alarm does not ring for the key."""
        if self._times.pop(key, None) is not None and not self._times:
            self.stop()

    def stop(self) -> None:
        """Forgets everything; no timer is left."""
        self._times.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        now = self._clock()
        self._timer_at = min(at, now + LONGEST)
        self._timer = self._call_later(max(0.0, self._timer_at - now), self._rings)

    def _rings(self) -> None:
        self._timer = None
        now = self._clock()
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heappop(self._heap)
            if self._times.get(key) == at:
                del self._times[key]
                due.append(key)
        try:
            while due:
                self.ring(due.pop(0))
        finally:
            for key in due:  # one failed
                self.set(key, now)
            self._arm()
