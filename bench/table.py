"""Result lines as the table of docs/performance.md: `python -m bench | tee results && python -m bench.table < results`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

KNOWN = frozenset(("bench", "figure", "subject", "unit", "median", "min", "max", "runs"))
HEAD = "| figure | conditions | whose | median | from | to | runs |\n|---|---|---|---:|---:|---:|---:|"


def rows(lines: Iterable[str]) -> Iterable[str]:
    """A row for each result; other lines are left out."""
    yield HEAD
    for line in lines:
        if line.startswith("{"):
            yield _row(json.loads(line))


def _row(result: dict[str, Any]) -> str:
    conditions = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.items() if name not in KNOWN)
    unit = "" if result["unit"] == "ratio" else f" {result['unit']}"
    cells = (f"{result['median']:g}{unit}", f"{result['min']:g}", f"{result['max']:g}", str(result["runs"]))
    return f"| {result['figure']} | {conditions} | {result['subject']} | {' | '.join(cells)} |"


def main() -> None:
    print("\n".join(rows(sys.stdin)))


if __name__ == "__main__":
    main()
