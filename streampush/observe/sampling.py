"""How many lines of a kind are worth writing: the first ones of each window. Pure; time is an input, memory is bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Window:
    ends_at: float
    admitted: int = 0
    withheld: int = 0


class Sampler(Generic[K]):
    """Admits `burst` lines of a kind in `window` seconds and counts the rest.

    At most `max_kinds` kinds are remembered; the one whose window began first is given up for a new one, with its count.
    """

    def __init__(self, burst: int, window: float, max_kinds: int = 1_000) -> None:
        self._burst = burst
        self._window = window
        self._max_kinds = max_kinds
        self._windows: OrderedDict[K, _Window] = OrderedDict()
        self._evicted: list[tuple[K, int]] = []

    def admit(self, kind: K, now: float) -> bool:
        """Whether a line of this kind is to be written now. Call `ended` first: a window that is over must be reported."""
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= self._max_kinds:
                self._evict()
            window = self._windows[kind] = _Window(now + self._window)
        if window.admitted < self._burst:
            window.admitted += 1
            return True
        window.withheld += 1
        return False

    def _evict(self) -> None:
        kind, window = self._windows.popitem(last=False)
        if window.withheld:
            self._evicted.append((kind, window.withheld))

    def ended(self, now: float) -> Iterator[tuple[K, int]]:
        """Ends the windows that are over and gives the kinds of which lines were withheld, and how many."""
        evicted, self._evicted = self._evicted, []
        yield from evicted
        while self._windows:
            kind, window = next(iter(self._windows.items()))
            if now < window.ends_at:
                return
            del self._windows[kind]
            if window.withheld:
                yield kind, window.withheld
