"""An HTTP/2 client core without IO: bytes in, events out, time as input. RFC 9113 (HTTP/2) and RFC 7541 (HPACK).

`errors`: whose fault, how far it reaches. `frames`: the codec of both sides.
`hpack`: field blocks of both sides, with `huffman`, `static_table` and `dynamic_table` as its parts. `header_list`: what it reads.
`connection`: one connection, with the theory of operation; `events` and `limits` are what its caller needs beside it, and
`streams`, `incoming`, `uploads`, `downloads`, `outbound`, `blocks`, `settings`, `windows` and `keepalive` are its parts.
"""

from __future__ import annotations

from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.errors import (
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    StreamError,
    error_name,
)
from streampush.apns.http2.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    EndedStreams,
    Event,
    GoneAway,
    PingAnswered,
    ResponseReceived,
    SettingsChanged,
    StreamReset,
    TrailersReceived,
    Verdict,
    WindowOpened,
)
from streampush.apns.http2.frames import Frame, FrameReader, FrameType
from streampush.apns.http2.header_list import HeaderList
from streampush.apns.http2.hpack import HeaderDecoder
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.streams import ConnectionState

__all__ = [
    "ClientConnection",
    "ConnectionEnded",
    "ConnectionFailed",
    "ConnectionState",
    "DataReceived",
    "EndedStreams",
    "ErrorCode",
    "Event",
    "Frame",
    "FrameReader",
    "FrameType",
    "GoneAway",
    "HeaderDecoder",
    "HeaderList",
    "Limits",
    "LocalProtocolError",
    "PingAnswered",
    "ProtocolError",
    "RemoteProtocolError",
    "ResponseReceived",
    "SettingsChanged",
    "StreamError",
    "StreamReset",
    "TrailersReceived",
    "Verdict",
    "WindowOpened",
    "error_name",
]
