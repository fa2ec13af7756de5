"""Results as JSON lines: what was measured, in which unit, median, minimum and maximum, and the ratio ours to naive."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from typing import TextIO

OURS = "streampush"
NAIVE = "naive"


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """Median, minimum, maximum and how many there were. Raises ValueError without samples."""
    return {
        "median": significant(statistics.median(samples)),
        "min": significant(min(samples)),
        "max": significant(max(samples)),
        "runs": len(samples),
    }


def significant(value: float) -> float:
    """Four digits: more are noise."""
    return float(f"{value:.4g}")


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that so great a share of all (0 to 1) does not exceed. Raises IndexError without samples."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Report:
    """Prints the lines of one benchmark and keeps the medians for its ratios."""

    def __init__(self, bench: str, output: TextIO | None = None) -> None:
        self._bench = bench
        self._output = output or sys.stdout

    def result(self, figure: str, subject: str, unit: str, samples: Sequence[float], **facts: object) -> float:
        """A line for one figure of one subject; gives the median. `facts` say under what conditions."""
        values = spread(samples)
        self._line({"figure": figure, "subject": subject, "unit": unit, **values, **facts})
        return float(values["median"])

    def ratio(self, figure: str, numerator: str, denominator: str, samples: Sequence[float], **facts: object) -> None:
        """A line for a ratio; each sample is of one round, so that noise which hits both cancels."""
        self._line({"figure": figure, "subject": f"{numerator}/{denominator}", "unit": "ratio", **spread(samples), **facts})

    def _line(self, fields: dict[str, object]) -> None:
        print(json.dumps({"bench": self._bench, **fields}), file=self._output, flush=True)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Quotients of samples taken in the same round."""
    return [ours / theirs for ours, theirs in zip(numerators, denominators, strict=True) if theirs]
