"""The dynamic table of one direction of a connection: RFC 7541 sections 2.3.2 and 4.

Theory of operation. What an entry counts depends on the length of its decoded strings, and evictions depend on what entries
count. We do not want to decode strings that nobody reads. So an entry in Huffman code is kept as it came, with the least and the
most that it can count:

- What the table holds is the longest run of its newest entries that fits. So entries beyond the run that fits with the *least*
  sizes are gone for certain and are dropped at once: that bounds the memory.
- An entry is there for certain if the run up to it fits with the *most* sizes. Only a look-up of an entry where both differ, and a
  change of the table's size, *settle* the table: the entries that came since the last time are decoded and added anew.

Every entry is settled at most once, so all work is linear in the bytes received.
"""

from __future__ import annotations

from collections import deque

from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError
from streampush.apns.http2.header_list import Field, decoded, least_size, most_size


class DynamicTable:
    """Entries, newest first, that count at most `max_size` bytes together, 32 for each beyond its name and value."""

    __slots__ = ("_entries", "_least", "_most", "_unsettled", "max_size")

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._entries: deque[tuple[Field, int, int]] = deque()  # the field, its least size, `_most` before it came
        self._least = 0  # least sizes of all entries
        self._most = 0  # most sizes of all entries that ever came
        self._unsettled = 0  # how many of the newest entries may have to be decoded to know what is here

    def add(self, field: Field) -> None:
        """Puts the field in front and drops what certainly does not fit any more; that may be the field itself."""
        least = least_size(field)
        most = most_size(field)
        self._entries.appendleft((field, least, self._most))
        self._least += least
        self._most += most
        if self._unsettled or most != least:
            self._unsettled += 1
        self._drop()

    def _drop(self) -> None:
        while self._least > self.max_size:
            self._least -= self._entries.pop()[1]

    def find(self, position: int) -> Field:
        """The entry at `position`, 0 is the newest. Raises RemoteProtocolError (COMPRESSION_ERROR) if there is none."""
        entries = self._entries
        if position < len(entries):
            field, _, before = entries[position]
            if not self._unsettled or self._most - before <= self.max_size:
                return field
            self._settle()
            if position < len(entries):
                return entries[position][0]
        raise RemoteProtocolError(ErrorCode.COMPRESSION_ERROR, f"no entry {position} in the dynamic table")

    def resize(self, max_size: int) -> None:
        """Changes the bytes that there is room for, and drops what does not fit."""
        if max_size and max_size != self.max_size:
            self._settle()
        self.max_size = max_size
        self._drop()

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names and values of all entries, newest first."""
        self._settle()
        return [decoded(field)[:2] for field, _, _ in self._entries]

    @property
    def size(self) -> int:
        """What the entries count, in bytes."""
        self._settle()
        return self._least

    def _settle(self) -> None:
        """Decodes what has to be, so that exactly what fits is left."""
        entries = self._entries
        pending = [entries.popleft() for _ in range(min(self._unsettled, len(entries)))]
        for _, least, before in pending:
            self._least -= least
            self._most = before
        self._unsettled = 0
        for field, _, _ in reversed(pending):
            self.add(decoded(field))
