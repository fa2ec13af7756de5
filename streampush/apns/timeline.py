"""What happened to a connection, briefly, for whoever looks into a fault afterwards (`streampush apns status`)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """`at`: seconds of the pool's clock. `what`: English, nothing of any request; of a server's texts what `printable` leaves."""

    at: float
    what: str


class Timeline:
    """The first moment and the latest; those in between are dropped when there are too many. `kept`: how many in all."""

    __slots__ = ("_first", "_latest", "dropped")

    def __init__(self, kept: int) -> None:
        self.dropped = 0
        self._first: Moment | None = None
        self._latest: deque[Moment] = deque(maxlen=max(kept - 1, 1))

    def add(self, at: float, what: str) -> None:
        """Something happened."""
        moment = Moment(at, what)
        if self._first is None:
            self._first = moment
            return
        if len(self._latest) == self._latest.maxlen:
            self.dropped += 1
        self._latest.append(moment)

    def moments(self) -> tuple[Moment, ...]:
        """Oldest first."""
        return () if self._first is None else (self._first, *self._latest)


def printable(text: bytes, limit: int = 100) -> str:
    """A server's text as a log line can show it: printable ASCII, cut; all else is a question mark."""
    shown = "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in text[:limit])
    return shown + "..." if len(text) > limit else shown
