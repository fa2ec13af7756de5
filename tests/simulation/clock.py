"""Virtual time for a whole world: a `task.Clock` that goes from event to event, and the share of it that one process has."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock


class EventClock(Clock):
    """As `task.Clock`, but each call is made at its own time, and finding the next one costs a heap's step and no sorting."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, DelayedCall]] = []
        self._count = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        call = DelayedCall(self.rightNow + delay, callable, args, kw, _forget, self._push, self.seconds)
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """In order of time, those that began first before others of the same time."""
        return list({id(call): call for _, _, call in sorted(self._heap) if call.active()}.values())

    def advance(self, amount: float) -> None:
        end = self.rightNow + amount
        while self.next_time() <= end:
            self.step()
        self.rightNow = max(self.rightNow, end)

    def next_time(self) -> float:
        """When something is to be looked at next: a call, or one that was put off or cancelled since."""
        return self._heap[0][0] if self._heap else math.inf

    def step(self) -> None:
        """Takes what is next and, unless it was put off or cancelled, makes the call."""
        _, _, call = heapq.heappop(self._heap)
        if not call.active():
            return
        if call.delayed_time:
            call.activate_delay()
            self._push(call)
            return
        self.rightNow = max(self.rightNow, call.time)
        call.called = 1
        call.func(*call.args, **call.kw)

    def _push(self, call: DelayedCall) -> None:
        self._count += 1
        heapq.heappush(self._heap, (call.time, self._count, call))


def _forget(call: DelayedCall) -> None:
    """A cancelled call is passed over when its time comes."""


class ProcessClock:
    """The clock as one process sees it: when the process dies, nothing that it has scheduled happens any more."""

    def __init__(self, clock: EventClock) -> None:
        self.alive = True
        self.seconds = clock.seconds
        self._clock = clock

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        return self._clock.callLater(delay, self._call, callable, args, kw)

    def getDelayedCalls(self) -> list[DelayedCall]:
        """The calls of this process."""
        return [call for call in self._clock.getDelayedCalls() if getattr(call.func, "__self__", None) is self]

    def pending(self) -> list[str]:
        """What is scheduled, by name."""
        return [_name(call.args[0]) for call in self.getDelayedCalls()]

    def _call(self, callable: Callable[..., object], args: tuple[Any, ...], kw: dict[str, Any]) -> None:
        if self.alive:
            callable(*args, **kw)


def _name(work: object) -> str:
    return getattr(work, "__qualname__", repr(work))
