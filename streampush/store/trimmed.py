"""Which channels have dropped, by their limits, what could still be read. Shared by the stores of one process."""

from __future__ import annotations

from typing import Final

MAX_TRIMMED: Final = 10_000
"""Channels that are remembered to have done so until somebody asks. It is for a hint to the operator, and about 1 MB."""


class Trimmed:
    """Remembers each channel with its floor before the first drop that nobody has asked for yet."""

    def __init__(self) -> None:
        self._floors: dict[str, int] = {}

    def note(self, channel: str, floor: int) -> None:
        """The channel drops entries behind this offset."""
        if channel not in self._floors and len(self._floors) < MAX_TRIMMED:
            self._floors[channel] = floor

    def take(self, limit: int) -> list[tuple[str, int]]:
        """At most so many, the earliest first, which are not remembered any more."""
        names = [name for name, _ in zip(self._floors, range(limit), strict=False)]
        return [(name, self._floors.pop(name)) for name in names]
