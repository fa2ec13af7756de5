"""CPU of a request and its answer in the HTTP/2 client core and in the h2 package as a client, many in flight, without any IO.

A push as Apple sees it: HEADERS, one DATA frame, an answer of one HEADERS frame. The server's bytes are canned, in chunks as a
socket gives them. Both clients write the same fields; ours puts those of one push behind a block that was encoded once, as its
callers do. CPU time of this process; the two take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from bench.arena import MICRO, take_turns
from bench.report import OURS, Report, ratios
from streampush.apns.http2 import ClientConnection, Limits, ResponseReceived, frames, hpack
from streampush.apns.http2.frames import MAX_WINDOW
from streampush.apns.http2.settings import Setting

H2 = "h2"
CHUNK = 16_384
MANY = 1_000_000

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"api.push.apple.com"),
    (b"authorization", b"bearer " + b"t" * 180),
    (b"apns-topic", b"com.example.app"),
    (b"apns-push-type", b"alert"),
]
OF_ONE_PUSH = [(b":path", b"/3/device/" + b"d" * 64), (b"apns-id", b"123e4567-e89b-12d3-a456-426614174000")]
ANSWER = hpack.block([(b":status", b"200"), OF_ONE_PUSH[1]])

GREETING = b"".join(
    (
        frames.settings([(Setting.MAX_CONCURRENT_STREAMS, MANY), (Setting.INITIAL_WINDOW_SIZE, 65_535)]),
        frames.settings_ack(),
        frames.window_update(0, MAX_WINDOW - 65_535),
    )
)


class Subject(Protocol):
    """A client that makes requests and counts answers."""

    def request(self, body: bytes) -> int:
        """Gives the stream id."""

    def outbound(self) -> bytes:
        """What would be written."""

    def receive(self, data: bytes) -> int:
        """Gives how many answers came."""


class Ours:
    """The core of streampush."""

    def __init__(self) -> None:
        self._connection = ClientConnection(Limits(max_streams=MANY))
        self._connection.start(0.0)
        self._connection.receive(GREETING, 0.0)
        self._block = hpack.block(FIELDS)
        self._path, self._apns_id = (hpack.name_prefix(name) for name, _ in OF_ONE_PUSH)

    def request(self, body: bytes) -> int:
        path, apns_id = (value for _, value in OF_ONE_PUSH)
        block = b"".join((self._block, self._path, hpack.string(path), self._apns_id, hpack.string(apns_id)))
        return self._connection.request(block, body)

    def outbound(self) -> bytes:
        return self._connection.outbound()

    def receive(self, data: bytes) -> int:
        return sum(type(event) is ResponseReceived for event in self._connection.receive(data, 0.0))


class Theirs:
    """The h2 package."""

    def __init__(self) -> None:
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._connection.initiate_connection()
        self._connection.receive_data(GREETING)

    def request(self, body: bytes) -> int:
        stream_id = self._connection.get_next_available_stream_id()
        fields = [*FIELDS[:3], OF_ONE_PUSH[0], *FIELDS[3:], OF_ONE_PUSH[1]]
        self._connection.send_headers(stream_id, fields)
        self._connection.send_data(stream_id, body, end_stream=True)
        return stream_id

    def outbound(self) -> bytes:
        return self._connection.data_to_send()

    def receive(self, data: bytes) -> int:
        return sum(type(event) is StreamEnded for event in self._connection.receive_data(data))


def seconds_each(subject: Subject, in_flight: int, batches: int, body: bytes) -> float:
    """CPU time of a request with its answer. Raises RuntimeError if not every request left or not every answer was found."""
    taken = 0.0
    for _ in range(batches):
        began = time.process_time()
        streams = [subject.request(body) for _ in range(in_flight)]
        written = subject.outbound()
        taken += time.process_time() - began
        canned = b"".join(frames.headers(stream_id, ANSWER, True) for stream_id in streams)
        canned += frames.window_update(0, in_flight * len(body))
        chunks = [canned[at : at + CHUNK] for at in range(0, len(canned), CHUNK)]
        began = time.process_time()
        found = sum(map(subject.receive, chunks))
        taken += time.process_time() - began
        if found != in_flight or len(written) < in_flight * len(body):
            raise RuntimeError(f"{found} answers and {len(written)} bytes for {in_flight} requests")
    return taken / (in_flight * batches)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http2", description=__doc__)
    parser.add_argument("--requests", type=int, default=4000, help="requests a run")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 10, 1000], help="answers come when so many are open")
    parser.add_argument("--body", type=int, default=200, help="bytes of a request's body")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    report = Report("http2")
    body = bytes(options.body)
    for in_flight in options.in_flight:
        batches = max(1, options.requests // in_flight)
        clients: dict[str, Subject] = {OURS: Ours(), H2: Theirs()}
        work: dict[str, Callable[[], float]] = {}
        for name, client in clients.items():
            client.outbound()  # the preface is not measured
            work[name] = partial(seconds_each, client, in_flight, batches, body)
        samples = take_turns(work, options.rounds, warm_up=True)
        facts = {"in_flight": in_flight, "body": options.body}
        for name, taken in samples.items():
            report.result("request and answer CPU", name, "us", [each * MICRO for each in taken], **facts)
        report.ratio("request and answer CPU", OURS, H2, ratios(samples[OURS], samples[H2]), **facts)


if __name__ == "__main__":
    main()
