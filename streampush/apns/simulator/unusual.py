"""An answer in legal frames that servers seldom send: RFC 9113 sections 4.1, 6.1 to 6.3, 6.10, 8.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from streampush.apns.http2 import frames
from streampush.apns.http2.frames import FrameType
from streampush.apns.http2.hpack import block, literal

_UNKNOWN_TYPE: Final = 0xFA
_PADDING: Final = 5
_PIECE: Final = 7  # bytes of a field block in one frame


def unusual_size(body: bytes) -> int:
    """How much of the windows such an answer takes."""
    return len(body) + 2 * (_PADDING + 1) if body else 0


def unusual_answer(stream_id: int, fields: Sequence[tuple[bytes, bytes]], body: bytes, prefix: bytes = b"") -> bytes:
    """A frame of unknown type, an informational answer, PRIORITY, padded HEADERS with priority fields and small CONTINUATIONs,
    padded DATA, and trailers. `prefix`: what the first block must begin with.
    """
    encoded = block(fields)
    pieces = [encoded[at : at + _PIECE] for at in range(0, len(encoded), _PIECE)]
    flags = frames.PADDED | frames.PRIORITY_FIELDS
    parts = [
        frames.frame(_UNKNOWN_TYPE, 0xFF, stream_id, b"grease"),
        frames.headers(stream_id, prefix + block([(b":status", b"103"), (b"link", b"</style.css>; rel=preload")]), False),
        frames.frame(FrameType.PRIORITY, 0, stream_id, b"\0\0\0\0\x10"),
        frames.frame(FrameType.HEADERS, flags, stream_id, bytes((_PADDING, 0, 0, 0, 0, 16)) + pieces[0] + bytes(_PADDING)),
    ]
    parts += [frames.frame(FrameType.CONTINUATION, 0, stream_id, piece) for piece in pieces[1:]]
    parts.append(frames.frame(FrameType.CONTINUATION, frames.END_HEADERS, stream_id))
    for half in (body[: len(body) // 2], body[len(body) // 2 :]) if body else ():
        parts.append(frames.frame(FrameType.DATA, frames.PADDED, stream_id, bytes((_PADDING,)) + half + bytes(_PADDING)))
    parts.append(frames.headers(stream_id, literal(b"x-trailer", b"1"), True))
    return b"".join(parts)
