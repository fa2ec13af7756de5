"""The server's HTTP/2 against bytes of a client: what is legal, what is not, and that chunks do not matter."""

from __future__ import annotations

from itertools import pairwise
from unittest import TestCase

from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.http2 import ErrorCode, FrameReader, frames
from streampush.apns.http2.hpack import block
from streampush.apns.http2.windows import DEFAULT_WINDOW
from streampush.apns.simulator.stream import MAX_BODY
from streampush.apns.simulator.unusual import unusual_answer, unusual_size
from streampush.apns.simulator.wire import MAX_BLOCK, MAX_OUTBOUND, ServerWire
from streampush.apns.simulator.wire_events import Abandoned, Broken, Completed, Opened, WireEvent
from tests.apns.simulator.providers import request_fields

BLOCK = block(request_fields())
START = frames.PREFACE + frames.settings([])
ANSWER = [(b":status", b"200"), (b"apns-id", b"x")]


def head(stream_id: int, ended: bool = False) -> bytes:
    return frames.headers(stream_id, BLOCK, ended)


class WireCase(TestCase):
    def setUp(self) -> None:
        self.wire = ServerWire()
        self.take(START)
        self.written()

    def take(self, data: bytes) -> list[WireEvent]:
        return list(self.wire.receive(data))

    def written(self) -> list[frames.Frame]:
        return FrameReader().feed(self.wire.outbound())

    def breaks(self, data: bytes, code: ErrorCode, stream_id: int = 0) -> None:
        *_, last = self.take(data)
        assert isinstance(last, Broken)
        self.assertEqual((last.stream_id, last.code), (stream_id, code))
        kind = frames.FrameType.RST_STREAM if stream_id else frames.FrameType.GOAWAY
        self.assertEqual(self.written()[-1][0], kind)
        self.assertEqual(self.wire.failed, not stream_id)


class RequestTests(WireCase):
    def test_a_request_opens_and_is_complete_with_its_body(self) -> None:
        opened, completed = self.take(head(1) + frames.data(1, b"ab", False) + frames.data(1, b"c", True))
        self.assertIsInstance(opened, Opened)
        assert isinstance(completed, Completed)
        self.assertEqual((completed.body, completed.size, dict(completed.fields)[b":method"]), (b"abc", 3, b"POST"))

    def test_padding_priority_and_continuation_are_understood(self) -> None:
        padded = frames.frame(0, frames.PADDED | frames.END_STREAM, 1, b"\x03abc\0\0\0")
        *_, completed = self.take(frames.headers(1, BLOCK, False, 20) + padded)
        self.assertEqual(getattr(completed, "body", None), b"abc")
        flags = frames.END_HEADERS | frames.END_STREAM | frames.PRIORITY_FIELDS
        *_, other = self.take(frames.frame(1, flags, 3, b"\0\0\0\0\x10" + BLOCK))
        self.assertIsInstance(other, Completed)

    def test_trailers_end_a_request(self) -> None:
        trailers = frames.headers(1, block([(b"x-checksum", b"1")]), True)
        *_, completed = self.take(head(1) + frames.data(1, b"abc", False) + trailers)
        self.assertEqual(getattr(completed, "size", None), 3)

    def test_an_answer_ends_the_stream(self) -> None:
        self.take(head(1, True))
        self.wire.respond(1, ANSWER, b"body")
        self.assertEqual([kind for kind, *_ in self.written()], [1, 0])
        self.assertEqual(self.wire.open_streams, 0)
        self.wire.respond(1, ANSWER)
        self.assertEqual(self.written(), [])

    def test_an_answer_before_the_end_asks_the_client_to_stop(self) -> None:
        self.take(head(1))
        self.wire.respond(1, ANSWER)
        self.assertEqual(self.written()[-1], (3, 0, 1, bytes(4)))
        self.assertEqual(self.take(frames.data(1, b"late", True)), [])

    def test_a_client_that_resets_is_told_of(self) -> None:
        self.assertEqual(self.take(head(1) + frames.rst_stream(1, 8))[1], Abandoned(1, 8))

    def test_a_body_too_long_to_keep_is_complete_at_once(self) -> None:
        chunk = bytes(8192)
        events = self.take(head(1) + frames.data(1, chunk, False) * 3)
        completed = events[-1]
        assert isinstance(completed, Completed)
        self.assertEqual((len(completed.body), completed.size > MAX_BODY, len(events)), (MAX_BODY, True, 2))
        self.assertEqual(self.take(frames.data(1, chunk, True)), [])

    def test_a_ping_is_answered_and_an_unknown_frame_means_nothing(self) -> None:
        self.assertEqual(self.take(frames.ping(b"12345678") + frames.frame(99, 0, 7, b"x")), [])
        self.assertEqual(self.written(), [(6, frames.ACK, 0, b"12345678")])

    def test_behind_go_away_new_streams_are_not_looked_at(self) -> None:
        self.take(head(1) + head(3))
        self.wire.go_away(1)
        self.assertEqual(self.take(head(5) + frames.data(5, b"x", True) + frames.data(3, b"x", True)), [])
        self.assertEqual(self.wire.open_streams, 1)
        (completed,) = self.take(frames.data(1, b"x", True))
        self.assertEqual(getattr(completed, "stream_id", 0), 1)

    def test_what_is_done_about_an_event_counts_for_the_next_frame(self) -> None:
        seen = []
        for event in self.wire.receive(head(1, True) + head(3, True)):
            seen.append(event)
            self.wire.go_away(1)
        self.assertEqual([event.stream_id for event in seen], [1, 1])

    @given(cuts=st.lists(st.integers(0, 400), max_size=8))
    @settings(max_examples=50)
    def test_chunks_do_not_matter(self, cuts: list[int]) -> None:
        data = START + head(1) + frames.data(1, b"abc", True) + frames.ping(b"12345678") + head(3, True)
        expected = list(ServerWire().receive(data))
        wire = ServerWire()
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        got = [event for begin, end in pairwise(edges) for event in wire.receive(data[begin:end])]
        self.assertEqual(got, expected)


class WindowTests(WireCase):
    def test_windows_are_given_back(self) -> None:
        self.take(head(1))
        for _ in range(20):
            self.take(frames.data(1, bytes(16_000), False))
        self.assertFalse(self.wire.failed)
        increments = [
            int.from_bytes(payload, "big") for kind, _, stream_id, payload in self.written() if kind == 8 and not stream_id
        ]
        self.assertGreater(sum(increments), 20 * 16_000 - DEFAULT_WINDOW)

    def test_more_than_the_windows_allow_is_noticed(self) -> None:
        self.wire = ServerWire(hold_windows=True)
        self.take(START + head(1))
        for _ in range(4):
            self.assertEqual(self.take(frames.data(1, bytes(16_000), False))[1:], [])
        self.breaks(frames.data(1, bytes(16_000), False), ErrorCode.FLOW_CONTROL_ERROR)

    def test_more_than_the_streams_window_allows_is_noticed(self) -> None:
        self.wire = ServerWire(window=10)
        self.take(START + frames.settings_ack() + head(1))
        self.breaks(frames.data(1, bytes(11), False), ErrorCode.FLOW_CONTROL_ERROR, 1)

    def test_padding_counts_too(self) -> None:
        self.wire = ServerWire(hold_windows=True)
        self.take(START + head(1))
        padded = frames.frame(0, frames.PADDED, 1, b"\xff" + bytes(255))
        self.assertEqual(self.take(padded * 255), [])
        self.breaks(padded * 2, ErrorCode.FLOW_CONTROL_ERROR)

    def test_answers_share_the_window_of_the_connection(self) -> None:
        self.take(frames.settings([(4, 1 << 20)]) + head(1, True) + head(3, True))
        self.written()
        self.wire.respond(1, ANSWER, bytes(40_000))
        self.wire.respond(3, ANSWER, bytes(40_000))
        self.assertEqual(sum(len(payload) for kind, *_, payload in self.written() if kind == 0), DEFAULT_WINDOW)
        self.take(frames.window_update(0, 20_000))
        self.assertEqual(sum(len(payload) for kind, *_, payload in self.written() if kind == 0), 80_000 - DEFAULT_WINDOW)

    def test_an_unusual_answer_takes_what_it_says_of_the_windows(self) -> None:
        for body in (b"", b"x", b"abc" * 100):
            data = unusual_answer(1, ANSWER, body)
            sizes = [len(payload) for kind, *_, payload in FrameReader().feed(data) if kind == 0]
            self.assertEqual(sum(sizes), unusual_size(body))

    def test_a_smaller_window_counts_when_the_client_knows_of_it(self) -> None:
        self.wire = ServerWire(window=10)
        self.take(START + head(1) + frames.data(1, bytes(11), False))
        self.written()
        self.assertEqual(self.take(frames.settings_ack()), [])
        self.assertEqual(self.written(), [(8, 0, 1, (11).to_bytes(4, "big"))])
        self.breaks(frames.data(1, bytes(11), False), ErrorCode.FLOW_CONTROL_ERROR, 1)

    def test_a_body_goes_out_as_the_clients_windows_allow(self) -> None:
        self.take(frames.settings([(4, 3)]) + head(1, True))
        self.written()
        self.wire.respond(1, ANSWER, b"abcdefgh")
        self.assertEqual([payload for kind, *_, payload in self.written() if kind == 0], [b"abc"])
        self.take(frames.window_update(1, 2))
        self.assertEqual([payload for kind, *_, payload in self.written() if kind == 0], [b"de"])
        self.take(frames.settings([(4, 100)]))
        self.assertEqual([(flags, payload) for kind, flags, _, payload in self.written() if kind == 0], [(1, b"fgh")])

    def test_windows_cannot_grow_beyond_their_limit(self) -> None:
        self.take(head(1))
        self.breaks(frames.window_update(1, frames.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR, 1)
        self.breaks(frames.window_update(0, frames.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR)

    def test_a_smaller_table_is_acknowledged_in_the_next_block(self) -> None:
        self.take(frames.settings([(1, 0)]) + head(1, True) + head(3, True))
        self.written()
        self.wire.respond(1, ANSWER)
        self.wire.respond(3, ANSWER)
        first, second = (payload for *_, payload in self.written())
        self.assertEqual((first[:1], first[1:]), (b"\x20", second))


class BadClientTests(WireCase):
    def test_no_preface(self) -> None:
        self.wire = ServerWire()
        self.breaks(b"GET / HTTP/1.1\r\n", ErrorCode.PROTOCOL_ERROR)

    def test_settings_come_first(self) -> None:
        self.wire = ServerWire()
        self.breaks(frames.PREFACE + frames.ping(b"12345678"), ErrorCode.PROTOCOL_ERROR)

    def test_settings_out_of_range(self) -> None:
        for key, value, code in ((2, 2, 1), (4, 2**31, 3), (5, 16_383, 1), (5, 2**24, 1)):
            self.setUp()
            self.breaks(frames.settings([(key, value)]), ErrorCode(code))

    def test_stream_ids_are_odd_and_rise(self) -> None:
        self.breaks(head(2), ErrorCode.PROTOCOL_ERROR)
        self.setUp()
        self.take(head(5, True))
        self.wire.respond(5, ANSWER)
        self.breaks(head(3), ErrorCode.STREAM_CLOSED)

    def test_frames_on_streams_that_are_idle_or_closed(self) -> None:
        for data in (frames.data(1, b"x", True), frames.rst_stream(1, 8), frames.window_update(1, 1)):
            self.setUp()
            self.breaks(data, ErrorCode.PROTOCOL_ERROR)
        self.setUp()
        self.take(head(1, True))
        self.breaks(frames.data(1, b"x", False), ErrorCode.STREAM_CLOSED, 1)
        self.setUp()
        self.take(head(1, True))
        self.wire.respond(1, ANSWER)
        self.breaks(frames.data(1, b"x", False), ErrorCode.STREAM_CLOSED)

    def test_nothing_comes_between_the_parts_of_a_block(self) -> None:
        begin = frames.frame(1, 0, 1, BLOCK[:5])
        self.breaks(begin + frames.ping(b"12345678"), ErrorCode.PROTOCOL_ERROR)
        self.setUp()
        self.breaks(begin + frames.frame(9, 4, 3, BLOCK[5:]), ErrorCode.PROTOCOL_ERROR)
        self.setUp()
        self.breaks(frames.frame(9, 4, 1, BLOCK), ErrorCode.PROTOCOL_ERROR)

    def test_a_block_without_end(self) -> None:
        many = frames.frame(9, 0, 1, bytes(16_000)) * (MAX_BLOCK // 16_000 + 1)
        self.breaks(frames.frame(1, 0, 1, b"") + many, ErrorCode.ENHANCE_YOUR_CALM)

    def test_trailers_that_do_not_end_and_headers_behind_the_end(self) -> None:
        self.take(head(1))
        self.breaks(head(1), ErrorCode.PROTOCOL_ERROR, 1)
        self.take(head(3, True))
        self.breaks(head(3, True), ErrorCode.STREAM_CLOSED, 3)

    def test_push_promise_from_a_client(self) -> None:
        self.breaks(frames.frame(5, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR)

    def test_a_field_list_that_is_too_long(self) -> None:
        long = block([*request_fields(), (b"x-long", b"y" * 20_000)])
        self.breaks(frames.headers(1, long, True), ErrorCode.PROTOCOL_ERROR, 1)

    def test_malformed_fields_are_the_streams_fault(self) -> None:
        good = request_fields()
        cases = (
            good[1:],
            [*good, (b":path", b"/")],
            [(b":path", b"/"), *good],
            [*good, (b":late", b"x")],
            [*good, (b"connection", b"close")],
            [*good, (b"te", b"gzip")],
            [*good, (b"Upper", b"x")],
            [*good, (b"x", b"a\r\nb")],
            [*good, (b"x", b" a")],
            [*good, (b"content-length", b"5")],
            [*good, (b"content-length", b"-1")],
            [*good, (b"content-length", b"0"), (b"content-length", b"1")],
        )
        for number, fields in enumerate(cases):
            raw = b"".join(_raw(name, value) for name, value in fields)
            self.breaks(frames.headers(2 * number + 1, raw, True), ErrorCode.PROTOCOL_ERROR, 2 * number + 1)

    def test_a_length_that_is_right_is_taken(self) -> None:
        fields = [*request_fields(), (b"content-length", b"3"), (b"te", b"trailers")]
        *_, completed = self.take(frames.headers(1, block(fields), False) + frames.data(1, b"abc", True))
        self.assertIsInstance(completed, Completed)

    def test_a_client_that_does_not_read_answers_is_cut_off(self) -> None:
        self.wire.write_raw(bytes(MAX_OUTBOUND))
        self.assertEqual([event.code for event in self.take(frames.ping(b"12345678"))], [ErrorCode.ENHANCE_YOUR_CALM])  # type: ignore[union-attr]

    def test_a_frame_that_is_too_long(self) -> None:
        self.breaks(frames.frame(0, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR)

    @given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=40)), max_size=20))
    def test_any_frames_never_raise(self, rows: list[tuple[int, int, int, bytes]]) -> None:
        wire = ServerWire()
        for data in (START, *(frames.frame(*row) for row in rows)):
            for event in wire.receive(data):
                if isinstance(event, Completed):
                    wire.respond(event.stream_id, ANSWER, b"body")
        FrameReader().feed(wire.outbound())


def _raw(name: bytes, value: bytes) -> bytes:
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value
