"""Names in order, many of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from operator import itemgetter

PIECE = 1000
"""Names in one list at most: adding one moves no more than these, however many there are."""

_LAST = itemgetter(-1)


class OrderedNames:
    """A set of names that can be read in order from any place; no operation looks at more than a few lists."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[list[str]] = []  # none is empty

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, name: str) -> None:
        """Adds a name that is not there."""
        pieces = self._pieces
        if not pieces:
            pieces.append([name])
            return
        place = min(bisect_left(pieces, name, key=_LAST), len(pieces) - 1)
        piece = pieces[place]
        insort(piece, name)
        if len(piece) > PIECE:
            half = len(piece) // 2
            pieces[place : place + 1] = [piece[:half], piece[half:]]

    def remove(self, name: str) -> None:
        """Takes out a name that is there."""
        place = bisect_left(self._pieces, name, key=_LAST)
        piece = self._pieces[place]
        del piece[bisect_left(piece, name)]
        if not piece:
            del self._pieces[place]

    def behind(self, name: str, limit: int) -> list[str]:
        """At most so many of the names that come behind this one, in order."""
        found: list[str] = []
        place = bisect_right(self._pieces, name, key=_LAST)
        while len(found) < limit and place < len(self._pieces):
            piece = self._pieces[place]
            first = 0 if found else bisect_right(piece, name)
            found += piece[first : first + limit - len(found)]
            place += 1
        return found
