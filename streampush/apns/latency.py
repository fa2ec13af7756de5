"""Latencies, counted in little memory: 160 numbers, each for a range that is 9 % wide."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

_PER_OCTAVE = 8
_LEAST = -12
"""Exponent of two of the smallest latency that is told apart: a quarter of a millisecond."""
_OCTAVES = 20
"""Up to 256 s, far above any deadline."""

_LAST = _OCTAVES * _PER_OCTAVE - 1
_BOUNDS = tuple(float(2.0 ** (index / _PER_OCTAVE + _LEAST)) for index in range(1, _LAST + 1))
"""Where the next range begins; the last one has no end."""

_ROUNDING = 1e-6  # of a count, in a product of a float


class LatencyHistogram:
    """Percentiles of latencies, in seconds. What is old counts half with each `fade`."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * (_OCTAVES * _PER_OCTAVE)

    @property
    def count(self) -> int:
        """How many there are, faded ones as what is left of them."""
        return sum(self._counts)

    def add(self, latency: float) -> None:
        """Counts one; below and above what is told apart it counts at the end."""
        self._counts[bisect_right(_BOUNDS, latency)] += 1

    def add_all(self, latencies: Iterable[float]) -> None:
        """Counts each, as `add` does."""
        counts = self._counts
        for latency in latencies:
            counts[bisect_right(_BOUNDS, latency)] += 1

    def percentile(self, share: float) -> float:
        """The latency that this share (0.0 to 1.0) of them is not above, at most 9 % too high; 0.0 if there is none."""
        missing = share * self.count
        for index, count in enumerate(self._counts):
            missing -= count
            if count and missing <= _ROUNDING:
                return float(2.0 ** ((index + 1) / _PER_OCTAVE + _LEAST))
        return 0.0

    def fade(self) -> None:
        """Halves all counts."""
        self._counts = [count >> 1 for count in self._counts]
