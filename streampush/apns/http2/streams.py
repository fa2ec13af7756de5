"""The requests that are open, the ways in which they end, and what the server can know of each. The theory is in `connection`."""

from __future__ import annotations

from enum import Enum

from streampush.apns.http2 import frames
from streampush.apns.http2.downloads import Downloads
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError
from streampush.apns.http2.events import EndedStreams, Verdict
from streampush.apns.http2.frames import MAX_STREAM_ID
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.outbound import Outbound
from streampush.apns.http2.uploads import Uploads
from streampush.apns.http2.windows import ReceiveWindow

_TABLE_SIZE_0 = b"\x20"
"""RFC 7541 section 6.3: the size of the dynamic table is 0 from here on."""


class ConnectionState(Enum):
    """Where a connection is in its life; it only moves forward."""

    IDLE = "idle"
    """Not started."""
    OPEN = "open"
    DRAINING = "draining"
    """One side sent GOAWAY; no new streams, the open ones go on."""
    CLOSED = "closed"
    """The last event was given."""


class Streams:
    """All streams of one connection.

    `open`: the answer so far of each, by stream id, rising: None until its HEADERS came, then the window of its body.
    `limit`: how many may be open at once. `next_id`: of the next request. `prefix`: what a field block begins with.
    `last_processed`: the highest stream on which the server may act.
    """

    __slots__ = ("downloads", "last_processed", "limit", "next_id", "open", "outbound", "prefix", "state", "uploads")

    def __init__(self, limits: Limits, first_stream_id: int, automatic_windows: bool) -> None:
        self.state = ConnectionState.IDLE
        self.open: dict[int, ReceiveWindow | None] = {}
        self.limit = 0
        self.next_id = first_stream_id
        self.prefix = _TABLE_SIZE_0
        self.last_processed = MAX_STREAM_ID
        self.outbound = Outbound()
        self.uploads = Uploads(self.outbound.frames)
        self.downloads = Downloads(self.outbound.frames, limits.stream_window, limits.connection_window, automatic_windows)

    def is_open(self, stream_id: int) -> bool:
        """Whether the caller's stream is not over. Raises LocalProtocolError for one that never was."""
        if stream_id in self.open:
            return True
        if not stream_id & 1 or stream_id >= self.next_id:
            raise LocalProtocolError(f"there was no stream {stream_id}")
        return False

    def was_used(self, stream_id: int) -> bool:
        """Whether the server may name this stream at all; else it is idle to the server."""
        return stream_id <= self.outbound.written_to and bool(stream_id & 1)

    def is_written(self, stream_id: int) -> bool:
        """Whether the stream is open and the server can know of it."""
        return stream_id in self.open and stream_id <= self.outbound.written_to

    def complete(self, stream_id: int) -> None:
        """The answer is complete. A server that gave it before it had the whole body does not need the rest: section 8.1."""
        del self.open[stream_id]
        if self.uploads.drop(stream_id):
            self.outbound.frames.append(frames.rst_stream(stream_id, ErrorCode.CANCEL))

    def forget(self, stream_id: int) -> None:
        """The stream is over without a complete answer."""
        del self.open[stream_id]
        self.uploads.drop(stream_id)
        self.downloads.give_up(stream_id)

    def take_back(self, stream_id: int) -> None:
        """The stream is over, and nothing of it has left nor will."""
        self.forget(stream_id)
        self.outbound.drop(stream_id)

    def refuse_above(self, last_stream_id: int) -> EndedStreams:
        """The server's GOAWAY: no new streams, and those above `last_stream_id` are over, as are those that have not left."""
        self.drain()
        self.last_processed = min(last_stream_id, self.last_processed)
        written_to = self.outbound.written_to
        ended: list[tuple[int, Verdict]] = []
        for stream_id in reversed(self.open):
            if stream_id > written_to:
                ended.append((stream_id, Verdict.NOT_WRITTEN))
            elif stream_id > self.last_processed:
                ended.append((stream_id, Verdict.REFUSED if self.open[stream_id] is None else Verdict.UNKNOWN))
            else:
                break
        for stream_id, verdict in ended:
            if verdict is Verdict.NOT_WRITTEN:
                self.take_back(stream_id)
            else:
                self.forget(stream_id)
        self.sweep()
        return tuple(reversed(ended))

    def sweep(self) -> None:
        """Takes what was taken back out of the buffer, and lets others have the window that it had."""
        if freed := self.outbound.sweep():
            self.uploads.window += freed
            self.uploads.distribute()

    def take_outbound(self) -> bytes:
        """Everything that is to be written."""
        self.sweep()
        if self.open:
            self.prefix = b""  # a block that says it leaves now, or has left
        return self.outbound.take(self.next_id - 2)

    def drain(self) -> None:
        """No new streams from here on."""
        self.state = ConnectionState.DRAINING
        self.limit = 0

    def end(self) -> EndedStreams:
        """The connection is over and nothing in the buffer will leave; gives what becomes of the streams."""
        written_to = self.outbound.written_to
        ended = tuple((each, Verdict.NOT_WRITTEN if each > written_to else Verdict.UNKNOWN) for each in self.open)
        self.state = ConnectionState.CLOSED
        self.limit = 0
        self.open.clear()
        self.uploads.clear()
        self.downloads.clear()
        self.outbound.clear()
        return ended
