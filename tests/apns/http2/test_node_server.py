"""The client core against Node's http2, which is nghttp2: a server that is neither ours nor Python, over a socket."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from streampush.apns.http2 import hpack
from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    Event,
    GoneAway,
    PingAnswered,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Verdict,
)
from streampush.apns.http2.limits import Limits

NODE = which("node")
SERVER = Path(__file__).with_name("node_server.js")
SECONDS = 30.0  # for a machine with much else to do

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no `node`: install Node.js 20 or later")

OVER = "over"


class Talk:
    """One connection; `outcomes` has what became of each stream: OVER with a complete answer, or a verdict."""

    def __init__(self, port: int, limits: Limits | None) -> None:
        self.client = ClientConnection(limits)
        self.events: list[Event] = []
        self.outcomes: dict[int, str | Verdict] = {}
        self.acted_on: dict[int, int] = {}
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._unsent = b""
        self.client.start(time.monotonic())
        self.until(lambda: self.client.room() > 1)

    def request(self, path: str, body: bytes = b"") -> int:
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path.encode())]
        return self.client.request(hpack.block(fields), body)

    def until(self, done: Callable[[], bool]) -> None:
        """Reads and writes until `done`, or until the connection is over."""
        deadline = time.monotonic() + SECONDS
        while not done():
            self._unsent += self.client.outbound()
            readable, writable, _ = select.select([self._socket], [self._socket] if self._unsent else [], [], SECONDS)
            assert time.monotonic() < deadline, "the server does not answer"
            if writable:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            if readable and not self._read():
                return

    def _read(self) -> bool:
        try:
            data = self._socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        self._note(self.client.receive(data, time.monotonic()) if data else self.client.end_of_input())
        return bool(data)

    def _note(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            assert not isinstance(event, ConnectionFailed), event
            if isinstance(event, TrailersReceived) or (isinstance(event, ResponseReceived | DataReceived) and event.ended):
                self._end(event.stream_id, OVER)
            elif isinstance(event, StreamReset):
                self._end(event.stream_id, event.verdict)
            elif isinstance(event, GoneAway | ConnectionEnded):
                for stream_id, verdict in event.streams:
                    self._end(stream_id, verdict)

    def _end(self, stream_id: int, outcome: str | Verdict) -> None:
        assert stream_id not in self.outcomes
        self.outcomes[stream_id] = outcome

    def answered(self) -> None:
        """Goes on until no request is open."""
        self.until(lambda: not self.client.open_streams)

    def hang_up(self) -> None:
        self._socket.close()

    def body(self, stream_id: int) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, DataReceived) and event.stream_id == stream_id)


@contextmanager
def node(settings: dict[str, int] | None = None, limits: Limits | None = None) -> Iterator[Talk]:
    """A server and a connection to it. Behind the block `acted_on` has the requests that the server acted on: stream and size."""
    assert NODE is not None
    command = [NODE, str(SERVER), json.dumps(settings or {})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        talk = Talk(json.loads(process.stdout.readline())["port"], limits)
        try:
            yield talk
        finally:
            talk.hang_up()
            process.stdin.close()  # then it ends
            told = [json.loads(line) for line in process.stdout]
            talk.acted_on = {word["processed"]: word["size"] for word in told}


def test_two_hundred_bodies_of_four_kilobytes_arrive() -> None:
    with node({"maxConcurrentStreams": 500, "initialWindowSize": 1000}) as talk:
        streams = [talk.request("/ok", b"x" * 4096) for _ in range(200)]
        talk.answered()
        assert talk.outcomes == dict.fromkeys(streams, OVER)
    assert talk.acted_on == dict.fromkeys(streams, 4096)


def test_answers_with_bodies_trailers_and_long_fields_arrive() -> None:
    with node(limits=Limits(stream_window=2000, connection_window=65_535)) as talk:
        long, body, trailers = talk.request("/long/9000"), talk.request("/body/300000"), talk.request("/trailers", b"x")
        talk.answered()
        assert talk.outcomes == dict.fromkeys((long, body, trailers), OVER)
        assert talk.body(body) == b"b" * 300_000
        heads = {event.stream_id: event.headers for event in talk.events if isinstance(event, ResponseReceived)}
        assert heads[long].get(b"x-long") == b"v" * 9000
        assert heads[body].get(b"apns-id") == b"1-2-3"


def test_every_tenth_refused_is_known_as_such_and_was_not_acted_on() -> None:
    with node({"maxConcurrentStreams": 500}) as talk:
        streams = {talk.request("/refuse" if number % 10 == 0 else "/ok", b"x"): number for number in range(200)}
        talk.answered()
        refused = {stream_id for stream_id, outcome in talk.outcomes.items() if outcome is Verdict.REFUSED}
        assert refused == {stream_id for stream_id, number in streams.items() if number % 10 == 0}
    assert set(talk.acted_on) == set(streams) - refused


def test_goaway_at_the_twentieth_of_sixty_loses_none_and_doubles_none() -> None:
    with node({"maxConcurrentStreams": 500}) as talk:
        streams = [talk.request("/goaway" if number == 19 else "/ok", b"x") for number in range(60)]
        talk.answered()
        again = {stream_id for stream_id, outcome in talk.outcomes.items() if outcome is Verdict.REFUSED}
        over = {stream_id for stream_id, outcome in talk.outcomes.items() if outcome is OVER}
        assert again | over == set(streams)
        assert again == set(streams[20:])
    assert set(talk.acted_on) == over


def test_what_the_server_cancelled_or_lost_may_have_been_acted_on() -> None:
    with node() as talk:
        cancelled, lost = talk.request("/cancel", b"x"), talk.request("/vanish", b"x")
        talk.answered()
        assert talk.outcomes == {cancelled: Verdict.UNKNOWN, lost: Verdict.UNKNOWN}


def test_an_answer_before_the_body_ends_the_body() -> None:
    with node({"initialWindowSize": 100}) as talk:
        early = talk.request("/early", b"x" * 100_000)
        talk.answered()
        assert talk.outcomes == {early: OVER}
        again = talk.request("/ok", b"x" * 5000)
        talk.answered()
        assert talk.outcomes[again] == OVER


def test_a_ping_is_answered() -> None:
    with node() as talk:
        ping_id = talk.client.ping(time.monotonic())
        talk.until(lambda: any(isinstance(event, PingAnswered) and event.ping_id == ping_id for event in talk.events))
