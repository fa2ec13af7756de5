"""Frames of HTTP/2 from bytes and back, for both sides of a connection: RFC 9113 sections 4 and 6.

    frame = length (24 bits, of the payload) . type (8) . flags (8) . reserved (1) . stream id (31) . payload

Three groups: `FrameReader` cuts a byte stream into frames; the `parse_...` functions check and read what one kind of frame
carries; the functions named after a frame write it. A parser checks all that the frame alone can tell (length, stream 0 or not,
padding); what depends on the state of the connection is the connection's.

A frame is a plain tuple, because thousands of them are made each second and an object costs as much as all the rest of reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import TypeAlias

from streampush.apns.http2.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, StreamError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends in front of its first frame: RFC 9113 section 3.4."""

FRAME_HEADER = 9
"""Bytes in front of each payload."""

DEFAULT_MAX_FRAME_SIZE = 16_384
"""Bytes of payload that every peer takes: the initial and the lowest SETTINGS_MAX_FRAME_SIZE."""

HIGHEST_MAX_FRAME_SIZE = 16_777_215
"""Bytes of payload; the greatest length that a header can say."""

MAX_STREAM_ID = 2**31 - 1
MAX_WINDOW = 2**31 - 1
"""Bytes; the greatest flow-control window and the greatest increment: RFC 9113 section 6.9.1."""


class FrameType(IntEnum):
    """RFC 9113 section 6. A frame of any other type is legal and means nothing."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


END_STREAM = 0x1
"""Flag of DATA and HEADERS."""
ACK = 0x1
"""Flag of SETTINGS and PING."""
END_HEADERS = 0x4
"""Flag of HEADERS, PUSH_PROMISE and CONTINUATION."""
PADDED = 0x8
"""Flag of DATA, HEADERS and PUSH_PROMISE."""
PRIORITY_FIELDS = 0x20
"""Flag of HEADERS; the RFC calls it PRIORITY."""

Frame: TypeAlias = tuple[int, int, int, bytes]
"""Type, flags, stream id, payload. The type may be one that `FrameType` does not know; the reserved bit is taken away."""

# The length and the type share one word: one unpack gives the header in three numbers.
_HEADER = Struct(">IBI")
_read_header = _HEADER.unpack_from
_pack_header = _HEADER.pack
_SETTING = Struct(">HI")
_U32 = Struct(">I")
_GOAWAY = Struct(">II")

_DATA = int(FrameType.DATA)
_HEADERS = int(FrameType.HEADERS)
_CONTINUATION = int(FrameType.CONTINUATION)


def _explain_length(head: bytes, length: int, limit: int) -> str:
    if head[:5] == b"HTTP/":
        return "the peer speaks HTTP/1, not HTTP/2"
    if head[0] in (0x15, 0x16) and head[1] == 0x03:
        return "the bytes look like TLS inside the connection"
    return f"frame of {length} bytes, allowed are {limit}"


class FrameReader:
    """Cuts one direction of a connection into frames, the same whatever the chunking, in linear time.

    `max_frame_size`: bytes of payload, the greatest that we told the peer to send. What is held is never more than one
    unfinished frame of that size.
    """

    __slots__ = ("_needed", "_rest", "fault", "max_frame_size")

    def __init__(self, max_frame_size: int = DEFAULT_MAX_FRAME_SIZE) -> None:
        if not DEFAULT_MAX_FRAME_SIZE <= max_frame_size <= HIGHEST_MAX_FRAME_SIZE:
            raise ValueError(f"max_frame_size {max_frame_size}, allowed are {DEFAULT_MAX_FRAME_SIZE} to {HIGHEST_MAX_FRAME_SIZE}")
        self.max_frame_size = max_frame_size
        self.fault: RemoteProtocolError | None = None
        self._rest = bytearray()
        self._needed = FRAME_HEADER  # bytes of the rest before there is anything to do

    @property
    def buffered(self) -> int:
        """Bytes of the unfinished frame."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now, in order.

        A frame that is announced longer than `max_frame_size` is a fault as soon as its header is there: the frames in front of
        it are still returned, `fault` is set, and each later call raises it (RemoteProtocolError, FRAME_SIZE_ERROR).
        """
        if self.fault is not None:
            raise self.fault
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return []
            data = bytes(rest)
            rest.clear()
        found: list[Frame] = []
        at = 0
        size = len(data)
        body = FRAME_HEADER  # where the payload begins
        limit = self.max_frame_size
        while body <= size:
            word, flags, stream_id = _read_header(data, at)
            length = word >> 8
            end = body + length
            if end > size or length > limit:
                break
            found.append((word & 0xFF, flags, stream_id & MAX_STREAM_ID, data[body:end]))
            at = end
            body = end + FRAME_HEADER
        if at < size:
            self._keep(data, at)
        return found

    def _keep(self, data: bytes, at: int) -> None:
        """Remembers what is left of the chunk, or that it is a fault."""
        self._needed = FRAME_HEADER
        if len(data) - at >= FRAME_HEADER:
            length = _read_header(data, at)[0] >> 8
            if length > self.max_frame_size:
                text = _explain_length(data[at : at + FRAME_HEADER], length, self.max_frame_size)
                self.fault = RemoteProtocolError(ErrorCode.FRAME_SIZE_ERROR, text)
                return
            self._needed = FRAME_HEADER + length
        self._rest += memoryview(data)[at:]


# Parsers. Each takes what a frame holds behind its type.


def _fault(code: ErrorCode, text: str) -> RemoteProtocolError:
    return RemoteProtocolError(code, text)


def _demand_stream(stream_id: int, name: str) -> None:
    if not stream_id:
        raise _fault(ErrorCode.PROTOCOL_ERROR, f"{name} on stream 0")


def _demand_connection(stream_id: int, name: str) -> None:
    if stream_id:
        raise _fault(ErrorCode.PROTOCOL_ERROR, f"{name} on stream {stream_id}, not 0")


def _demand_size(payload: bytes, size: int, name: str) -> None:
    if len(payload) != size:
        raise _fault(ErrorCode.FRAME_SIZE_ERROR, f"{name} of {len(payload)} bytes, not {size}")


def parse_data(flags: int, stream_id: int, payload: bytes) -> bytes:
    """The data without padding. Flow control counts `len(payload)`, the padding with it: RFC 9113 section 6.9.1."""
    _demand_stream(stream_id, "DATA")
    if not flags & PADDED:
        return payload
    return _unpadded(payload, 1, "DATA")


def parse_headers(flags: int, stream_id: int, payload: bytes) -> bytes:
    """The fragment of the field block, without padding and without the priority fields, which mean nothing any more."""
    _demand_stream(stream_id, "HEADERS")
    if not flags & (PADDED | PRIORITY_FIELDS):
        return payload
    skipped = 5 if flags & PRIORITY_FIELDS else 0
    if flags & PADDED:
        return _unpadded(payload, skipped + 1, "HEADERS")
    if len(payload) < skipped:
        raise _fault(ErrorCode.FRAME_SIZE_ERROR, f"HEADERS of {len(payload)} bytes cannot hold their priority fields")
    return payload[skipped:]


def _unpadded(payload: bytes, before: int, name: str) -> bytes:
    """What lies between the first `before` bytes, the first of which tells the length of the padding, and the padding."""
    if len(payload) < before:
        raise _fault(ErrorCode.FRAME_SIZE_ERROR, f"{name} of {len(payload)} bytes cannot hold their fixed fields")
    end = len(payload) - payload[0]
    if end < before:
        raise _fault(ErrorCode.PROTOCOL_ERROR, f"{name} with {payload[0]} bytes of padding in {len(payload)} bytes")
    return payload[before:end]


def parse_continuation(flags: int, stream_id: int, payload: bytes) -> bytes:
    """The fragment of the field block."""
    _demand_stream(stream_id, "CONTINUATION")
    return payload


def check_priority(flags: int, stream_id: int, payload: bytes) -> None:
    """Raises StreamError for a PRIORITY of wrong length; what it says is obsolete: RFC 9113 section 5.3.2."""
    _demand_stream(stream_id, "PRIORITY")
    if len(payload) != 5:
        raise StreamError(stream_id, ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes, not 5")


def parse_rst_stream(flags: int, stream_id: int, payload: bytes) -> int:
    """The error code, which may be one that `ErrorCode` does not know."""
    _demand_stream(stream_id, "RST_STREAM")
    _demand_size(payload, 4, "RST_STREAM")
    return int.from_bytes(payload, "big")


def parse_settings(flags: int, stream_id: int, payload: bytes) -> list[tuple[int, int]]:
    """Pairs of identifier and value in their order; none for an acknowledgement. Whether a value is legal is not looked at."""
    _demand_connection(stream_id, "SETTINGS")
    if flags & ACK:
        _demand_size(payload, 0, "acknowledgement of SETTINGS")
    if len(payload) % 6:
        raise _fault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes, not a multiple of 6")
    return list(_SETTING.iter_unpack(payload))


def parse_ping(flags: int, stream_id: int, payload: bytes) -> bytes:
    """The eight opaque bytes."""
    _demand_connection(stream_id, "PING")
    _demand_size(payload, 8, "PING")
    return payload


def parse_goaway(flags: int, stream_id: int, payload: bytes) -> tuple[int, int, bytes]:
    """The last stream id that the peer may have acted on, the error code (any number), the debug data (as long as the frame)."""
    _demand_connection(stream_id, "GOAWAY")
    if len(payload) < 8:
        raise _fault(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes, at least 8 are needed")
    last_stream_id, code = _GOAWAY.unpack_from(payload)
    return last_stream_id & MAX_STREAM_ID, code, payload[8:]


def parse_window_update(flags: int, stream_id: int, payload: bytes) -> int:
    """The increment, 1 to 2**31 - 1 bytes. An increment of 0 is a StreamError, on stream 0 a RemoteProtocolError."""
    _demand_size(payload, 4, "WINDOW_UPDATE")
    increment = int.from_bytes(payload, "big") & MAX_WINDOW
    if increment:
        return increment
    if stream_id:
        raise StreamError(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
    raise _fault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0 on stream 0")


# Writers.


def frame(frame_type: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame, also one that the protocol forbids. Raises LocalProtocolError for a payload that no header can announce."""
    size = len(payload)
    if size > HIGHEST_MAX_FRAME_SIZE:
        raise LocalProtocolError(f"frame of {size} bytes, at most {HIGHEST_MAX_FRAME_SIZE} fit")
    return _pack_header(size << 8 | frame_type, flags, stream_id) + payload


def headers(stream_id: int, block: bytes, end_stream: bool, max_frame_size: int = DEFAULT_MAX_FRAME_SIZE) -> bytes:
    """A whole field block: HEADERS, and CONTINUATION frames behind it where `max_frame_size` (bytes, the peer's) asks for them."""
    size = len(block)
    flags = END_STREAM if end_stream else 0
    if size <= max_frame_size:
        return _pack_header(size << 8 | _HEADERS, flags | END_HEADERS, stream_id) + block
    parts = [frame(_HEADERS, flags, stream_id, block[:max_frame_size])]
    for at in range(max_frame_size, size, max_frame_size):
        last = END_HEADERS if at + max_frame_size >= size else 0
        parts.append(frame(_CONTINUATION, last, stream_id, block[at : at + max_frame_size]))
    return b"".join(parts)


def data(stream_id: int, payload: bytes, end_stream: bool) -> bytes:
    """One DATA frame; the caller has cut `payload` to the windows and to the peer's SETTINGS_MAX_FRAME_SIZE."""
    return frame(_DATA, END_STREAM if end_stream else 0, stream_id, payload)


def rst_stream(stream_id: int, code: int) -> bytes:
    """RST_STREAM: ends one stream in both directions."""
    return frame(FrameType.RST_STREAM, 0, stream_id, _U32.pack(code))


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    """SETTINGS with these pairs of identifier and value."""
    return frame(FrameType.SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in pairs))


def settings_ack() -> bytes:
    """The acknowledgement of the peer's SETTINGS."""
    return _SETTINGS_ACK


def ping(opaque: bytes, ack: bool = False) -> bytes:
    """PING or its answer. Raises LocalProtocolError unless `opaque` has eight bytes."""
    if len(opaque) != 8:
        raise LocalProtocolError(f"PING of {len(opaque)} bytes, not 8")
    return frame(FrameType.PING, ACK if ack else 0, 0, opaque)


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """GOAWAY: no stream above `last_stream_id` was or will be acted on. `debug` is for the peer's log."""
    return frame(FrameType.GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the window of the connection. Raises LocalProtocolError unless 1 <= increment <= 2**31 - 1."""
    if not 1 <= increment <= MAX_WINDOW:
        raise LocalProtocolError(f"WINDOW_UPDATE by {increment}, allowed are 1 to {MAX_WINDOW}")
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, _U32.pack(increment))


_SETTINGS_ACK = frame(FrameType.SETTINGS, ACK, 0)
