"""A client core and a model server with two wires between them, on which bytes stay as long as chance likes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from streampush.apns.http2 import frames
from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    Event,
    GoneAway,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Verdict,
    WindowOpened,
)
from streampush.apns.http2.frames import MAX_STREAM_ID, FrameReader
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.streams import ConnectionState
from tests.apns.http2.driving import BLOCK
from tests.apns.http2.model_server import Announced, ModelServer

COMPLETE = "complete"
BODIES = (b"", b"x", b"y" * 11, b"z" * 3000, b"w" * 70_000)
VIOLATIONS = (
    frames.frame(frames.FrameType.PUSH_PROMISE, 4, 1, b"\0\0\0\2"),
    frames.frame(frames.FrameType.WINDOW_UPDATE, 0, 0, bytes(4)),
    frames.frame(frames.FrameType.PING, 0, 0, b"short"),
    frames.headers(2, b"\x88", True),
    frames.headers(MAX_STREAM_ID, b"\x88", True),
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
)
EVERYTHING = 10**7


class World:
    """`ends`: how each request ended, by stream id; exactly one end each, when `finish` has been called."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.client = ClientConnection(Limits(max_streams=20))
        self.server = ModelServer()
        self.ends: dict[int, list[str | Verdict]] = {}
        self._growing: list[int] = []  # streams whose body the caller has not ended
        self._to_server = bytearray()
        self._now = 10.0
        self._broken = False
        self._gone = False  # the server's GOAWAY came
        self.client.start(self._now)
        often: list[Callable[[], None]] = [
            self._request,
            self._write,
            self._to_the_server,
            self._to_the_client,
            self._carry,
            self._act,
        ]
        rare = [self._announce, self._window, self._ping, self._send_data, self._reset, self._wait, self._go_away]
        last = [self._lose, self._violate, self._close]
        # Each world has a character of its own: which of the rare deeds happen in it at all, and how often.
        self._deeds = [deed for deed in often for _ in range(random.randint(1, 6))] * 4
        self._deeds += [deed for deed in rare if random.random() < 0.7 for _ in range(random.randint(1, 4))]
        self._final = [deed for deed in last if random.random() < 0.5]
        if random.random() < 0.8:
            self._announce()
            self._carry()

    def run(self, steps: int) -> None:
        for step in range(steps):
            late = self._final and step > steps // 2 and self._random.random() < 4 / steps
            self._random.choice(self._final if late else self._deeds)()
            assert all(len(ends) <= 1 for ends in self.ends.values()), "a stream ended twice"
            assert self.client.open_streams == sum(not ends for ends in self.ends.values())

    def finish(self) -> None:
        """Everything that left arrives, everything that may be acted on is; then each verdict is held against that."""
        if self._random.random() < 0.5:
            self._settle()
        self._write()
        self._report(self.client.end_of_input())
        self.server.read(bytes(self._to_server))
        for stream_id in self.server.requests:
            self.server.process(stream_id)
        for stream_id, ends in self.ends.items():
            (end,) = ends
            request = self.server.requests.get(stream_id)
            if end is Verdict.NOT_WRITTEN:
                assert request is None
            elif end is Verdict.REFUSED:
                assert request is None or not request.processed
            elif end == COMPLETE:
                assert request is not None and request.processed

    def _settle(self) -> None:
        """Nobody stands in the way any more: then nothing is left open."""
        for stream_id in self._growing:
            self.client.send_data(stream_id, b"", True)
        self.server.announce(Announced(100, 10**7))
        self.server.open_window(0, 10**7)
        self._carry()
        for stream_id in self.server.requests:
            self.server.answer(stream_id, None, 1)
        self._carry()
        assert not self.client.open_streams

    # The client's side.

    def _request(self) -> None:
        body = self._random.choice(BODIES)
        ended = self._random.random() < 0.8
        for _ in range(min(self._random.randint(1, 5), self.client.room())):
            stream_id = self.client.request(BLOCK, body, end_stream=ended)
            assert stream_id not in self.ends
            self.ends[stream_id] = []
            if not ended:
                self._growing.append(stream_id)

    def _send_data(self) -> None:
        if self._growing:
            stream_id = self._random.choice(self._growing)
            ended = self._random.random() < 0.5
            if self._random.random() < 0.5:
                self.client.writable(stream_id)
            self.client.send_data(stream_id, self._random.choice(BODIES), ended)
            if ended:
                self._growing.remove(stream_id)

    def _reset(self) -> None:
        if self.ends:
            stream_id = self._random.choice(sorted(self.ends))
            verdict = self.client.reset(stream_id)
            if stream_id in self._growing:
                self._growing.remove(stream_id)
            if verdict is not None:
                self.ends[stream_id].append(verdict)

    def _close(self) -> None:
        self.client.close()

    def _wait(self) -> None:
        self._now += self._random.choice((0.1, 0.1, 0.1, 1.0, 1.0, 11.0, 61.0))
        deadline = self.client.deadline
        if deadline is not None and deadline <= self._now:
            self._report(self.client.tick(self._now))

    # The wires.

    def _write(self) -> None:
        data = self.client.outbound()
        if self._gone:
            written = FrameReader(EVERYTHING).feed(data.removeprefix(frames.PREFACE))
            assert all(kind != frames.FrameType.HEADERS for kind, _, _, _ in written), "a new stream behind the server's GOAWAY"
        self._to_server += data

    def _to_the_server(self) -> None:
        size = self._random.choice((1, 9, 40, EVERYTHING))
        data = bytes(self._to_server[:size])
        del self._to_server[:size]
        self.server.read(data)

    def _to_the_client(self) -> None:
        size = self._random.choice((1, 8, 30, EVERYTHING))
        data = bytes(self.server.wire[:size])
        del self.server.wire[:size]
        self._report(self.client.receive(data, self._now))

    def _carry(self) -> None:
        for _ in range(3):
            self._write()
            self.server.read(bytes(self._to_server))
            self._to_server.clear()
            self._report(self.client.receive(bytes(self.server.wire), self._now))
            self.server.wire.clear()

    def _lose(self) -> None:
        self._report(self.client.end_of_input())

    # The server's side.

    def _act(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            waiting = sorted(stream_id for stream_id, request in self.server.requests.items() if not request.over)
            if waiting:
                self._act_on(self._random.choice(waiting))

    def _act_on(self, stream_id: int) -> None:
        chance = self._random.random()
        if chance < 0.4:
            self.server.answer(stream_id, None, 1)
        elif chance < 0.7:
            body = self._random.choice(BODIES)
            self.server.answer(stream_id, body, self._random.randint(5, 9), trailers=self._random.random() < 0.5)
        elif chance < 0.8:
            self.server.begin_answer(stream_id)
        elif chance < 0.85:
            self.server.process(stream_id)
        elif chance < 0.95:
            self.server.refuse(stream_id)
        else:
            self.server.cancel(stream_id)

    def _announce(self) -> None:
        max_streams = self._random.choice((100, 100, 10, 3, 1, 0))
        initial_window = self._random.choice((65_535, 65_535, 70_000, 1000, 10, 0))
        self.server.announce(Announced(max_streams, initial_window, self._random.choice((16_384, 20_000))))

    def _window(self) -> None:
        stream_id = self._random.choice((0, *self.server.requests))
        self.server.open_window(stream_id, self._random.choice((1, 100, 70_000)))

    def _ping(self) -> None:
        self.server.ping()

    def _go_away(self) -> None:
        if self._random.random() < 0.1:
            self.server.go_away(self._random.choice((0, MAX_STREAM_ID, *self.server.requests)))

    def _violate(self) -> None:
        self.server.wire += self._random.choice(VIOLATIONS)
        self._broken = True

    # What the client reports.

    def _report(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ResponseReceived | DataReceived):
                assert not self.ends[event.stream_id]
                if event.ended:
                    self.ends[event.stream_id].append(COMPLETE)
            elif isinstance(event, TrailersReceived):
                self.ends[event.stream_id].append(COMPLETE)
            elif isinstance(event, StreamReset):
                self.ends[event.stream_id].append(event.verdict)
            elif isinstance(event, GoneAway | ConnectionFailed | ConnectionEnded):
                for stream_id, verdict in event.streams:
                    self.ends[stream_id].append(verdict)
                self._gone = True
            elif isinstance(event, WindowOpened):
                assert not self.ends[event.stream_id]
            if isinstance(event, ConnectionFailed | ConnectionEnded):
                assert event is events[-1]
                assert self.client.state is ConnectionState.CLOSED
            if isinstance(event, ConnectionFailed):
                assert self._broken or "within" in event.text or "silence" in event.text, event.text
