"""SETTINGS of both sides: RFC 9113 section 6.5."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError
from streampush.apns.http2.frames import DEFAULT_MAX_FRAME_SIZE, HIGHEST_MAX_FRAME_SIZE, MAX_WINDOW
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.windows import DEFAULT_WINDOW


class Setting(IntEnum):
    """RFC 9113 section 6.5.2. One of any other number means nothing to us."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


def our_settings(limits: Limits) -> list[tuple[int, int]]:
    """What we announce: no push, no dynamic table (a decoder without one is quick), and our bounds."""
    return [
        (Setting.HEADER_TABLE_SIZE, 0),
        (Setting.ENABLE_PUSH, 0),
        (Setting.INITIAL_WINDOW_SIZE, limits.stream_window),
        (Setting.MAX_FRAME_SIZE, limits.max_frame_size),
        (Setting.MAX_HEADER_LIST_SIZE, limits.max_header_list_size),
    ]


class PeerSettings:
    """What the server said so far; its HEADER_TABLE_SIZE does not matter, because our encoder has no table.

    `max_streams` and `max_header_list_size`: None as long as it named no bound. The others have the values of the RFC.
    """

    __slots__ = ("initial_window", "max_frame_size", "max_header_list_size", "max_streams")

    def __init__(self) -> None:
        self.max_streams: int | None = None
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_size = DEFAULT_MAX_FRAME_SIZE
        self.max_header_list_size: int | None = None

    def change(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Takes over one frame. Raises RemoteProtocolError for a value that the RFC forbids."""
        for setting, value in pairs:
            if setting == Setting.MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif setting == Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value}")
                self.initial_window = value
            elif setting == Setting.MAX_FRAME_SIZE:
                if not DEFAULT_MAX_FRAME_SIZE <= value <= HIGHEST_MAX_FRAME_SIZE:
                    raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value}")
                self.max_frame_size = value
            elif setting == Setting.MAX_HEADER_LIST_SIZE:
                self.max_header_list_size = value
            elif setting == Setting.ENABLE_PUSH and value != 0:
                raise RemoteProtocolError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH {value} from a server")
