"""Bodies that did not fit the server's windows at once, and those that the caller sends piece by piece.

Theory of operation. A body byte needs room in two windows, the stream's and the connection's (RFC 9113 section 5.2). A stream whose
own window is open and that would go on, but for the connection's window, stands in the *ready* queue; when the connection's window
opens, the streams in it get a frame each in turn. A stream whose own window is shut is in no queue: its own WINDOW_UPDATE
finds it. So no update costs more than the frames that it lets go, however many streams wait. Only a change of
INITIAL_WINDOW_SIZE looks at every unfinished body, and the rate of SETTINGS is limited.

Invariant between two calls: the ready queue is empty or the connection's window is shut.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, StreamError
from streampush.apns.http2.frames import DEFAULT_MAX_FRAME_SIZE, MAX_WINDOW
from streampush.apns.http2.windows import DEFAULT_WINDOW


class _Upload:
    """A body that is not yet in the outbound buffer to its end."""

    __slots__ = ("ending", "starved", "unsent", "window")

    def __init__(self, window: int) -> None:
        self.window = window  # bytes; negative when the server lowered it behind our back (section 6.9.2)
        self.unsent: deque[memoryview] = deque()
        self.ending = False  # the caller gave all
        self.starved = False  # the caller waits for WindowOpened

    @property
    def hungry(self) -> bool:
        """Whether an open window would be of use."""
        return bool(self.unsent) or self.starved


class Uploads:
    """Everything about flow control of what we send. DATA frames go to `outgoing`, in the order in which windows allow them.

    `window`: bytes, the connection's. `quick_size`: bytes of a body that fits one frame and a new stream's window. `woken`:
    streams whose caller waited and that can take more now; the connection reports and clears them. `frames_sent`: DATA
    frames that went through here; a request that fits sends its own. `unfinished`: bodies that are not sent to their end, by
    stream id.
    """

    __slots__ = (
        "_outgoing",
        "_ready",
        "frames_sent",
        "initial_window",
        "max_frame_size",
        "quick_size",
        "unfinished",
        "window",
        "woken",
    )

    def __init__(self, outgoing: list[bytes]) -> None:
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_size = DEFAULT_MAX_FRAME_SIZE
        self.quick_size = DEFAULT_MAX_FRAME_SIZE
        self.frames_sent = 0
        self.woken: list[int] = []
        self._outgoing = outgoing
        self.unfinished: dict[int, _Upload] = {}
        self._ready: OrderedDict[int, _Upload] = OrderedDict()

    def begin(self, stream_id: int) -> None:
        """A new stream has a body to send."""
        self.unfinished[stream_id] = _Upload(self.initial_window)

    def send(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Sends what the windows allow and keeps the rest. Raises LocalProtocolError behind the end of the body."""
        upload = self.unfinished.get(stream_id)
        if upload is None or upload.ending:
            raise LocalProtocolError(f"stream {stream_id} has sent its end")
        upload.ending = end_stream
        upload.starved = False  # who sends does not wait
        if data:
            upload.unsent.append(memoryview(data))
        elif end_stream and not upload.unsent:
            self._finish(stream_id)
            return
        self._go_on(stream_id, upload)
        if upload.unsent and not end_stream:
            upload.starved = True

    def writable(self, stream_id: int) -> int:
        """Bytes that would go out at once. After a 0 the stream is among the woken when that changes."""
        upload = self.unfinished.get(stream_id)
        if upload is None or upload.ending:
            return 0
        room = 0 if upload.unsent else max(0, min(self.window, upload.window))
        if not room:
            upload.starved = True
            self._queue(stream_id, upload)
        return room

    def drop(self, stream_id: int) -> bool:
        """The stream is over; what is not sent will not be. Gives whether there was something."""
        if self.unfinished.pop(stream_id, None) is None:
            return False
        self._ready.pop(stream_id, None)
        if stream_id in self.woken:
            self.woken.remove(stream_id)
        return True

    def clear(self) -> None:
        """No stream is left."""
        self.unfinished.clear()
        self._ready.clear()
        self.woken.clear()

    def open_connection(self, increment: int) -> None:
        """The connection's window opened. Raises RemoteProtocolError if it passes 2**31 - 1 bytes."""
        self.window += increment
        if self.window > MAX_WINDOW:
            raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"window of the connection raised to {self.window}")
        self.distribute()

    def open_stream(self, stream_id: int, increment: int) -> None:
        """A stream's window opened; nothing happens if its body is sent. Raises StreamError if it passes 2**31 - 1 bytes."""
        upload = self.unfinished.get(stream_id)
        if upload is None:
            return
        upload.window += increment
        if upload.window > MAX_WINDOW:
            raise StreamError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, f"window of the stream raised to {upload.window}")
        self._go_on(stream_id, upload)

    def change(self, initial_window: int, max_frame_size: int) -> None:
        """The server's SETTINGS: moves the window of each unfinished body. Raises RemoteProtocolError if one passes 2**31 - 1."""
        self.max_frame_size = max_frame_size
        delta = initial_window - self.initial_window
        self.initial_window = initial_window
        self.quick_size = min(initial_window, max_frame_size)
        if not delta:
            return
        for stream_id, upload in self.unfinished.items():
            upload.window += delta
            if upload.window > MAX_WINDOW:
                raise RemoteProtocolError(ErrorCode.FLOW_CONTROL_ERROR, f"window of a stream raised to {upload.window}")
            if upload.window <= 0:
                self._ready.pop(stream_id, None)
            else:
                self._queue(stream_id, upload)
        self.distribute()

    def distribute(self) -> None:
        """Lets the ready streams send, a frame each in turn, until the connection's window is shut."""
        ready = self._ready
        while ready and self.window > 0:
            stream_id, upload = ready.popitem(last=False)
            self._step(stream_id, upload)
            self._queue(stream_id, upload)

    def _go_on(self, stream_id: int, upload: _Upload) -> None:
        """One stream may have become able to send: at once if the connection's window is open, else it queues."""
        self._queue(stream_id, upload)
        self.distribute()

    def _queue(self, stream_id: int, upload: _Upload) -> None:
        if upload.window > 0 and upload.hungry:
            self._ready.setdefault(stream_id, upload)

    def _step(self, stream_id: int, upload: _Upload) -> None:
        """Sends a frame, both windows being open; or wakes the caller."""
        if not upload.unsent:
            upload.starved = False
            self.woken.append(stream_id)
            return
        room = min(self.window, upload.window, self.max_frame_size)
        parts: list[memoryview] = []
        taken = 0
        while upload.unsent and taken < room:
            part = upload.unsent.popleft()
            if len(part) > room - taken:
                upload.unsent.appendleft(part[room - taken :])
                part = part[: room - taken]
            parts.append(part)
            taken += len(part)
        last = upload.ending and not upload.unsent
        self._outgoing.append(frames.data(stream_id, b"".join(parts), last))
        self.frames_sent += 1
        self.window -= taken
        upload.window -= taken
        if last:
            self.drop(stream_id)

    def _finish(self, stream_id: int) -> None:
        """The end alone, which needs no window."""
        self._outgoing.append(frames.data(stream_id, b"", True))
        self.drop(stream_id)
