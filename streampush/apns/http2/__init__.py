"""An HTTP/2 client core without IO: bytes in, events out, time as input. RFC 9113 (HTTP/2) and RFC 7541 (HPACK).

`errors`: whose fault, how far it reaches. `frames`: the codec of both sides.
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

__all__ = [
    "ErrorCode",
    "Frame",
    "FrameReader",
    "FrameType",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "StreamError",
    "error_name",
]
