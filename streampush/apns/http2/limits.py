"""Every bound of a connection: what a server can make us keep, answer or wait for, and the rates of what brings nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields

from streampush.apns.http2.frames import DEFAULT_MAX_FRAME_SIZE, HIGHEST_MAX_FRAME_SIZE, MAX_STREAM_ID, MAX_WINDOW
from streampush.apns.http2.windows import DEFAULT_WINDOW

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, seconds, or numbers of frames. Raises ValueError for a value that HTTP/2 or the core does not allow.

    What we announce to the server:

    - `max_frame_size`: bytes of one frame's payload. An answer of APNs has some hundred; the smallest legal value will do.
    - `max_header_list_size`: bytes of one answer's fields as RFC 9113 section 6.5.2 counts them. More costs the server that stream.
    - `stream_window`: bytes of one answer's body that the server may send ahead. APNs sends 30; the default serves other servers.
    - `connection_window`: the same for all streams together; at least 65 535, because HTTP/2 cannot announce less.

    What we keep or do:

    - `max_streams`: open at once, however many more the server allows. Each costs memory; a thousand keep a connection busy.
    - `assumed_max_streams`: open before the server's SETTINGS are there. APNs begins with one, and refuses others.
    - `max_block_size`: bytes of one encoded field block. Longer ones cannot be passed over, because all blocks share a table.
    - `max_continuations`: frames behind HEADERS until the block ends; stops a block of endless empty frames.
    - `max_settings_pairs`: of one SETTINGS frame. There are six settings; a full frame could hold 2730 changes of all windows.
    - `max_debug_size`: bytes of a GOAWAY's debug data that the event holds. APNs sends a short JSON text.
    - `max_replies`: bytes of answers to PING and SETTINGS not yet taken by `outbound`: a server that makes us answer and
      does not read.
    - `max_pings`: PINGs of ours without an answer.

    Rates, each as frames a second and as many in one burst:

    - `pings_rate`, `pings_burst`: PING asks for an answer. Most servers send a few a minute, some measure the way with them.
    - `settings_rate`, `settings_burst`: SETTINGS ask for an answer and may move each window. Servers send one or two in all.
    - `idle_rate`, `idle_burst`: frames that bring nothing: of unknown type, PRIORITY, empty DATA, 1xx answers, GOAWAY again,
      what comes for streams that are over, and WINDOW_UPDATE. Each request and each frame of a body adds `idle_per_frame`,
      because a server may well send some WINDOW_UPDATEs for each.

    Time, in seconds:

    - `settings_timeout`: from the start to the server's SETTINGS and to its answer to ours.
    - `ping_interval`: of silence until a PING goes out. Middleboxes forget connections after a few minutes.
    - `ping_timeout`: of silence after a PING until the connection is given up.
    """

    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE
    max_header_list_size: int = 16 * KIB
    stream_window: int = 256 * KIB
    connection_window: int = 1024 * KIB

    max_streams: int = 2000
    assumed_max_streams: int = 1
    max_block_size: int = 32 * KIB
    max_continuations: int = 16
    max_settings_pairs: int = 32
    max_debug_size: int = 1024
    max_replies: int = 64 * KIB
    max_pings: int = 16

    pings_rate: float = 100.0
    pings_burst: int = 1000
    settings_rate: float = 2.0
    settings_burst: int = 50
    idle_rate: float = 100.0
    idle_burst: int = 2000
    idle_per_frame: int = 8

    settings_timeout: float = 10.0
    ping_interval: float = 60.0
    ping_timeout: float = 10.0

    def __post_init__(self) -> None:
        _demand("max_frame_size", self.max_frame_size, DEFAULT_MAX_FRAME_SIZE, HIGHEST_MAX_FRAME_SIZE)
        _demand("stream_window", self.stream_window, 1, MAX_WINDOW)
        _demand("connection_window", self.connection_window, DEFAULT_WINDOW, MAX_WINDOW)
        _demand("max_streams", self.max_streams, 1, MAX_STREAM_ID)
        _demand("assumed_max_streams", self.assumed_max_streams, 0, self.max_streams)
        _demand("max_pings", self.max_pings, 1, MAX_WINDOW)
        _demand("max_block_size", self.max_block_size, self.max_frame_size, MAX_WINDOW)
        for each in fields(self):
            value = getattr(self, each.name)
            if value < 0 or (value == 0 and each.name.endswith(("_rate", "_timeout", "_interval", "_burst"))):
                raise ValueError(f"{each.name} {value} is too small")


def _demand(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} {value}, allowed are {lowest} to {highest}")


class Allowance:
    """Frames that a server may still send: `burst` at once, `rate` a second in the long run, and what is granted beside."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at: float | None = None  # of the last time that we looked

    def grant(self, count: int) -> None:
        """Room for `count` frames more."""
        self._left += count

    def take(self, now: float) -> bool:
        """Whether one more is allowed at `now`, seconds of a monotonic clock."""
        if self._at is None:
            self._at = now
        if self._left < 1:  # only now is it worth to count what time brought
            self._left = min(self._left + (now - self._at) * self._rate, self._burst)
            self._at = now
            if self._left < 1:
                return False
        self._left -= 1
        return True
