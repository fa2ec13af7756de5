"""docs/apns.md names every limit of a pool with its default."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from streampush.apns.link_state import LinkState
from streampush.apns.pool_limits import PoolLimits

PAGE = (Path(__file__).parents[2] / "docs" / "apns.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Connections") : PAGE.index("## The simulator")]


def rows(head: str) -> list[list[str]]:
    """The cells of the table with that head, without the head."""
    table = SECTION[SECTION.index(head) :].split("\n\n")[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_every_limit_is_told_with_its_default_and_a_reason() -> None:
    told = {name: default for name, default, _, reason in rows("| limit |") if reason}
    assert told == {each.name: str(getattr(PoolLimits(), each.name)) for each in fields(PoolLimits)}


def test_every_state_is_told_in_its_order() -> None:
    assert [row[0] for row in rows("| state |")] == [state.value for state in LinkState]
