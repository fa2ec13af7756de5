"""Servers that break the rules of RFC 9113, or keep them and still try to wear us out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import frames, hpack
from streampush.apns.http2.errors import ErrorCode
from streampush.apns.http2.events import ConnectionFailed, Event, ResponseReceived, StreamReset, Verdict
from streampush.apns.http2.frames import ACK, END_HEADERS, END_STREAM, PADDED, FrameType, frame
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.settings import Setting
from streampush.apns.http2.streams import ConnectionState
from tests.apns.http2.driving import OK, Driven, answer, connected, idle
from tests.apns.http2.strategies import raw_frames

PROTOCOL_ERROR = ErrorCode.PROTOCOL_ERROR
CALM = ErrorCode.ENHANCE_YOUR_CALM
OPEN, OVER, UNWRITTEN, NEVER = 1, 3, 7, 99


def with_streams(limits: Limits | None = None) -> Driven:
    """Stream 1 is open, 3 is over, 5 has its answer begun, 7 has not left."""
    driven = connected(limits)
    driven.requests(3)
    driven.written()
    driven.serve(answer(OVER), frames.headers(5, OK, False))
    driven.requests(1)
    return driven


def failure(events: list[Event]) -> ConnectionFailed:
    assert isinstance(events[-1], ConnectionFailed)
    return events[-1]


CONNECTION_ERRORS = {
    "push promise": (frame(FrameType.PUSH_PROMISE, END_HEADERS, OPEN, b"\0\0\0\2" + OK), PROTOCOL_ERROR),
    "headers on an even stream": (frames.headers(2, OK, True), PROTOCOL_ERROR),
    "headers on stream 0": (frames.headers(0, OK, True), PROTOCOL_ERROR),
    "headers on a stream that never was": (frames.headers(NEVER, OK, True), PROTOCOL_ERROR),
    "headers on a stream that has not left": (frames.headers(UNWRITTEN, OK, True), PROTOCOL_ERROR),
    "data on a stream that never was": (frames.data(NEVER, b"x", True), PROTOCOL_ERROR),
    "data on a stream that has not left": (frames.data(UNWRITTEN, b"x", True), PROTOCOL_ERROR),
    "data on an even stream": (frames.data(2, b"x", True), PROTOCOL_ERROR),
    "data on stream 0": (frames.data(0, b"x", True), PROTOCOL_ERROR),
    "reset of a stream that never was": (frames.rst_stream(NEVER, 0), PROTOCOL_ERROR),
    "reset of a stream that has not left": (frames.rst_stream(UNWRITTEN, ErrorCode.REFUSED_STREAM), PROTOCOL_ERROR),
    "reset of an even stream": (frames.rst_stream(2, 0), PROTOCOL_ERROR),
    "window update of a stream that never was": (frames.window_update(NEVER, 1), PROTOCOL_ERROR),
    "window update of a stream that has not left": (frames.window_update(UNWRITTEN, 1), PROTOCOL_ERROR),
    "window update by 0 of the connection": (frame(FrameType.WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "window update by 0 of a stream that never was": (frame(FrameType.WINDOW_UPDATE, 0, NEVER, bytes(4)), PROTOCOL_ERROR),
    "short window update": (frame(FrameType.WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "short reset": (frame(FrameType.RST_STREAM, 0, OPEN, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "short ping": (frame(FrameType.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "ping on a stream": (frame(FrameType.PING, 0, OPEN, bytes(8)), PROTOCOL_ERROR),
    "crooked settings": (frame(FrameType.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (frame(FrameType.SETTINGS, 0, OPEN, b""), PROTOCOL_ERROR),
    "acknowledgement with settings": (frame(FrameType.SETTINGS, ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "push enabled": (frames.settings([(Setting.ENABLE_PUSH, 1)]), PROTOCOL_ERROR),
    "initial window too large": (frames.settings([(Setting.INITIAL_WINDOW_SIZE, 2**31)]), ErrorCode.FLOW_CONTROL_ERROR),
    "max frame size too small": (frames.settings([(Setting.MAX_FRAME_SIZE, 16_383)]), PROTOCOL_ERROR),
    "max frame size too large": (frames.settings([(Setting.MAX_FRAME_SIZE, 2**24)]), PROTOCOL_ERROR),
    "short goaway": (frame(FrameType.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "goaway on a stream": (frame(FrameType.GOAWAY, 0, OPEN, bytes(8)), PROTOCOL_ERROR),
    "padding longer than its frame": (frame(FrameType.DATA, PADDED, 5, b"\5x"), PROTOCOL_ERROR),
    "a frame that is too long": (frame(FrameType.DATA, 0, 5, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
    "continuation without headers": (frame(FrameType.CONTINUATION, END_HEADERS, OPEN, OK), PROTOCOL_ERROR),
    "another frame within a block": (frame(FrameType.HEADERS, 0, OPEN, OK) + frames.ping(bytes(8)), PROTOCOL_ERROR),
    "an unknown frame within a block": (frame(FrameType.HEADERS, 0, OPEN, OK) + frame(0xEE, 0, 0), PROTOCOL_ERROR),
    "another stream within a block": (
        frame(FrameType.HEADERS, 0, OPEN, OK) + frame(FrameType.CONTINUATION, END_HEADERS, 5, OK),
        PROTOCOL_ERROR,
    ),
    "a block that is no HPACK": (frames.headers(OPEN, b"\x80", True), ErrorCode.COMPRESSION_ERROR),
    "a block that is no HPACK on a stream that is over": (frames.headers(OVER, b"\x80", True), ErrorCode.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_a_fault_of_the_connection_ends_it_with_a_code(name: str) -> None:
    data, code = CONNECTION_ERRORS[name]
    driven = with_streams()
    failed = failure(driven.serve(data))
    assert failed.code == code
    assert failed.text
    assert failed.streams == ((OPEN, Verdict.UNKNOWN), (5, Verdict.UNKNOWN), (UNWRITTEN, Verdict.NOT_WRITTEN))
    ((kind, _, _, payload),) = driven.written()
    assert (kind, frames.parse_goaway(0, 0, payload)[1]) == (FrameType.GOAWAY, code)


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_a_fault_is_the_same_byte_by_byte(name: str) -> None:
    data, code = CONNECTION_ERRORS[name]
    driven = with_streams()
    events = [event for at in range(len(data)) for event in driven.serve(data[at : at + 1])]
    assert [event.code for event in events if isinstance(event, ConnectionFailed)] == [code]


STREAM_ERRORS = {
    "data in front of headers": (frames.data(OPEN, b"x", False), PROTOCOL_ERROR),
    "headers without a status": (frames.headers(OPEN, hpack.block([(b"a", b"b")]), False), PROTOCOL_ERROR),
    "ended headers without a status": (frames.headers(OPEN, hpack.block([(b"a", b"b")]), True), PROTOCOL_ERROR),
    "an interim answer that ends": (frames.headers(OPEN, hpack.block([(b":status", b"103")]), True), PROTOCOL_ERROR),
    "status 101": (frames.headers(OPEN, hpack.block([(b":status", b"101")]), False), PROTOCOL_ERROR),
    "window update by 0": (frame(FrameType.WINDOW_UPDATE, 0, OPEN, bytes(4)), PROTOCOL_ERROR),
    "crooked priority": (frame(FrameType.PRIORITY, 0, OPEN, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "endless fields": (frames.headers(OPEN, OK * 500, True), CALM),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_a_fault_of_a_stream_ends_that_stream(name: str) -> None:
    data, code = STREAM_ERRORS[name]
    driven = with_streams()
    (event,) = driven.serve(data)
    assert isinstance(event, StreamReset)
    assert (event.stream_id, event.code, event.verdict) == (OPEN, code, Verdict.UNKNOWN)
    assert event.text
    assert driven.written()[-1] == (FrameType.RST_STREAM, 0, OPEN, code.to_bytes(4, "big"))
    assert driven.connection.state is ConnectionState.OPEN
    assert driven.serve(data) == []


@pytest.mark.parametrize(
    "second",
    [frames.headers(5, OK, False), frames.headers(5, OK, True)],
    ids=["trailers that do not end", "a second answer"],
)
def test_a_second_head_within_the_body_ends_the_stream(second: bytes) -> None:
    driven = with_streams()
    (event,) = driven.serve(second)
    assert isinstance(event, StreamReset) and event.code == PROTOCOL_ERROR


@pytest.mark.parametrize("first", [frames.ping(bytes(8)), frames.settings_ack(), answer(1), frame(0xEE, 0, 0)])
def test_the_first_frame_of_a_server_is_settings(first: bytes) -> None:
    driven = idle()
    driven.start()
    assert failure(driven.serve(first)).code == PROTOCOL_ERROR


def test_a_server_that_speaks_http_1_is_named() -> None:
    driven = idle()
    driven.start()
    assert "HTTP/1" in failure(driven.serve(b"HTTP/1.1 400 Bad Request\r\n")).text


def test_a_second_answer_for_a_stream_is_dropped() -> None:
    driven = with_streams()
    assert driven.serve(answer(OVER), frames.data(OVER, b"x", True)) == []


# Floods: each passes its limit by one, and stays below it when time goes on.

LIMITS = Limits(
    pings_burst=5,
    pings_rate=1,
    settings_burst=5,
    settings_rate=1,
    idle_burst=5,
    idle_rate=1,
    idle_per_frame=0,
    max_block_size=16_384,
    max_continuations=4,
    max_settings_pairs=3,
)

FLOODS = {
    "ping": frames.ping(bytes(8)),
    "settings": frames.settings([]),
    "empty data": frames.data(5, b"", False),
    "padding alone": frame(FrameType.DATA, PADDED, 5, b"\1\0"),
    "unknown frames": frame(0xEE, 0, 0, b"x"),
    "priority": frame(FrameType.PRIORITY, 0, 9, bytes(5)),
    "window updates of the connection": frames.window_update(0, 1),
    "window updates of a stream": frames.window_update(OPEN, 1),
    "window updates of a stream that is over": frames.window_update(OVER, 1),
    "resets of a stream that is over": frames.rst_stream(OVER, 0),
    "answers of a stream that is over": answer(OVER),
    "data of a stream that is over": frames.data(OVER, b"x", False),
    "faults on a stream that is over": frame(FrameType.WINDOW_UPDATE, 0, OVER, bytes(4)),
    "interim answers": frames.headers(OPEN, hpack.block([(b":status", b"103")]), False),
    "answers to pings that we did not send": frames.ping(bytes(8), ack=True),
    "acknowledgements of settings": frames.settings_ack(),
    "goaway": frames.goaway(99, 0),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(name: str) -> None:
    driven = with_streams(LIMITS)
    events = driven.serve(FLOODS[name] * (LIMITS.idle_burst + 1))
    assert failure(events).code == CALM


@pytest.mark.parametrize("name", FLOODS)
def test_a_burst_and_a_steady_trickle_of_the_same_are_borne(name: str) -> None:
    driven = with_streams(LIMITS)
    driven.now += 1
    driven.serve(FLOODS[name] * (LIMITS.idle_burst - 1))  # SETTINGS have used one
    for _ in range(20):
        driven.written()
        driven.now += 1
        driven.serve(FLOODS[name])
    assert driven.connection.state is not ConnectionState.CLOSED


def test_window_updates_for_each_request_are_no_flood() -> None:
    driven = connected(Limits(idle_burst=10, idle_rate=0.001), max_streams=10)
    for _ in range(200):
        (stream_id,) = driven.requests(1)
        driven.written()
        driven.serve(
            frames.window_update(0, 1), frames.window_update(stream_id, 1), answer(stream_id), frames.rst_stream(stream_id, 0)
        )
    assert driven.connection.state is ConnectionState.OPEN


def test_what_requests_add_to_the_allowance_is_added_once() -> None:
    driven = connected(Limits(idle_burst=5, idle_rate=0.001, idle_per_frame=2))
    driven.requests(10)
    driven.written()
    assert driven.serve(frame(0xEE, 0, 0) * 25) == []
    assert failure(driven.serve(frame(0xEE, 0, 0))).code == CALM


def test_window_updates_for_each_frame_of_a_body_are_no_flood() -> None:
    driven = connected(Limits(idle_burst=10, idle_rate=0.001), initial_window=2)
    driven.requests(1, b"x" * 1000)
    driven.written()
    for _ in range(450):
        driven.serve(frames.window_update(0, 2), frames.window_update(1, 2))
        driven.written()
    assert driven.connection.state is ConnectionState.OPEN


def test_endless_continuations_end_the_connection() -> None:
    driven = with_streams(LIMITS)
    empty = frame(FrameType.CONTINUATION, 0, OPEN)
    failed = failure(driven.serve(frame(FrameType.HEADERS, 0, OPEN, OK), empty * (LIMITS.max_continuations + 1)))
    assert (failed.code, failed.text) == (CALM, "field block in more than 4 CONTINUATION frames")


def test_an_endless_block_ends_the_connection() -> None:
    driven = with_streams(LIMITS)
    piece = bytes(9000)
    failed = failure(driven.serve(frame(FrameType.HEADERS, 0, OPEN, piece), frame(FrameType.CONTINUATION, 0, OPEN, piece)))
    assert (failed.code, failed.text) == (CALM, "field block of more than 16384 bytes")


def test_settings_of_many_pairs_end_the_connection() -> None:
    driven = with_streams(LIMITS)
    assert driven.serve(frames.settings([(0xAA, 1)] * 3)) != []
    assert failure(driven.serve(frames.settings([(0xAA, 1)] * 4))).code == CALM


def test_a_server_that_makes_us_answer_and_does_not_read_is_cut() -> None:
    driven = with_streams(Limits(max_replies=170))
    driven.written()
    driven.serve(frames.ping(bytes(8)) * 10)
    failed = failure(driven.serve(frames.ping(bytes(8))))
    assert (failed.code, failed.text) == (CALM, "the server makes us answer and does not read")


def test_answers_that_were_taken_make_room_for_others() -> None:
    driven = with_streams(Limits(max_replies=170))
    for _ in range(5):
        driven.written()
        driven.serve(frames.ping(bytes(8)) * 10)
    assert driven.connection.state is ConnectionState.OPEN


def test_fields_that_are_too_long_cost_only_their_stream_and_the_table_stays_right() -> None:
    driven = with_streams(Limits(max_header_list_size=200))
    indexed = b"\x40\x01a\x28" + b"b" * 40
    first, second = driven.serve(frames.headers(OPEN, OK + indexed * 4, True), frames.headers(5, b"\xbe", True))
    assert isinstance(first, StreamReset) and first.code == CALM
    assert not isinstance(second, ConnectionFailed)


@given(st.lists(raw_frames, max_size=20))
def test_no_frames_raise_anything(parts: list[bytes]) -> None:
    driven = with_streams()
    for part in parts:
        driven.serve(part)
    driven.written()
    driven.connection.end_of_input()


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything(data: bytes) -> None:
    driven = with_streams()
    driven.serve(data)
    driven.written()


mutations = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)


@given(mutations)
def test_a_conversation_with_wrong_octets_ends_each_stream_at_most_once(changes: list[tuple[int, int]]) -> None:
    driven = connected()
    driven.requests(4)
    driven.written()
    conversation = bytearray(
        answer(1)
        + frames.headers(3, OK, False)
        + frames.ping(bytes(8))
        + frames.data(3, b"body", True)
        + frames.window_update(0, 5)
        + frames.goaway(5, 0)
        + answer(5)
    )
    for position, octet in changes:
        conversation[position % len(conversation)] = octet
    ended: list[int] = []
    for event in [*driven.serve(bytes(conversation)), *driven.connection.end_of_input()]:
        if (isinstance(event, ResponseReceived) and event.ended) or isinstance(event, StreamReset):
            ended.append(event.stream_id)
        elif hasattr(event, "streams"):
            ended += [stream_id for stream_id, _ in event.streams]
        elif getattr(event, "ended", False):
            ended.append(event.stream_id)  # type: ignore[union-attr]  # DataReceived
    assert sorted(ended) == [1, 3, 5, 7]


def test_ended_headers_on_an_unwritten_stream_do_not_answer_it() -> None:
    driven = with_streams()
    assert failure(driven.serve(frame(FrameType.HEADERS, END_STREAM | END_HEADERS, UNWRITTEN, OK))).code == PROTOCOL_ERROR
