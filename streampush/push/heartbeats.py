"""How the heartbeat of one connection went lately, for people who ask why a device is silent."""

from __future__ import annotations

HISTORY = 16
"""Round trips that are remembered for each connection: eight minutes, by default."""


class Heartbeats:
    """The last round trips in seconds, oldest first, and what went wrong since the connection began."""

    __slots__ = ("jitters", "misses", "round_trips")

    def __init__(self) -> None:
        self.round_trips: tuple[float, ...] = ()
        self.misses = 0  # pings that were not answered in time
        self.jitters = 0  # silences that were longer than normal

    def answered(self, round_trip: float) -> None:
        """A ping was answered after so many seconds."""
        self.round_trips = (*self.round_trips[1 - HISTORY :], round_trip)

    @property
    def last(self) -> float | None:
        """The last round trip, if there was one."""
        return self.round_trips[-1] if self.round_trips else None
