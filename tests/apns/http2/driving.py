"""A client connection with a server played by hand: the test writes the server's frames and sees what the client wrote."""

from __future__ import annotations

from collections.abc import Iterable

from streampush.apns.http2 import frames, hpack
from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.events import Event
from streampush.apns.http2.frames import Frame, FrameReader, FrameType
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.settings import Setting

BLOCK = hpack.block([(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/3/device/00")])
OK = hpack.block([(b":status", b"200")])
HUGE_WINDOW = 2**30


class Driven:
    """A connection at a time that the test moves by hand, in seconds."""

    def __init__(self, connection: ClientConnection, now: float = 100.0) -> None:
        self.connection = connection
        self.now = now
        self._reader = FrameReader(frames.HIGHEST_MAX_FRAME_SIZE)
        self._preface = frames.PREFACE

    def start(self) -> list[Frame]:
        self.connection.start(self.now)
        return self.written()

    def written(self) -> list[Frame]:
        """The frames that leave now; takes the preface off."""
        data = self.connection.outbound()
        taken = min(len(self._preface), len(data))
        assert data[:taken] == self._preface[:taken]
        self._preface = self._preface[taken:]
        return self._reader.feed(data[taken:])

    def serve(self, *parts: bytes) -> list[Event]:
        """The server's frames arrive."""
        return self.connection.receive(b"".join(parts), self.now)

    def wait(self, seconds: float) -> list[Event]:
        """Time passes, and `tick` is called when it wants to be."""
        end = self.now + seconds
        events: list[Event] = []
        while (deadline := self.connection.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            events += self.connection.tick(self.now)
        self.now = end
        return events

    def requests(self, count: int, body: bytes = b"x") -> list[int]:
        """So many requests; they are not written yet."""
        return [self.connection.request(BLOCK, body) for _ in range(count)]


def idle(limits: Limits | None = None, *, first_stream_id: int = 1, automatic_windows: bool = True) -> Driven:
    """A connection that is not started."""
    return Driven(ClientConnection(limits, first_stream_id=first_stream_id, automatic_windows=automatic_windows))


def connected(
    limits: Limits | None = None,
    *,
    max_streams: int = 100,
    initial_window: int = 65_535,
    first_stream_id: int = 1,
    automatic_windows: bool = True,
) -> Driven:
    """A connection that has exchanged SETTINGS."""
    driven = idle(limits, first_stream_id=first_stream_id, automatic_windows=automatic_windows)
    driven.start()
    pairs = [(Setting.MAX_CONCURRENT_STREAMS, max_streams), (Setting.INITIAL_WINDOW_SIZE, initial_window)]
    driven.serve(frames.settings(pairs), frames.settings_ack())
    driven.written()
    return driven


def answer(stream_id: int) -> bytes:
    """The most frequent answer: status 200 in one frame."""
    return frames.headers(stream_id, OK, True)


def kinds(written: Iterable[Frame]) -> list[tuple[FrameType, int]]:
    """Type and stream of each frame."""
    return [(FrameType(kind), stream_id) for kind, _, stream_id, _ in written]
