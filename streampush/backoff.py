"""How waits grow from one failure to the next."""

from __future__ import annotations

_MAX_DOUBLINGS = 32
"""Far above any wait that is allowed, far below a float's end."""


def doubled(first: float, times: int, most: float) -> float:
    """`first` doubled so many times (below 0 as 0), and at most `most`; for any number of times."""
    return min(most, first * 2.0 ** max(0, min(times, _MAX_DOUBLINGS)))
