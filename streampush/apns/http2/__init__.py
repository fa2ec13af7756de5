"""An HTTP/2 client core without IO: bytes in, events out, time as input. RFC 9113 (HTTP/2) and RFC 7541 (HPACK).

`errors`: whose fault, how far it reaches. `frames`: the codec of both sides.
`hpack`: field blocks of both sides, with `huffman`, `static_table` and `dynamic_table` as its parts. `header_list`: what it reads.
"""

from __future__ import annotations

from streampush.apns.http2.errors import (
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    StreamError,
    error_name,
)
from streampush.apns.http2.frames import Frame, FrameReader, FrameType
from streampush.apns.http2.header_list import HeaderList
from streampush.apns.http2.hpack import HeaderDecoder

__all__ = [
    "ErrorCode",
    "Frame",
    "FrameReader",
    "FrameType",
    "HeaderDecoder",
    "HeaderList",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "StreamError",
    "error_name",
]
