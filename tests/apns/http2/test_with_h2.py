"""Conversations with the h2 package as the server. It checks each frame of ours, and its frames are not of our making."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.http2 import hpack
from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoneAway,
    PingAnswered,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Verdict,
    WindowOpened,
)
from streampush.apns.http2.limits import Limits
from tests.apns.http2.h2_server import H2Server
from tests.apns.http2.strategies import chunkings, cut

FIELDS = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/3/device/00")]
BLOCK = hpack.block(FIELDS)


class Conversation:
    """Both sides, and bytes that go to and fro until nobody has anything to say."""

    def __init__(self, server: H2Server | None = None, limits: Limits | None = None) -> None:
        self.server = server or H2Server()
        self.client = ClientConnection(limits)
        self.events: list[Event] = []
        self.cuts: list[int] = []
        self.client.start(0.0)
        self.talk()

    def talk(self) -> None:
        for _ in range(10_000):
            upwards, downwards = self.client.outbound(), self.server.take()
            if not upwards and not downwards:
                return
            for chunk in cut(upwards, self.cuts):
                self.server.read(chunk)
            for chunk in cut(downwards, self.cuts):
                self.events += self.client.receive(chunk, 0.0)
            assert not any(isinstance(event, ConnectionFailed) for event in self.events), self.events[-1]
        raise AssertionError("they never stop talking")

    def bodies(self) -> dict[int, bytes]:
        """What the client got, of the answers that are complete."""
        found: dict[int, bytes] = {}
        complete: set[int] = set()
        for event in self.events:
            if isinstance(event, ResponseReceived):
                found[event.stream_id] = b""
            elif isinstance(event, DataReceived):
                found[event.stream_id] += event.data
            if isinstance(event, TrailersReceived) or (isinstance(event, ResponseReceived | DataReceived) and event.ended):
                assert event.stream_id not in complete
                complete.add(event.stream_id)
        return {stream_id: body for stream_id, body in found.items() if stream_id in complete}


def test_a_request_and_its_answer() -> None:
    both = Conversation()
    stream_id = both.client.request(BLOCK, b"body")
    both.talk()
    seen = both.server.seen[stream_id]
    assert (seen.headers, seen.body, seen.ended) == (FIELDS, b"body", True)
    both.server.answer(stream_id, b"answer", fields=[(b"apns-id", b"1-2-3")])
    both.talk()
    assert both.bodies() == {stream_id: b"answer"}
    (head,) = [event for event in both.events if isinstance(event, ResponseReceived)]
    assert head.headers.get(b"apns-id") == b"1-2-3"


def test_a_server_that_lowers_its_table_accepts_our_blocks() -> None:
    both = Conversation(H2Server({SettingCodes.HEADER_TABLE_SIZE: 0}))
    for size in (0, 100, 0):
        both.server.connection.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
        both.talk()
        stream_id = both.client.request(BLOCK, b"body")
        both.talk()
        assert both.server.seen[stream_id].headers == FIELDS


def test_long_fields_go_in_continuations_both_ways() -> None:
    both = Conversation(limits=Limits(max_header_list_size=100_000, max_block_size=100_000))
    long = [(b"x-%d" % number, b"v" * 900) for number in range(50)]
    stream_id = both.client.request(hpack.block([*FIELDS, *long]), b"body")
    both.talk()
    assert both.server.seen[stream_id].headers == [*FIELDS, *long]
    both.server.answer(stream_id, fields=long)
    both.talk()
    (head,) = [event for event in both.events if isinstance(event, ResponseReceived)]
    assert list(head.headers)[1:] == long


def test_two_hundred_bodies_of_four_kilobytes() -> None:
    both = Conversation(H2Server({SettingCodes.MAX_CONCURRENT_STREAMS: 1000}))
    bodies = {both.client.request(BLOCK, bytes([number]) * 4096): bytes([number]) * 4096 for number in range(200)}
    both.talk()
    assert {stream_id: seen.body for stream_id, seen in both.server.seen.items()} == bodies
    for stream_id in bodies:
        both.server.answer(stream_id)
    both.talk()
    assert both.bodies() == dict.fromkeys(bodies, b"")


def test_an_answer_of_many_windows() -> None:
    both = Conversation(limits=Limits(stream_window=5000, connection_window=65_535))
    stream_id = both.client.request(BLOCK)
    both.talk()
    body = bytes(range(256)) * 4000
    both.server.answer(stream_id, body, padding=7)
    both.talk()
    assert both.bodies() == {stream_id: body}


def test_refusals_and_goaway_have_their_verdicts() -> None:
    both = Conversation()
    refused, cancelled, above = (both.client.request(BLOCK, b"body") for _ in range(3))
    both.talk()
    both.server.connection.reset_stream(refused, ErrorCodes.REFUSED_STREAM)
    both.server.connection.reset_stream(cancelled, ErrorCodes.CANCEL)
    both.talk()
    both.server.connection.close_connection(last_stream_id=cancelled)
    both.talk()
    resets = {event.stream_id: event.verdict for event in both.events if isinstance(event, StreamReset)}
    assert resets == {refused: Verdict.REFUSED, cancelled: Verdict.UNKNOWN}
    assert isinstance(both.events[-1], GoneAway)
    assert both.events[-1].streams == ((above, Verdict.REFUSED),)


def test_pings_are_answered_both_ways() -> None:
    both = Conversation()
    ping_id = both.client.ping(0.0)
    both.server.connection.ping(b"01234567")
    both.talk()
    assert both.events[-1] == PingAnswered(ping_id, 0.0)


def test_our_goaway_is_understood() -> None:
    both = Conversation()
    both.client.close()
    assert both.server.read(both.client.outbound())


def test_a_request_that_was_reset_is_reset_there_and_one_taken_back_never_was() -> None:
    both = Conversation()
    written = both.client.request(BLOCK, b"body")
    both.talk()
    unwritten = both.client.request(BLOCK, b"body")
    last = both.client.request(BLOCK, b"body")
    both.client.reset(written)
    both.client.reset(unwritten)
    both.talk()
    assert both.server.seen[written].reset
    assert both.server.seen[last].headers == FIELDS
    assert unwritten not in both.server.seen


def test_a_body_in_pieces_as_the_windows_open() -> None:
    both = Conversation(H2Server({SettingCodes.INITIAL_WINDOW_SIZE: 100}))
    stream_id = both.client.request(BLOCK, end_stream=False)
    left = 5000
    while left:
        size = min(left, both.client.writable(stream_id))
        if size:
            both.client.send_data(stream_id, b"x" * size, end_stream=size == left)
            left -= size
        else:
            both.events.clear()
            both.talk()
            assert both.events == [WindowOpened(stream_id)]
    both.talk()
    assert both.server.seen[stream_id].body == b"x" * 5000


@contextmanager
def windows_of(connection: H2Connection, sizes: list[int]) -> Iterator[None]:
    """Changes the client's initial window in between."""
    for size in sizes:
        connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
    yield
    connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})


exchanges = st.lists(
    st.fixed_dictionaries(
        {
            "body": st.integers(0, 1000),
            "answer": st.integers(0, 1000),
            "trailers": st.booleans(),
            "padding": st.none() | st.integers(0, 40),
            "fields": st.integers(0, 3),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(
    exchanges=exchanges,
    cuts=chunkings,
    windows=st.lists(st.sampled_from([0, 30, 1000, 70_000]), max_size=3),
    stream_window=st.sampled_from([100, 1000, 65_535]),
    order=st.randoms(use_true_random=False),
)
def test_conversations_of_any_shape_end_well(
    exchanges: list[dict[str, int]], cuts: list[int], windows: list[int], stream_window: int, order: object
) -> None:
    both = Conversation(limits=Limits(stream_window=stream_window))
    both.cuts = cuts
    requests: dict[int, dict[str, int]] = {}
    with windows_of(both.server.connection, windows):
        for exchange in exchanges:
            requests[both.client.request(BLOCK, b"q" * exchange["body"])] = exchange
            both.talk()
    both.talk()
    assert {stream_id: len(seen.body) for stream_id, seen in both.server.seen.items()} == {
        stream_id: exchange["body"] for stream_id, exchange in requests.items()
    }
    answers = list(requests.items())
    order.shuffle(answers)  # type: ignore[attr-defined]  # hypothesis has no public type for it
    for stream_id, exchange in answers:
        fields = [(b"name", b"value")] * exchange["fields"]
        both.server.answer(
            stream_id,
            b"a" * exchange["answer"],
            fields=fields,
            trailers=bool(exchange["trailers"]),
            padding=exchange["padding"],
        )
        both.talk()
    assert {stream_id: len(body) for stream_id, body in both.bodies().items()} == {
        stream_id: exchange["answer"] for stream_id, exchange in requests.items()
    }
    assert both.client.open_streams == 0
