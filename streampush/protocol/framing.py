"""Frames from bytes and back: docs/protocol.md section 3.

    frame = length (4 bytes, big-endian) . payload (length bytes) . crc32 (4 bytes, big-endian, IEEE 802.3, of payload)

Theory of operation. The decoder is a function from the whole byte string to a list of results; how the string was cut into
chunks has no influence. It is in one of two modes:

- *aligned*: the next byte begins a frame. A length in range is trusted: the frame is taken whole, and dropped alone if its
  checksum fails. A length out of range (0, or above the limit) means that the position is lost.
- *scanning*: the position is lost. The first offset wins that holds a whole frame (length in range, checksum right) and that
  frame must lie within `max_resync_bytes` of the place where the position was lost. An offset with a plausible length is
  waited for, never skipped because bytes are missing, or chunking would matter.

Work is bounded: aligned mode looks at every byte once, a scan at each offset once. What a scan checksums for offsets that turn
out wrong is *waste*; it may run up to `RESYNC_CHECKSUM_FACTOR` windows, and only whole frames taken since pay it back, byte for
byte. Or a peer could make every offset look like a long frame, and do so again behind each small good one.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TypeAlias
from zlib import crc32

from streampush.protocol.codes import Code
from streampush.protocol.errors import LocalProtocolError, RemoteProtocolError

HEADER_SIZE = 4
TRAILER_SIZE = 4
FRAME_OVERHEAD = HEADER_SIZE + TRAILER_SIZE

MAX_FRAME_LIMIT = 16 * 1024 * 1024 - 1
"""Bytes of payload; the highest `max_frame` that can be configured, so that the first byte of a frame is always zero."""

DEFAULT_MAX_FRAME = 1024 * 1024
DEFAULT_MAX_RESYNC_BYTES = 64 * 1024

RESYNC_CHECKSUM_FACTOR = 16
"""Bytes checksummed in vain, in windows: stops a peer from making resynchronisation quadratic."""

_U32 = Struct(">I")
_read_u32 = _U32.unpack_from
_pack_u32 = _U32.pack


def encode_frame(payload: bytes, max_frame: int = MAX_FRAME_LIMIT) -> bytes:
    """One frame. Raises LocalProtocolError for an empty payload or one of more than `max_frame` bytes."""
    size = len(payload)
    if not 1 <= size <= max_frame:
        raise LocalProtocolError(f"payload of {size} bytes, allowed are 1 to {max_frame}")
    return b"".join((_pack_u32(size), payload, _pack_u32(crc32(payload))))


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of the peer that were no frame and were left out."""

    code: Code
    detail: str


Decoded: TypeAlias = bytes | Damage
"""The payload of a good frame, or a damage."""


def _explain_length(head: bytes, length: int, max_frame: int) -> str:
    if head[:2] == b"\x16\x03":
        return "the bytes look like a TLS handshake inside the stream"
    if head in (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"PRI ", b"HTTP"):
        return "the bytes look like HTTP"
    return f"length {length}, allowed are 1 to {max_frame}"


class FrameDecoder:
    """Incremental, linear decoder of one direction of a connection.

    `max_frame`: bytes of payload, 1 to MAX_FRAME_LIMIT. `max_resync_bytes`: how far behind a lost position to look for the
    next frame; 0: the first lost position is fatal. Raises ValueError for values outside of that.
    """

    __slots__ = ("_buffer", "_min_zeros", "_scan_at", "_scan_end", "_waste", "failure", "max_frame", "max_resync_bytes")

    def __init__(self, max_frame: int = DEFAULT_MAX_FRAME, max_resync_bytes: int = DEFAULT_MAX_RESYNC_BYTES) -> None:
        if not 1 <= max_frame <= MAX_FRAME_LIMIT:
            raise ValueError(f"max_frame {max_frame}, allowed are 1 to {MAX_FRAME_LIMIT}")
        if max_resync_bytes < 0:
            raise ValueError(f"max_resync_bytes {max_resync_bytes} is negative")
        self.max_frame = max_frame
        self.max_resync_bytes = max_resync_bytes
        self.failure: RemoteProtocolError | None = None
        self._buffer = bytearray()
        self._scan_at = -1  # next offset of the buffer to look at; -1: aligned
        self._scan_end = 0  # offset of the buffer where the window of the scan ends
        self._waste = 0  # bytes checksummed in vain, less those of frames taken since
        # Every length that a scan may find has at least this many leading zero bytes: find() jumps over all other offsets.
        longest = min(max_frame, max(1, max_resync_bytes))
        self._min_zeros = bytes(HEADER_SIZE - (longest.bit_length() + 7) // 8)

    @property
    def partial(self) -> bool:
        """Whether a started frame, or a scan for the next one, waits for more bytes."""
        return len(self._buffer) > 0 or self._scan_at >= 0

    @property
    def buffered(self) -> int:
        """Bytes held: never more than one frame or one scan window, and the chunk just given."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Decoded]:
        """Payloads and damages in the order of the stream, however it was cut.

        When the stream is beyond repair, `failure` is set, what was decoded before is still returned, and the next call
        raises the failure, a RemoteProtocolError.
        """
        if self.failure is not None:
            raise self.failure
        found: list[Decoded] = []
        buffer = self._buffer
        if not buffer and self._scan_at < 0:
            used = self._take_aligned(data, found)
            if used < len(data):
                buffer += memoryview(data)[used:]
                if self._lost(found):
                    self._resume(found)
        else:
            buffer += data
            self._resume(found)
        return found

    def _resume(self, found: list[Decoded]) -> None:
        """Works on the buffer until it needs more bytes or the stream is beyond repair."""
        buffer = self._buffer
        while self._scan_at < 0 or self._scan():
            del buffer[: self._take_aligned(buffer, found)]
            if not self._lost(found):
                return

    def _take_aligned(self, data: bytes | bytearray, found: list[Decoded]) -> int:
        """Takes whole frames from the front; gives how many bytes they were. Stops in front of an illegal length."""
        at = 0
        size = len(data)
        max_frame = self.max_frame
        while size - at >= HEADER_SIZE:
            (length,) = _read_u32(data, at)
            end = at + FRAME_OVERHEAD + length
            if end > size or not 1 <= length <= max_frame:
                break
            payload = bytes(data[at + HEADER_SIZE : end - TRAILER_SIZE])
            (checksum,) = _read_u32(data, end - TRAILER_SIZE)
            if checksum == crc32(payload):
                found.append(payload)
            else:
                found.append(Damage(Code.CHECKSUM_MISMATCH, f"frame of {length} bytes"))
            at = end
        if self._waste:
            self._waste = max(0, self._waste - at)
        return at

    def _lost(self, found: list[Decoded]) -> bool:
        """Whether the buffer begins with an illegal length; then a scan begins behind its first byte."""
        buffer = self._buffer
        if len(buffer) < HEADER_SIZE:
            return False
        (length,) = _read_u32(buffer)
        if 1 <= length <= self.max_frame:
            return False
        code = Code.EMPTY_FRAME if length == 0 else Code.FRAME_TOO_LARGE
        detail = _explain_length(bytes(buffer[:HEADER_SIZE]), length, self.max_frame)
        if not self.max_resync_bytes:
            self._fail(code, detail)
            return False
        found.append(Damage(code, detail))
        self._scan_at = 1
        self._scan_end = 1 + self.max_resync_bytes
        return True

    def _scan(self) -> bool:
        """Goes on with the scan. True: the buffer begins with a good frame again. False: more bytes are needed, or it failed."""
        buffer = self._buffer
        at = self._scan_at
        zeros = self._min_zeros
        last = self._scan_end - FRAME_OVERHEAD - 1  # the last offset where the smallest frame fits the window
        while True:
            hit = buffer.find(zeros, at, last + len(zeros))
            at = hit if hit >= 0 else max(at, min(len(buffer) - len(zeros) + 1, last + 1))
            if at > last:
                detail = f"no frame within {self.max_resync_bytes} bytes behind a lost position"
                return self._fail(Code.FRAME_TOO_LARGE, detail)
            if len(buffer) - at < HEADER_SIZE:
                break
            (length,) = _read_u32(buffer, at)
            end = at + FRAME_OVERHEAD + length
            if 1 <= length <= self.max_frame and end <= self._scan_end:
                if end > len(buffer):
                    break
                (checksum,) = _read_u32(buffer, end - TRAILER_SIZE)
                if checksum == crc32(memoryview(buffer)[at + HEADER_SIZE : end - TRAILER_SIZE]):
                    del buffer[:at]
                    self._scan_at = -1
                    return True
                self._waste += length
                if self._waste > RESYNC_CHECKSUM_FACTOR * self.max_resync_bytes:
                    return self._fail(Code.CHECKSUM_MISMATCH, "too many false frames behind a lost position")
            at += 1
        del buffer[:at]
        self._scan_at = 0
        self._scan_end -= at
        return False

    def _fail(self, code: Code, detail: str) -> bool:
        self._buffer.clear()
        self._scan_at = -1
        self.failure = RemoteProtocolError(code, detail)
        return False
