"""Counting that costs an addition: exported when somebody scrapes, not when something happens.

The label sets are closed: every label exists with 0 from the start, and what is not in the set is counted as "other", so that no
caller can grow the number of time series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, product

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

OTHER = "other"

MILLISECOND_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From what one turn of the reactor takes to what a person would notice."""
SECOND_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Round trips over mobile networks, handshakes."""


class Tally:
    """A counter with labels. `names`: the labels' names; `known`: for each of them the values that it may have."""

    __slots__ = ("_counts", "_help", "_known", "_name", "_names")

    def __init__(self, name: str, help_text: str, names: Sequence[str] = (), known: Sequence[Iterable[str]] = ()) -> None:
        self._name = name
        self._help = help_text
        self._names = tuple(names)
        self._known = tuple(frozenset((*values, OTHER)) for values in known)
        eager = product(*(dict.fromkeys(values) for values in known))
        self._counts: dict[tuple[str, ...], float] = dict.fromkeys(eager, 0)

    def add(self, *labels: str, amount: float = 1) -> None:
        """Counts. A label that is not known is counted as "other"."""
        try:
            self._counts[labels] += amount
        except KeyError:
            labels = tuple(label if label in known else OTHER for label, known in zip(labels, self._known, strict=True))
            self._counts[labels] = self._counts.get(labels, 0) + amount

    def export(self) -> CounterMetricFamily:
        family = CounterMetricFamily(self._name, self._help, labels=self._names)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return family


class Buckets:
    """A histogram. `bounds`: the upper bounds (inclusive) of the buckets, ascending; one without a bound is added."""

    __slots__ = ("_bounds", "_counts", "_help", "_name", "_sum")

    def __init__(self, name: str, help_text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._help = help_text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Counts `weight` observations of the same value."""
        self._counts[bisect_left(self._bounds, value)] += weight
        self._sum += value * weight

    def export(self) -> HistogramMetricFamily:
        names = (*(repr(float(bound)) for bound in self._bounds), "+Inf")
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)
