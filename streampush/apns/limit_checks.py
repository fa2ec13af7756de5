"""What every dataclass of limits demands of its numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any


def demand_positive(limits: Any, *, or_zero: Collection[str] = ()) -> None:
    """Raises ValueError for a number of the dataclass `limits` that is below 0; or 0, if its name is not in `or_zero`."""
    for each in fields(limits):
        value = getattr(limits, each.name)
        if isinstance(value, int | float) and (value < 0 or (value == 0 and each.name not in or_zero)):
            raise ValueError(f"{each.name} {value} is too small")
