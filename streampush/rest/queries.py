"""What stands behind the `?`, read as strictly as the bodies: a name that is not known, or given twice, is an error."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from streampush.rest.fields import bad, only
from streampush.rest.problems import Problem

MAX_PARAMETERS = 16
_DIGITS = 18
"""More make no number that anything here counts."""


def parse_query(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    """The parameters by name (application/x-www-form-urlencoded, UTF-8). Raises Problem 400."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:  # also what is not ASCII, or not UTF-8 when it is decoded
        raise Problem(400, "the query cannot be read: it must be UTF-8, percent-encoded, with few parameters") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem(400, "the query names a parameter twice")
    only(found, known)
    return found


def number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A parameter as a whole number from `low` to `high`. Raises Problem 400."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS) or not low <= int(text) <= high:
        raise bad(name, f"must be a whole number from {low} to {high}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is `true` or `false`, and `false` if it is left out. Raises Problem 400."""
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise bad(name, "must be true or false")
    return text == "true"
