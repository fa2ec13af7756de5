"""Ids of messages, epochs and sessions."""

from __future__ import annotations

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U

_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
"""Ten bits as two digits. The ids below are put together by hand from these, for one is made with every publish."""


def message_id(now_ms: int, entropy: Callable[[int], bytes]) -> str:
    """26 characters that sort by time: 48 bits of Unix milliseconds, 80 random ones (the ULID form)."""
    pairs, ms = _PAIRS, now_ms
    time = f"{pairs[ms >> 40 & 255]}{pairs[ms >> 30 & 1023]}{pairs[ms >> 20 & 1023]}{pairs[ms >> 10 & 1023]}{pairs[ms & 1023]}"
    return time + random_id(entropy)


def random_id(entropy: Callable[[int], bytes]) -> str:
    """16 characters, 80 random bits: epochs and sessions."""
    pairs, bits = _PAIRS, int.from_bytes(entropy(10), "big")
    return (
        f"{pairs[bits >> 70]}{pairs[bits >> 60 & 1023]}{pairs[bits >> 50 & 1023]}{pairs[bits >> 40 & 1023]}"
        f"{pairs[bits >> 30 & 1023]}{pairs[bits >> 20 & 1023]}{pairs[bits >> 10 & 1023]}{pairs[bits & 1023]}"
    )


def clearing_id(message_id: str) -> str:
    """The id of the recall notice for a message that was processed on one device: the same whoever makes it."""
    return f"{message_id}-cleared"
