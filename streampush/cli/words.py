"""Words of the commands' lines for people."""

from __future__ import annotations

import json


def counted(number: int, what: str) -> str:
    """A number of things, as "1 device" and "2 devices"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def shown(value: object) -> str:
    """Its text, fit for a terminal whoever it comes from: with control characters it is shown as JSON shows it."""
    text = str(value)
    return text if text.isprintable() else json.dumps(text)
