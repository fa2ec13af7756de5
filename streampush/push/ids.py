"""Ids of messages, epochs and sessions."""

from __future__ import annotations

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U


def _base32(number: int, digits: int) -> str:
    out = ""
    for _ in range(digits):
        out = _ALPHABET[number & 31] + out
        number >>= 5
    return out


def message_id(now_ms: int, entropy: Callable[[int], bytes]) -> str:
    """26 characters that sort by time: 48 bits of Unix milliseconds, 80 random ones (the ULID form)."""
    return _base32(((now_ms & (1 << 48) - 1) << 80) | int.from_bytes(entropy(10), "big"), 26)


def random_id(entropy: Callable[[int], bytes]) -> str:
    """16 characters, 80 random bits: epochs and sessions."""
    return _base32(int.from_bytes(entropy(10), "big"), 16)
