"""Whatever happens in whatever order: each request ends once, and what was acted on is never said to be safe to send again."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
from streampush.apns.http2.frames import MAX_STREAM_ID
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.streams import ConnectionState
from tests.apns.http2.driving import BLOCK
from tests.apns.http2.model_server import Announced, ModelServer

COMPLETE = "complete"

announcements = st.builds(
    Announced,
    max_streams=st.sampled_from([0, 1, 3, 100]),
    initial_window=st.sampled_from([0, 1, 10, 1000, 65_535]),
    max_frame_size=st.sampled_from([16_384, 20_000]),
)
bodies = st.sampled_from([b"", b"x", b"y" * 11, b"z" * 3000, b"w" * 70_000])
violations = st.sampled_from(
    [
        frames.frame(frames.FrameType.PUSH_PROMISE, 4, 1, b"\0\0\0\2"),
        frames.window_update(0, 2**31 - 1),
        frames.frame(frames.FrameType.PING, 0, 0, b"short"),
        frames.headers(2, b"\x88", True),
        frames.headers(MAX_STREAM_ID, b"\x88", True),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ]
)


class Endings(RuleBasedStateMachine):
    """A client and a model server with two wires between them, on which bytes stay as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.client = ClientConnection(Limits(max_streams=20))
        self.server = ModelServer()
        self.to_server = bytearray()
        self.now = 10.0
        self.begun: dict[int, bool] = {}  # stream id: whether the body was given to its end
        self.ends: dict[int, list[str | Verdict]] = {}
        self.broken = False

    @initialize()
    def start(self) -> None:
        self.client.start(self.now)

    # The client's side.

    @precondition(lambda self: self.client.room() > 0)
    @rule(body=bodies, end_stream=st.booleans())
    def request(self, body: bytes, end_stream: bool) -> None:
        stream_id = self.client.request(BLOCK, body, end_stream=end_stream)
        assert stream_id not in self.ends
        self.begun[stream_id] = end_stream
        self.ends[stream_id] = []

    @precondition(lambda self: not all(self.begun.values()))
    @rule(data=st.data(), body=bodies, end_stream=st.booleans())
    def send_data(self, data: st.DataObject, body: bytes, end_stream: bool) -> None:
        stream_id = data.draw(st.sampled_from([each for each, ended in self.begun.items() if not ended]))
        self.client.send_data(stream_id, body, end_stream)
        self.begun[stream_id] = end_stream

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        stream_id = data.draw(st.sampled_from(sorted(self.ends)))
        verdict = self.client.reset(stream_id)
        self.begun[stream_id] = True
        if verdict is not None:
            self.ends[stream_id].append(verdict)

    @rule()
    def close(self) -> None:
        if len(self.ends) > 3:
            self.client.close()

    @rule()
    def write(self) -> None:
        self.to_server += self.client.outbound()

    @rule(seconds=st.sampled_from([0.1, 5.0, 11.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        deadline = self.client.deadline
        if deadline is not None and deadline <= self.now:
            self.report(self.client.tick(self.now))

    # The wires.

    @rule(size=st.sampled_from([1, 9, 40, 10**6]))
    def carry_to_server(self, size: int) -> None:
        data = bytes(self.to_server[:size])
        del self.to_server[:size]
        self.server.read(data)

    @rule(size=st.sampled_from([1, 8, 30, 10**6]))
    def carry_to_client(self, size: int) -> None:
        data = bytes(self.server.wire[:size])
        del self.server.wire[:size]
        self.report(self.client.receive(data, self.now))

    @rule()
    def lose_the_connection(self) -> None:
        if len(self.ends) > 4:
            self.report(self.client.end_of_input())

    # The server's side.

    @rule(announced=announcements)
    def announce(self, announced: Announced) -> None:
        self.server.announce(announced)

    @precondition(lambda self: self.server.requests)
    @rule(
        data=st.data(),
        what=st.sampled_from(["process", "begin_answer", "answer", "answer", "answer_body", "refuse", "cancel", "window"]),
    )
    def act(self, data: st.DataObject, what: str) -> None:
        stream_id = data.draw(st.sampled_from(sorted(self.server.requests)))
        if what == "answer_body":
            self.server.answer(stream_id, data.draw(bodies), data.draw(st.integers(5, 9)), trailers=data.draw(st.booleans()))
        elif what == "answer":
            self.server.answer(stream_id, None, 1)
        elif what == "window":
            self.server.open_window(stream_id, data.draw(st.sampled_from([1, 100, 70_000])))
        else:
            getattr(self.server, what)(stream_id)

    @rule(increment=st.sampled_from([1, 100, 70_000]))
    def open_connection_window(self, increment: int) -> None:
        self.server.open_window(0, increment)

    @rule()
    def ping(self) -> None:
        self.server.ping()

    @rule(last=st.sampled_from([0, 1, 3, 7, MAX_STREAM_ID]))
    def go_away(self, last: int) -> None:
        if len(self.ends) > 2:
            self.server.go_away(last)

    @rule(violation=violations)
    def break_the_protocol(self, violation: bytes) -> None:
        if len(self.ends) > 5:
            self.server.wire += violation
            self.broken = True

    # What must hold.

    def report(self, events: list[Event]) -> None:
        for event in events:
            assert self.client.state is not ConnectionState.CLOSED or event is events[-1] or not isinstance(event, ConnectionFailed)
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
                assert isinstance(event, GoneAway) or event is events[-1]
                assert not isinstance(event, ConnectionFailed) or self.broken or "within" in event.text or "silence" in event.text
            elif isinstance(event, WindowOpened):
                assert not self.ends[event.stream_id]

    @invariant()
    def no_stream_ends_twice(self) -> None:
        assert all(len(ends) <= 1 for ends in self.ends.values())
        assert self.client.open_streams == sum(not ends for ends in self.ends.values())

    def teardown(self) -> None:
        if self.client.state is ConnectionState.IDLE:
            return
        self.write()
        self.report(self.client.end_of_input())
        self.server.read(bytes(self.to_server))
        for stream_id in self.server.requests:
            self.server.process(stream_id)
        for stream_id, ends in self.ends.items():
            assert len(ends) == 1
            request = self.server.requests.get(stream_id)
            if ends[0] is Verdict.NOT_WRITTEN:
                assert request is None
            elif ends[0] is Verdict.REFUSED:
                assert request is None or not request.processed
            elif ends[0] == COMPLETE:
                assert request is not None and request.processed


Endings.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestEndings = Endings.TestCase
