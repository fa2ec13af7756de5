"""What the server's side of an HTTP/2 connection writes: answers as the client's windows allow (RFC 9113 section 5.2), and frames.

Nothing is ever added to the dynamic table of the answers' field blocks, unless the owner gives a `TableEncoder`.
"""

from __future__ import annotations

from collections.abc import Iterable

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError
from streampush.apns.http2.hpack import block, size_update
from streampush.apns.http2.windows import DEFAULT_WINDOW
from streampush.apns.simulator.stream import Stream
from streampush.apns.simulator.table_encoder import TableEncoder


class Outlet:
    """The outbound buffer, and what the client said about how it may be filled."""

    __slots__ = ("_answer_prefix", "_encoder", "_out", "_window", "frame_size", "mute", "new_window", "size")

    def __init__(self, encoder: TableEncoder | None = None) -> None:
        self.size = 0
        """Bytes that wait to be taken."""
        self.new_window = DEFAULT_WINDOW
        """Bytes that a new stream may carry to the client."""
        self.frame_size = frames.DEFAULT_MAX_FRAME_SIZE
        self.mute = False
        """Whether what is written is dropped."""
        self._window = DEFAULT_WINDOW
        self._encoder = encoder
        self._answer_prefix = b""
        self._out: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Any bytes."""
        if not self.mute:
            self._out.append(data)
            self.size += len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        data = b"".join(self._out)
        self._out.clear()
        self.size = 0
        return data

    def drop_table(self) -> None:
        """The client allows a smaller table: the next field block acknowledges it (RFC 7541 section 4.2)."""
        self._answer_prefix = size_update(0)

    def take_prefix(self) -> bytes:
        """What the next field block must begin with."""
        prefix, self._answer_prefix = self._answer_prefix, b""
        return prefix

    def spend(self, stream: Stream, size: int) -> bool:
        """Takes so much of the windows, if they allow it."""
        if size > min(stream.send_window, self._window):
            return False
        stream.send_window -= size
        self._window -= size
        return True

    def answer(self, stream_id: int, stream: Stream, fields: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Begins the answer. Whether it is written to its end."""
        stream.answered = True
        stream.pending = body
        encoded = self.take_prefix() + block(fields) if self._encoder is None else self._encoder.block(fields)
        self.write(frames.headers(stream_id, encoded, not body, self.frame_size))
        return not body or self.flush(stream_id, stream)

    def flush(self, stream_id: int, stream: Stream) -> bool:
        """Writes as much of the answer's body as the windows allow. Whether the answer was finished by it."""
        if not stream.pending:
            return False
        while stream.pending:
            size = min(len(stream.pending), stream.send_window, self._window, self.frame_size)
            if size <= 0:
                return False
            part, stream.pending = stream.pending[:size], stream.pending[size:]
            stream.send_window -= size
            self._window -= size
            self.write(frames.data(stream_id, part, not stream.pending))
        return True

    def widen(self, increment: int) -> None:
        """WINDOW_UPDATE of the connection. Raises RemoteProtocolError."""
        self._window += increment
        if self._window > frames.MAX_WINDOW:
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the window of the connection is too large")

    def widen_all(self, streams: Iterable[Stream], new_window: int) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE, which changes the windows of open streams too. Raises RemoteProtocolError."""
        if new_window > frames.MAX_WINDOW:
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
        difference = new_window - self.new_window
        self.new_window = new_window
        for stream in streams:
            stream.send_window += difference
            if stream.send_window > frames.MAX_WINDOW:
                raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "the window of a stream is too large")
