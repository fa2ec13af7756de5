"""A server that is honest and lazy: it does what a test asks, if a server may, and knows what it acted on."""

from __future__ import annotations

from dataclasses import dataclass, field

from streampush.apns.http2 import frames, hpack
from streampush.apns.http2.errors import ErrorCode
from streampush.apns.http2.frames import ACK, END_STREAM, MAX_STREAM_ID, PREFACE, FrameReader, FrameType, parse_settings
from streampush.apns.http2.settings import Setting
from tests.apns.http2.driving import OK

DEFAULT_WINDOW = 65_535
HEAD = hpack.block([(b":status", b"200"), (b"apns-id", b"1")])
INTERIM = hpack.block([(b":status", b"103")])
TRAILERS = hpack.block([(b"checksum", b"0")])


@dataclass
class Request:
    """A stream as the server sees it."""

    window: int
    received: int = 0
    complete: bool = False  # the client sent its end
    reset: bool = False  # by either side
    answering: bool = False
    answered: bool = False
    refused: bool = False
    processed: bool = False

    @property
    def over(self) -> bool:
        return self.reset or (self.answered and self.complete)


@dataclass
class Announced:
    """What the client acknowledged, or what waits for that."""

    max_streams: int = MAX_STREAM_ID
    initial_window: int = DEFAULT_WINDOW
    max_frame_size: int = frames.DEFAULT_MAX_FRAME_SIZE


@dataclass
class ModelServer:
    """Reads what the client wrote, checks it against the windows and limits of RFC 9113, and writes to `wire`."""

    wire: bytearray = field(default_factory=bytearray)
    requests: dict[int, Request] = field(default_factory=dict)
    window: int = DEFAULT_WINDOW
    last_processed: int = MAX_STREAM_ID
    told: bool = False
    in_force: Announced = field(default_factory=Announced)
    pending: list[Announced] = field(default_factory=list)
    gone: bool = False  # the client said GOAWAY
    _reader: FrameReader = field(default_factory=lambda: FrameReader(frames.HIGHEST_MAX_FRAME_SIZE))
    _preface: bytes = PREFACE

    def read(self, data: bytes) -> None:
        taken = min(len(self._preface), len(data))
        assert data[:taken] == self._preface[:taken]
        self._preface = self._preface[taken:]
        for kind, flags, stream_id, payload in self._reader.feed(data[taken:]):
            self._read_frame(FrameType(kind), flags, stream_id, payload)
        assert self._reader.fault is None

    def _read_frame(self, kind: FrameType, flags: int, stream_id: int, payload: bytes) -> None:
        if kind is FrameType.HEADERS:
            self._open(stream_id, flags)
        elif kind is FrameType.DATA:
            self._data(self.requests[stream_id], flags, payload)
        elif kind is FrameType.RST_STREAM:
            self.requests[stream_id].reset = True
        elif kind is FrameType.SETTINGS:
            if flags & ACK:
                self._in_force(self.pending.pop(0))
            else:
                parse_settings(flags, stream_id, payload)
                if not self.told:
                    self.announce(Announced())
                self.wire += frames.settings_ack()
        elif kind is FrameType.PING and not flags & ACK:
            self.wire += frames.ping(payload, ack=True)
        elif kind is FrameType.GOAWAY:
            self.gone = True

    def _open(self, stream_id: int, flags: int) -> None:
        assert not self.gone, "a new stream behind GOAWAY"
        assert stream_id > max(self.requests, default=0) and stream_id & 1
        assert self.open < self.in_force.max_streams
        self.requests[stream_id] = Request(self.in_force.initial_window, complete=bool(flags & END_STREAM))

    def _data(self, request: Request, flags: int, payload: bytes) -> None:
        assert not request.complete
        assert len(payload) <= self.in_force.max_frame_size
        request.window -= len(payload)
        self.window -= len(payload)
        assert not payload or (request.window >= 0 and self.window >= 0), "the client overran a window"
        request.received += len(payload)
        request.complete = bool(flags & END_STREAM)

    def _in_force(self, announced: Announced) -> None:
        delta = announced.initial_window - self.in_force.initial_window
        for request in self.requests.values():
            request.window += delta
        self.in_force = announced

    @property
    def open(self) -> int:
        return sum(not request.over for request in self.requests.values())

    # What a test asks for. A server that may not do it does nothing.

    def announce(self, announced: Announced) -> None:
        self.told = True
        self.pending.append(announced)
        pairs = [
            (Setting.MAX_CONCURRENT_STREAMS, announced.max_streams),
            (Setting.INITIAL_WINDOW_SIZE, announced.initial_window),
            (Setting.MAX_FRAME_SIZE, announced.max_frame_size),
        ]
        self.wire += frames.settings(pairs)

    def process(self, stream_id: int) -> bool:
        """Acts on a request, unless it said that it would not."""
        request = self.requests[stream_id]
        if not request.complete or request.refused or stream_id > self.last_processed:
            return False
        request.processed = True
        return True

    def answer(self, stream_id: int, body: bytes | None, pieces: int, *, trailers: bool = False) -> None:
        """A complete answer, its head in a frame for each octet; `body` None: in one frame. Trailers come only behind a body."""
        request = self.requests[stream_id]
        if request.reset or request.answered or not self.told or not (request.answering or self.process(stream_id)):
            return
        request.answered = True
        if not request.answering:
            if body is not None:
                self.wire += frames.headers(stream_id, INTERIM, False)
            self.wire += frames.headers(stream_id, HEAD, body is None, 3)
        elif body is None:
            body = b""
        if body is not None:
            size = max(1, len(body) // pieces)
            for at in range(0, len(body), size):
                self.wire += frames.frame(FrameType.DATA, frames.PADDED, stream_id, b"\1" + body[at : at + size] + b"\0")
            self.wire += frames.headers(stream_id, TRAILERS, True, 1) if trailers else frames.data(stream_id, b"", True)

    def begin_answer(self, stream_id: int) -> None:
        request = self.requests[stream_id]
        if request.reset or request.answering or request.answered or not self.told or not self.process(stream_id):
            return
        request.answering = True
        self.wire += frames.headers(stream_id, OK, False)

    def refuse(self, stream_id: int) -> None:
        request = self.requests[stream_id]
        if request.processed or request.reset or not self.told:
            return
        request.refused = request.reset = True
        self.wire += frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM)

    def cancel(self, stream_id: int) -> None:
        request = self.requests[stream_id]
        if request.reset or request.answered or not self.told:
            return
        request.reset = True
        self.wire += frames.rst_stream(stream_id, ErrorCode.CANCEL)

    def go_away(self, above: int) -> None:
        """The last stream id that it may act on: none that it acted on is above."""
        processed = max((each for each, request in self.requests.items() if request.processed), default=0)
        self.last_processed = min(self.last_processed, max(processed, above))
        self.wire += frames.goaway(self.last_processed, ErrorCode.NO_ERROR, b"{}")

    def open_window(self, stream_id: int, increment: int) -> None:
        if not self.told:
            return
        if stream_id:
            self.requests[stream_id].window += increment
        else:
            self.window += increment
        self.wire += frames.window_update(stream_id, increment)

    def ping(self) -> None:
        if self.told:
            self.wire += frames.ping(b"12345678")
