"""Ids of messages, epochs and sessions."""

from __future__ import annotations

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U

_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


def _base32(number: int, digits: int) -> str:
    """An even number of digits; two at a time, for an id is made with every publish."""
    pairs = [_PAIRS[number >> shift & 1023] for shift in range(5 * digits - 10, -1, -10)]
    return "".join(pairs)


def message_id(now_ms: int, entropy: Callable[[int], bytes]) -> str:
    """26 characters that sort by time: 48 bits of Unix milliseconds, 80 random ones (the ULID form)."""
    return _base32(((now_ms & (1 << 48) - 1) << 80) | int.from_bytes(entropy(10), "big"), 26)


def random_id(entropy: Callable[[int], bytes]) -> str:
    """16 characters, 80 random bits: epochs and sessions."""
    return _base32(int.from_bytes(entropy(10), "big"), 16)


def clearing_id(message_id: str) -> str:
    """The id of the recall notice for a message that was processed on one device: the same whoever makes it."""
    return f"{message_id}-cleared"
