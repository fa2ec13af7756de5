"""Ids of messages, epochs and sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U

_DIGITS = frozenset(_ALPHABET)

_DIGIT_OF = (_ALPHABET * 8).encode()
"""A digit for each byte, each of them for eight: as even as the bytes are, and without arithmetic in Python."""

POOL_BYTES = 4096
"""Random bytes that are asked of the system at once: 256 ids. A call for each would cost more than all else of an id."""


class EntropyPool:
    """Random bytes of `source`, such as os.urandom, that asks it seldom. No byte is given twice.

    For ids that need not be secret: what is not given yet lies in memory. A process that forks afterwards would give the same
    bytes in both.
    """

    __slots__ = ("_at", "_pool", "_source")

    def __init__(self, source: Callable[[int], bytes]) -> None:
        self._source = source
        self._pool = b""
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """So many bytes, at most POOL_BYTES."""
        at, end = self._at, self._at + size
        if end > len(self._pool):
            self._pool = self._source(POOL_BYTES)
            at, end = 0, size
        self._at = end
        return self._pool[at:end]


def message_id(now_ms: int, entropy: Callable[[int], bytes]) -> str:
    """26 characters that sort by time: 48 bits of Unix milliseconds, 80 random ones (the ULID form)."""
    return _time(now_ms) + random_id(entropy)


@lru_cache(maxsize=16)
def _time(ms: int) -> str:
    """Ten digits, the same for all ids of a millisecond."""
    return "".join(_ALPHABET[ms >> shift & 31] for shift in range(45, -5, -5))


def made_at_ms(message_id: str) -> int | None:
    """The Unix milliseconds that an id of `message_id` begins with; None for another form of id."""
    if len(message_id) != 26 or not set(message_id) <= _DIGITS:
        return None
    made = 0
    for digit in message_id[:10]:
        made = made << 5 | _ALPHABET.index(digit)
    return made


def random_id(entropy: Callable[[int], bytes]) -> str:
    """16 characters, 80 random bits, each character from a byte: epochs and sessions."""
    return entropy(16).translate(_DIGIT_OF).decode()


def clearing_id(message_id: str) -> str:
    """The id of the recall notice for a message that was processed on one device: the same whoever makes it."""
    return f"{message_id}-cleared"
