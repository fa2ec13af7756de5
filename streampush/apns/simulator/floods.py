"""Floods: many small frames that bring nothing, and cost who reads them work or answers. RFC 9113 section 10.5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode
from streampush.apns.http2.frames import FrameType
from streampush.apns.simulator.orders import Flood, FloodOf

_UNKNOWN_TYPE: Final = 0xFA
_PRIORITY: Final = b"\0\0\0\0\x10"

_FRAMES: Final[Mapping[FloodOf, Callable[[int, Random], bytes]]] = MappingProxyType(
    {
        FloodOf.SETTINGS: lambda _stream_id, _random: frames.settings(()),
        FloodOf.PING: lambda _stream_id, random: frames.ping(random.randbytes(8)),
        FloodOf.WINDOW_UPDATE: lambda _stream_id, _random: frames.window_update(0, 1),
        FloodOf.PRIORITY: lambda stream_id, _random: frames.frame(FrameType.PRIORITY, 0, stream_id, _PRIORITY),
        FloodOf.UNKNOWN: lambda stream_id, random: frames.frame(
            _UNKNOWN_TYPE, 0, stream_id, random.randbytes(random.randrange(32))
        ),
        FloodOf.RST_STREAM: lambda stream_id, _random: frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM),
    }
)
"""One frame of a flood, for the stream of the request that it comes at."""

_MIXED: Final = tuple(what for what in _FRAMES if what is not FloodOf.RST_STREAM)  # that would end the request


def flood(order: Flood, stream_id: int, random: Random) -> bytes:
    """All frames of it. `random` decides what is in them, and of a mixed one which they are."""
    kinds = _MIXED if order.what is FloodOf.MIXED else (order.what,)
    return b"".join(_FRAMES[random.choice(kinds)](stream_id, random) for _ in range(order.frames))
