"""Flow control of what the server sends: RFC 9113 section 5.2. What we send is in `uploads`."""

from __future__ import annotations

DEFAULT_WINDOW = 65_535
"""Bytes; every window before anybody said anything, and that of the connection until the first WINDOW_UPDATE."""


class ReceiveWindow:
    """How much the server may still send, on one stream or on all together.

    What was consumed is told to the server when it makes half a window, so that there is one WINDOW_UPDATE for many frames and
    the server never waits for one as long as we keep up.
    """

    __slots__ = ("_freed", "_left", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size  # bytes that the server may send, as it knows
        self._freed = 0  # bytes consumed, not yet told

    def take(self, size: int) -> bool:
        """Bytes came. False: more than the window allowed."""
        self._left -= size
        return self._left >= 0

    def free(self, size: int) -> int:
        """Bytes were consumed; gives by how much to open the server's window now, or 0."""
        self._freed += size
        if 2 * self._freed < self._size or not self._freed:
            return 0
        increment = self._freed
        self._left += increment
        self._freed = 0
        return increment
