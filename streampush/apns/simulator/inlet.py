"""What the server's side of an HTTP/2 connection lets a client send: windows of requests, and the WINDOW_UPDATEs that open them
again (RFC 9113 section 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError, StreamError
from streampush.apns.http2.windows import DEFAULT_WINDOW
from streampush.apns.simulator.stream import MAX_BODY, Stream


class Inlet:
    """The windows of the connection and of `streams`, which is the owner's. `write` takes frames. `window`: bytes that a stream may
    carry, from when the client knows of it. With `hold` windows are opened by `open_windows` alone."""

    __slots__ = ("_announced", "_connection", "_hold", "_streams", "_write", "new_window")

    def __init__(self, streams: Mapping[int, Stream], write: Callable[[bytes], None], window: int, *, hold: bool) -> None:
        self._streams = streams
        self._write = write
        self._announced = window  # in force when the client acknowledges it (RFC 9113 section 6.9.2)
        self._hold = hold
        self._connection = DEFAULT_WINDOW
        self.new_window = DEFAULT_WINDOW
        """Bytes that a new stream may carry to us."""

    def charge(self, size: int) -> None:
        """So many bytes of DATA came, padding included, on whichever stream. Raises RemoteProtocolError if it was too much."""
        self._connection -= size
        if self._connection < 0:
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window of the connection allows")

    def take(self, stream_id: int, stream: Stream, data: bytes, used: int) -> None:
        """Part of a body, of a frame of `used` bytes that were charged. Raises StreamError."""
        if stream.ended:
            raise StreamError(stream_id, ErrorCode.STREAM_CLOSED, "DATA behind the end of the stream")
        stream.receive_window -= used
        if stream.receive_window < 0:
            raise StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window of the stream allows")
        stream.size += len(data)
        stream.body += data[: MAX_BODY - len(stream.body)]

    def give_back(self, stream_id: int) -> None:
        """Opens the windows of the connection and of this stream, if half of them is used and they are not held."""
        if self._hold:
            return
        if DEFAULT_WINDOW - self._connection >= DEFAULT_WINDOW // 2:
            self._open_connection()
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receive_window <= self.new_window // 2:
            self._open(stream_id, stream)

    def open_windows(self) -> None:
        """Gives back all that was received: for the connection and for every request that is still coming."""
        self._open_connection()
        for stream_id, stream in self._streams.items():
            self._open(stream_id, stream)

    def acknowledged(self) -> None:
        """The client knows of the window that a stream has from now on; what it sent before may have made some negative."""
        difference = self._announced - self.new_window
        if difference:
            self.new_window = self._announced
            for stream_id, stream in self._streams.items():
                stream.receive_window += difference
                self.give_back(stream_id)

    def _open_connection(self) -> None:
        used = DEFAULT_WINDOW - self._connection
        if used > 0:
            self._connection += used
            self._write(frames.window_update(0, used))

    def _open(self, stream_id: int, stream: Stream) -> None:
        used = self.new_window - stream.receive_window
        if used > 0 and not stream.ended:
            stream.receive_window += used
            self._write(frames.window_update(stream_id, used))
