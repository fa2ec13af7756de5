"""How the apps share what the outbox may have under way, so that a slow one does not hold up the others.

Theory of operation. Each app has so many places for itself: half of all, divided by the apps. The other half is for who comes
first, so that a busy app has more while the others are quiet. An app that has had its share is told to come again later, and not in
a queue here: its work waits in the store, and the work of the others behind it is found. So the longest that anybody waits for a
place of its own is its own pushes' time.

When it is to come again follows from how fast its pushes end: each of those that are put off has a time of its own, as if they
stood in a line. A line of thousands would else come back as one, every second, and be put off again at the cost of the store's
reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHORTEST = 1.0
"""Seconds for which work is put off at least: the store is not asked more often for what had no place."""

LONGEST = 30.0
"""Seconds for which it is put off at most: an app that becomes fast again is not held up for longer."""

FIRST_INTERVAL = 0.05
"""Seconds from one end of a push to the next, before any has ended."""

_NEWEST = 0.05  # what the newest interval counts in their mean


@dataclass(slots=True)
class _Held:
    """An app's places, `own` of which nobody else may have. `interval`: mean seconds between two ends. `next_at`: when the last of
    its line comes."""

    own: int = 0
    places: int = 0
    interval: float = FIRST_INTERVAL
    ended_at: float = 0.0
    next_at: float = 0.0


class Shares:
    """`total` places for all apps together, at least 1. `now`: seconds of one clock."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held: dict[str, _Held] = {}
        self._common = total
        self._taken = 0  # of the common ones

    def reload(self, apps: Iterable[str]) -> None:
        """These apps are in force. One that is not any more has no places for itself, and leaves those that it has."""
        names = frozenset(apps)
        own = self._total // (2 * len(names)) if names else 0
        held = {name: self._held.get(name) or _Held() for name in names}
        held.update((name, one) for name, one in self._held.items() if name not in names and one.places)
        for name, one in held.items():
            one.own = own if name in names else 0
        self._held = held
        self._common = self._total - own * len(names)
        self._taken = sum(max(0, one.places - one.own) for one in held.values())

    def has_room(self, app: str) -> bool:
        """Whether the app may have one more under way."""
        held = self._held.get(app)
        return (held is not None and held.places < held.own) or self._taken < self._common

    def enter(self, app: str, now: float) -> float:
        """Takes a place and gives 0.0, or takes none and gives the seconds after which to come again."""
        held = self._held.setdefault(app, _Held())
        if not self.has_room(app):
            held.next_at = min(max(held.next_at, now + SHORTEST) + held.interval, now + LONGEST)
            return held.next_at - now
        if not held.places:
            held.ended_at = now
        held.places += 1
        self._taken += held.places > held.own
        return 0.0

    def leave(self, app: str, now: float) -> None:
        """A push of the app has ended."""
        held = self._held[app]
        self._taken -= held.places > held.own
        held.places -= 1
        held.interval += _NEWEST * (now - held.ended_at - held.interval)
        held.ended_at = now
