"""Field blocks that use a dynamic table as much as they can: RFC 7541 section 6.2.1. For a server that passes over the client's
SETTINGS_HEADER_TABLE_SIZE and goes on with the table that every connection begins with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from streampush.apns.http2.hpack import INITIAL_TABLE_SIZE, integer, string

_STATIC_ENTRIES: Final = 61  # RFC 7541 appendix A
_ENTRY_OVERHEAD: Final = 32  # section 4.1


class TableEncoder:
    """Encodes the blocks of one connection, in their order: every field enters the table, and is an index when it comes again."""

    __slots__ = ("_entries", "_size")

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, bytes]] = []  # the newest first
        self._size = 0

    def block(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The next block."""
        return b"".join(self._field(name, value) for name, value in fields)

    def _field(self, name: bytes, value: bytes) -> bytes:
        if (name, value) in self._entries:
            return integer(_STATIC_ENTRIES + 1 + self._entries.index((name, value)), 7, 0x80)
        names = [known for known, _ in self._entries]
        if name in names:
            head = integer(_STATIC_ENTRIES + 1 + names.index(name), 6, 0x40)
        else:
            head = b"\x40" + string(name, huffman=True)
        self._insert(name, value)
        return head + string(value, huffman=True)

    def _insert(self, name: bytes, value: bytes) -> None:
        self._entries.insert(0, (name, value))
        self._size += len(name) + len(value) + _ENTRY_OVERHEAD
        while self._size > INITIAL_TABLE_SIZE:
            oldest_name, oldest_value = self._entries.pop()
            self._size -= len(oldest_name) + len(oldest_value) + _ENTRY_OVERHEAD
