"""A field block that comes in several frames: HEADERS without END_HEADERS, and CONTINUATIONs. RFC 9113 section 4.3."""

from __future__ import annotations

from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError
from streampush.apns.http2.limits import Limits


class PartialBlock:
    """What has come of it. No other frame may come in between."""

    __slots__ = ("_continuations", "_limits", "_parts", "_size", "ended", "stream_id")

    def __init__(self, stream_id: int, fragment: bytes, ended: bool, limits: Limits) -> None:
        self.stream_id = stream_id
        self.ended = ended  # HEADERS had END_STREAM
        self._limits = limits
        self._parts = [fragment]
        self._size = len(fragment)
        self._continuations = 0

    def add(self, fragment: bytes) -> None:
        """A CONTINUATION came. Raises RemoteProtocolError if the block is too long or in too many pieces."""
        self._parts.append(fragment)
        self._size += len(fragment)
        self._continuations += 1
        if self._size > self._limits.max_block_size:
            text = f"field block of more than {self._limits.max_block_size} bytes"
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, text)
        if self._continuations > self._limits.max_continuations:
            text = f"field block in more than {self._limits.max_continuations} CONTINUATION frames"
            raise RemoteProtocolError(ErrorCode.ENHANCE_YOUR_CALM, text)

    def join(self) -> bytes:
        """The block, when the last piece is there."""
        return b"".join(self._parts)
