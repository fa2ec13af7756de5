"""Words of the commands' lines for people."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """A number of things, as "1 device" and "2 devices"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
