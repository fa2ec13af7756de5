"""What a connection has written and the kernel has not taken yet."""

from __future__ import annotations

from typing import Final

JOIN_BYTES: Final = 65536
"""Small writes are joined up to this size, which bounds the copy; larger ones go out as they are."""


class SendBuffer:
    """Buffers in the order in which they were put. They are kept, not copied, until several are joined to be sent.

    `size`: bytes in all. There is no limit in here.
    """

    __slots__ = ("_current", "_queue", "size")

    def __init__(self) -> None:
        self.size = 0
        self._queue: list[bytes] | bytes | None = None  # a single buffer needs no list
        self._current: bytes | memoryview | None = None  # OpenSSL insists on being given this again

    def put(self, data: bytes) -> bool:
        """Adds what is not empty; gives whether it is the only one that `head` has not given."""
        self.size += len(data)
        queue = self._queue
        if queue is None:
            self._queue = data
            return True
        if isinstance(queue, list):
            queue.append(data)
        else:
            self._queue = [queue, data]
        return False

    def head(self) -> bytes | memoryview:
        """What to send next: the rest of what was given before, or a buffer as it was put, or several joined; empty: all is sent.

        The same, until `sent` is called.
        """
        current = self._current
        if not current:
            current = self._current = self._take()
        return current

    def sent(self, given: bytes | memoryview, count: int) -> None:
        """So many bytes of what `head` has given are out."""
        self.size -= count
        self._current = None if count == len(given) else memoryview(given)[count:]

    def clear(self) -> None:
        """Drops all."""
        self._queue = self._current = None
        self.size = 0

    def _take(self) -> bytes:
        queue = self._queue
        if not isinstance(queue, list):
            self._queue = None
            return queue or b""
        if self.size <= JOIN_BYTES:
            self._queue = None
            return b"".join(queue)
        size = count = 0
        for item in queue:
            if count and size + len(item) > JOIN_BYTES:
                break
            size += len(item)
            count += 1
        run = queue[:count]
        del queue[:count]
        if not queue:
            self._queue = None
        return run[0] if count == 1 else b"".join(run)
