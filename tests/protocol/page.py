"""Reads the tables of docs/protocol.md, so that tests can hold the code against the page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(number: str) -> str:
    """The text of a section, to the next heading of any level."""
    match = re.search(rf"^#+ {re.escape(number)} .*?\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, f"section {number}"
    return match.group(1)


def tables(number: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, the heading first."""
    found: list[list[list[str]]] = []
    inside = False
    for line in section(number).splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set(line) <= set("|-: "):
                found[-1].append(cells)
        inside = line.startswith("|")
    return found
