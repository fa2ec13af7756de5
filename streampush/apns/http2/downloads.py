"""Flow control of what the server sends: windows, and the WINDOW_UPDATEs that open them again."""

from __future__ import annotations

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, StreamError
from streampush.apns.http2.windows import ReceiveWindow


class Downloads:
    """The bodies of answers. WINDOW_UPDATE frames go to `outgoing`.

    `automatic`: what comes counts as consumed at once, which suits bodies that are collected whole. Else the caller says what
    it consumed, and *unread* is what it was given and did not consume: a stream that ends keeps its unread bytes in the
    connection's window until the caller consumed or gave them up.
    """

    __slots__ = ("_automatic", "_outgoing", "_stream_window", "_unread", "_window")

    def __init__(self, outgoing: list[bytes], stream_window: int, connection_window: int, automatic: bool) -> None:
        self._outgoing = outgoing
        self._stream_window = stream_window
        self._window = ReceiveWindow(connection_window)
        self._automatic = automatic
        self._unread: dict[int, int] = {}  # stream id: bytes; only streams that have some

    def begin(self) -> ReceiveWindow:
        """The window of an answer that has a body."""
        return ReceiveWindow(self._stream_window)

    def charge(self, size: int) -> None:
        """Bytes of DATA came, padding included, on whichever stream. Raises RemoteProtocolError if it was too much."""
        if not self._window.take(size):
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")

    def discard(self, size: int) -> None:
        """Nobody will read these bytes, which were charged."""
        if increment := self._window.free(size):
            self._outgoing.append(frames.window_update(0, increment))

    def receive(self, stream_id: int, window: ReceiveWindow, size: int, padding: int, ended: bool) -> None:
        """Of `size` bytes that were charged `padding` are none of the body's. Raises StreamError if it was too much."""
        if not window.take(size):
            self.discard(size)
            raise StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        freed = size
        if not self._automatic and size > padding:
            freed = padding
            self._unread[stream_id] = self._unread.get(stream_id, 0) + size - padding
        self._free(stream_id, None if ended else window, freed)

    def consumed(self, stream_id: int, window: ReceiveWindow | None, size: int) -> None:
        """The caller is done with so many bytes. `window`: None for a stream that is over. Raises LocalProtocolError."""
        unread = self._unread.get(stream_id)
        if unread is None:
            return  # all was consumed, or given up when the stream was reset
        if not 0 <= size <= unread:
            raise LocalProtocolError(f"stream {stream_id}: {size} bytes consumed of {unread}")
        if size == unread:
            del self._unread[stream_id]
        else:
            self._unread[stream_id] = unread - size
        self._free(stream_id, window, size)

    def give_up(self, stream_id: int) -> None:
        """The caller will not consume what it has of this stream, which is over."""
        self.discard(self._unread.pop(stream_id, 0))

    def clear(self) -> None:
        """The connection is over."""
        self._unread.clear()

    def _free(self, stream_id: int, window: ReceiveWindow | None, size: int) -> None:
        self.discard(size)
        if window is not None and (increment := window.free(size)):
            self._outgoing.append(frames.window_update(stream_id, increment))
