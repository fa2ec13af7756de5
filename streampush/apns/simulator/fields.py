"""Whether the header fields of a request are well formed: RFC 9113 sections 8.2 and 8.3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n \t](?:[^\x00\r\n]*[^\x00\r\n \t])?")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_DEMANDED: Final = (b":method", b":scheme", b":path")
_OF_CONNECTIONS: Final = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))


def find_fault(fields: Sequence[tuple[bytes, bytes]]) -> str:
    """What is malformed, in words that hold nothing of the values; empty: nothing."""
    pseudo: set[bytes] = set()
    regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name in pseudo or name not in _PSEUDO:
                return "a pseudo-header field that is unknown, repeated or behind others"
            pseudo.add(name)
        else:
            regular = True
            fault = _name_fault(name)
            if fault or (name == b"te" and value != b"trailers"):
                return fault or "a te that is for HTTP/1 connections"
        if value and not _VALUE.fullmatch(value):
            return "a field value with characters that are not allowed"
    missing = [name for name in _DEMANDED if name not in pseudo]
    return f"no {missing[0].decode()}" if missing else ""


@lru_cache(maxsize=256)  # clients have few names
def _name_fault(name: bytes) -> str:
    if not _NAME.fullmatch(name):
        return "a field name with characters that are not allowed"
    return "a field that is for HTTP/1 connections" if name in _OF_CONNECTIONS else ""


def announced_length(fields: Sequence[tuple[bytes, bytes]]) -> int | None:
    """The `content-length`; None: not given; -1: not a number that it could be."""
    values = {value for name, value in fields if name == b"content-length"}
    if not values:
        return None
    (value, *others) = values
    return int(value) if not others and value.isdigit() and len(value) < 16 else -1
