"""One request and its answer on the server's side of an HTTP/2 connection."""

from __future__ import annotations

from typing import Final

MAX_BODY: Final = 16 * 1024
"""Bytes of a request that are kept; one that is longer is complete then and there, whatever still comes."""


class Stream:
    """A stream from its HEADERS until both sides have ended it. `fields`: of the request. Windows in bytes."""

    __slots__ = ("answered", "body", "complete", "ended", "fields", "pending", "receive_window", "send_window", "size")

    def __init__(self, fields: tuple[tuple[bytes, bytes], ...], receive_window: int, send_window: int) -> None:
        self.fields = fields
        self.body = bytearray()
        self.size = 0
        self.receive_window = receive_window
        self.send_window = send_window
        self.pending = b""  # of the answer's body, for want of a window
        self.ended = False  # by the client
        self.complete = False  # the owner was told of the whole request
        self.answered = False  # the answer's headers are written

    @property
    def too_long(self) -> bool:
        """Whether the body was cut."""
        return self.size > MAX_BODY
