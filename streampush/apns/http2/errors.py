"""Faults of the HTTP/2 core. The class tells whose fault it is and how far it reaches, the instance what to tell the peer."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """What RST_STREAM and GOAWAY say: RFC 9113 section 7. A peer may send any other number too; see `error_name`."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


_NAMES = {int(code): code.name for code in ErrorCode}


def error_name(code: int) -> str:
    """The RFC's name of a code that a peer sent, or its number; for log lines and error texts."""
    return _NAMES.get(code) or f"error 0x{code:x}"


class ProtocolError(Exception):
    """Base of both sides' faults."""


class LocalProtocolError(ProtocolError):
    """We asked the core for something that the protocol does not allow now: a bug on our side, nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the whole connection is over (RFC 9113 section 5.4.1).

    `code` is what to tell the peer, `text` is English and safe to log: it holds nothing that the peer sent but numbers.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text


class StreamError(ProtocolError):
    """The peer broke the protocol on one stream; the others go on (RFC 9113 section 5.4.2). `text` is safe to log."""

    def __init__(self, stream_id: int, code: ErrorCode, text: str) -> None:
        super().__init__(f"stream {stream_id}: {code.name}: {text}")
        self.stream_id = stream_id
        self.code = code
        self.text = text
