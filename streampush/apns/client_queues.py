"""Where a client's pushes wait: for room in their lane, for the time of their next try, or for another credential."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from streampush.apns.client_limits import ClientLimits
from streampush.apns.lanes import Lane
from streampush.apns.sending import Sending
from streampush.apns.waiting import Waiting


class ClientQueues:
    """All bounded together, in number and bytes.

    In the lanes the earliest deadline comes first. `resting`: by the time of the next try. `held`: until the credential is another
    one, by deadline.
    """

    __slots__ = ("_limits", "count", "healthy", "held", "lanes", "queued", "resting", "size", "suspect")

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self.suspect = self._make()
        self.healthy = self._make()
        self.lanes = {Lane.SUSPECT: self.suspect, Lane.HEALTHY: self.healthy}
        self.resting = self._make()
        self.held = self._make()
        self.count = 0
        """All that wait."""
        self.queued = 0
        """Those that only wait for room."""
        self.size = 0
        """Their bytes."""

    def _make(self) -> Waiting[Sending]:
        return Waiting(self._limits.max_queued, self._limits.max_queued_bytes)

    def has_room(self, sending: Sending) -> bool:
        """Whether one more may wait."""
        return self.count < self._limits.max_queued and self.size + sending.size <= self._limits.max_queued_bytes

    def add(self, place: Waiting[Sending], sending: Sending, due: float) -> None:
        """It waits there, until `due` at most."""
        sending.place = place
        self.count += 1
        self.queued += self._is_lane(place)
        self.size += sending.size
        place.add(sending, due)

    def remove(self, sending: Sending) -> bool:
        """It waits no more. Whether it did."""
        place, sending.place = sending.place, None
        if place is None:
            return False
        place.remove(sending)
        self.count -= 1
        self.queued -= self._is_lane(place)
        self.size -= sending.size
        return True

    def pop(self, place: Waiting[Sending]) -> Sending | None:
        """The first there."""
        sending = place.pop()
        if sending is not None:
            sending.place = None
            self.count -= 1
            self.queued -= self._is_lane(place)
            self.size -= sending.size
        return sending

    def pop_due(self, place: Waiting[Sending], now: float) -> Sending | None:
        """The first there whose time has come."""
        due = place.due()
        return self.pop(place) if due is not None and due <= now else None

    def next_due(self) -> float:
        """When the next one's time comes, or inf."""
        return min((due for each in self._all() if (due := each.due()) is not None), default=inf)

    def drain(self) -> Iterator[Sending]:
        """Takes out all, one by one."""
        for place in self._all():
            while (sending := self.pop(place)) is not None:
                yield sending

    def _is_lane(self, place: Waiting[Sending]) -> bool:
        return place is self.healthy or place is self.suspect

    def _all(self) -> Iterator[Waiting[Sending]]:
        yield from self.lanes.values()
        yield self.resting
        yield self.held
