"""What a caller sees of a connection with a server that behaves: RFC 9113 sections 3.4, 5.1, 6.8 and 8.1."""

from __future__ import annotations

import pytest

from streampush.apns.http2 import frames, hpack
from streampush.apns.http2.connection import ClientConnection
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError
from streampush.apns.http2.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    GoneAway,
    ResponseReceived,
    SettingsChanged,
    StreamReset,
    TrailersReceived,
    Verdict,
)
from streampush.apns.http2.frames import END_HEADERS, END_STREAM, MAX_STREAM_ID, FrameType
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.settings import Setting
from streampush.apns.http2.streams import ConnectionState
from tests.apns.http2.driving import BLOCK, OK, answer, connected, idle, kinds

TRAILERS = hpack.block([(b"grpc-status", b"0")])
CONTINUE = hpack.block([(b":status", b"103")])


def test_a_connection_begins_with_preface_settings_and_its_window() -> None:
    connection = ClientConnection(Limits(connection_window=100_000, stream_window=70_000))
    connection.start(0.0)
    data = connection.outbound()
    assert data.startswith(frames.PREFACE)
    settings, window = frames.FrameReader().feed(data[len(frames.PREFACE) :])
    assert dict(frames.parse_settings(*settings[1:])) == {
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: 70_000,
        Setting.MAX_FRAME_SIZE: 16_384,
        Setting.MAX_HEADER_LIST_SIZE: 16_384,
    }
    assert frames.parse_window_update(*window[1:]) == 100_000 - 65_535


def test_the_default_connection_window_needs_no_window_update() -> None:
    assert kinds(idle(Limits(connection_window=65_535)).start()) == [(FrameType.SETTINGS, 0)]


def test_a_connection_starts_once() -> None:
    driven = idle()
    driven.start()
    with pytest.raises(LocalProtocolError, match="open"):
        driven.start()


def test_there_is_no_room_before_the_start_and_one_stream_before_settings() -> None:
    driven = idle()
    assert driven.connection.room() == 0
    driven.start()
    assert driven.connection.room() == 1
    driven.requests(1)
    assert driven.connection.room() == 0


def test_settings_say_how_much_room_there_is() -> None:
    driven = idle(Limits(max_streams=50))
    driven.start()
    assert driven.serve(frames.settings([(Setting.MAX_CONCURRENT_STREAMS, 7)])) == [SettingsChanged(7)]
    driven.requests(2)
    assert driven.connection.room() == 5
    assert driven.serve(frames.settings([(Setting.MAX_CONCURRENT_STREAMS, 1)])) == [SettingsChanged(1)]
    assert driven.connection.room() == 0
    assert driven.serve(frames.settings([(Setting.MAX_CONCURRENT_STREAMS, 1000)])) == [SettingsChanged(50)]
    assert driven.connection.room() == 48


def test_a_server_that_names_no_bound_gets_as_many_streams_as_we_allow() -> None:
    driven = idle(Limits(max_streams=50))
    driven.start()
    assert driven.serve(frames.settings([])) == [SettingsChanged(50)]


def test_what_settings_leave_out_stays_as_it_was() -> None:
    driven = connected(max_streams=7)
    assert driven.serve(frames.settings([(Setting.MAX_HEADER_LIST_SIZE, 5000)])) == [SettingsChanged(7)]
    assert driven.connection.max_header_list_size == 5000


def test_settings_are_acknowledged() -> None:
    driven = idle()
    driven.start()
    driven.serve(frames.settings([]))
    assert driven.written() == [(FrameType.SETTINGS, frames.ACK, 0, b"")]


def test_a_request_without_room_is_refused_and_leaves_nothing() -> None:
    driven = connected(max_streams=1)
    driven.requests(1)
    driven.written()
    with pytest.raises(LocalProtocolError, match="no room: the connection is open, 1 streams are open"):
        driven.requests(1)
    assert driven.written() == []


def test_a_request_is_headers_and_one_frame_of_data() -> None:
    driven = connected()
    assert driven.requests(2, b"body") == [1, 3]
    first, body, second, _ = driven.written()
    assert first == (FrameType.HEADERS, END_HEADERS, 1, hpack.size_update(0) + BLOCK)
    assert body == (FrameType.DATA, END_STREAM, 1, b"body")
    assert second[2] == 3


def test_a_request_without_body_ends_with_its_headers() -> None:
    driven = connected()
    driven.requests(1, b"")
    assert driven.written() == [(FrameType.HEADERS, END_HEADERS | END_STREAM, 1, hpack.size_update(0) + BLOCK)]


def test_a_request_that_goes_on_ends_when_the_caller_says() -> None:
    driven = connected()
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    driven.connection.send_data(stream_id, b"one")
    driven.connection.send_data(stream_id, b"", end_stream=True)
    assert [(flags, payload) for _, flags, _, payload in driven.written()[1:]] == [(0, b"one"), (END_STREAM, b"")]


def test_a_long_block_goes_on_in_continuations() -> None:
    driven = connected()
    driven.connection.request(BLOCK + hpack.literal(b"x", b"y" * 20_000), b"body")
    assert kinds(driven.written()) == [(FrameType.HEADERS, 1), (FrameType.CONTINUATION, 1), (FrameType.DATA, 1)]


def test_blocks_begin_with_an_empty_table_until_one_has_left() -> None:
    driven = connected()
    driven.requests(2)
    driven.connection.reset(1)
    (first, _) = driven.written()
    assert first[2:] == (3, hpack.size_update(0) + BLOCK)
    driven.requests(1)
    assert driven.written()[0][3] == BLOCK


def test_an_empty_table_is_said_again_when_the_first_request_was_taken_back() -> None:
    driven = connected()
    driven.requests(1)
    driven.connection.reset(1)
    assert driven.written() == []
    driven.requests(1)
    assert driven.written()[0][2:] == (3, hpack.size_update(0) + BLOCK)


def test_an_answer_in_one_frame() -> None:
    driven = connected()
    driven.requests(2)
    driven.written()
    (event,) = driven.serve(answer(3))
    assert isinstance(event, ResponseReceived)
    assert (event.stream_id, event.headers.status, event.ended) == (3, 200, True)
    assert (driven.connection.requests, driven.connection.open_streams) == (2, 1)


def test_an_answer_with_a_body() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    first, *rest = driven.serve(frames.headers(1, OK, False), frames.data(1, b"he", False), frames.data(1, b"llo", True))
    assert isinstance(first, ResponseReceived) and not first.ended
    assert rest == [DataReceived(1, b"he", False), DataReceived(1, b"llo", True)]
    assert driven.connection.open_streams == 0


def test_an_answer_that_an_empty_frame_ends() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    assert driven.serve(frames.headers(1, OK, False), frames.data(1, b"", True))[1:] == [DataReceived(1, b"", True)]


def test_an_answer_with_trailers() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    events = driven.serve(frames.headers(1, OK, False), frames.data(1, b"x", False), frames.headers(1, TRAILERS, True))
    assert isinstance(events[2], TrailersReceived)
    assert events[2].headers.get(b"grpc-status") == b"0"
    assert driven.connection.open_streams == 0


def test_an_answer_in_continuations_with_padding_and_priority() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    block = hpack.block([(b":status", b"410"), (b"apns-id", b"a")])
    flags = frames.PADDED | frames.PRIORITY_FIELDS | END_STREAM
    head = frames.frame(FrameType.HEADERS, flags, 1, b"\2" + bytes(5) + block[:1] + b"\0\0")
    (event,) = driven.serve(head, frames.frame(FrameType.CONTINUATION, END_HEADERS, 1, block[1:]))
    assert isinstance(event, ResponseReceived) and event.ended
    assert (event.headers.status, event.headers.get(b"apns-id")) == (410, b"a")


def test_padding_of_data_is_taken_off() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    padded = frames.frame(FrameType.DATA, frames.PADDED | END_STREAM, 1, b"\3body\0\0\0")
    assert driven.serve(frames.headers(1, OK, False), padded)[1:] == [DataReceived(1, b"body", True)]


def test_answers_before_the_final_one_are_passed_over() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    assert driven.serve(frames.headers(1, CONTINUE, False), frames.headers(1, CONTINUE, False)) == []
    (event,) = driven.serve(answer(1))
    assert isinstance(event, ResponseReceived) and event.headers.status == 200


def test_an_answer_before_the_end_of_the_body_stops_the_body() -> None:
    driven = connected(initial_window=10)
    driven.requests(1, b"x" * 11)
    driven.written()
    (event,) = driven.serve(answer(1))
    assert isinstance(event, ResponseReceived)
    assert driven.written() == [(FrameType.RST_STREAM, 0, 1, bytes([0, 0, 0, ErrorCode.CANCEL]))]
    assert driven.serve(frames.window_update(1, 100)) == []
    assert driven.written() == []


def test_unknown_frames_and_priority_mean_nothing() -> None:
    driven = connected()
    assert driven.serve(frames.frame(0xBB, 0xFF, 77, b"?"), frames.frame(FrameType.PRIORITY, 0, 9, bytes(5))) == []
    assert driven.connection.state is ConnectionState.OPEN


def test_a_ping_of_the_server_is_answered() -> None:
    driven = connected()
    driven.serve(frames.ping(b"01234567"))
    assert driven.written() == [(FrameType.PING, frames.ACK, 0, b"01234567")]


# Reset.


def test_a_reset_of_a_written_request_tells_the_server_and_may_be_too_late() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    assert driven.connection.reset(1) is Verdict.UNKNOWN
    assert driven.written() == [(FrameType.RST_STREAM, 0, 1, bytes([0, 0, 0, ErrorCode.CANCEL]))]
    assert driven.connection.open_streams == 0


def test_what_comes_for_a_stream_that_was_reset_is_dropped() -> None:
    driven = connected()
    driven.requests(2)
    driven.written()
    driven.connection.reset(1)
    late = (frames.headers(1, OK, False), frames.data(1, b"body", True), frames.rst_stream(1, 0), frames.window_update(1, 9))
    (event,) = driven.serve(*late, answer(3))
    assert isinstance(event, ResponseReceived) and event.stream_id == 3


def test_a_late_answer_keeps_the_table_of_fields_right() -> None:
    driven = connected()
    driven.requests(2)
    driven.written()
    driven.connection.reset(1)
    indexed = b"\x40\x01a\x01b"  # enters the table that a server has when it passes over our SETTINGS
    (event,) = driven.serve(frames.headers(1, OK + indexed, True), frames.headers(3, OK + b"\xbe", True))
    assert isinstance(event, ResponseReceived)
    assert list(event.headers)[1:] == [(b"a", b"b")]


def test_a_reset_of_a_request_that_has_not_left_takes_it_back() -> None:
    driven = connected()
    driven.requests(3)
    assert driven.connection.reset(3) is Verdict.NOT_WRITTEN
    assert {stream_id for _, stream_id in kinds(driven.written())} == {1, 5}


def test_a_request_can_be_taken_back_before_the_preface_left() -> None:
    driven = idle()
    driven.connection.start(0.0)
    driven.requests(1)
    driven.connection.reset(1)
    assert kinds(driven.written()) == [(FrameType.SETTINGS, 0), (FrameType.WINDOW_UPDATE, 0)]


def test_a_reset_of_what_is_over_does_nothing() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    driven.serve(answer(1))
    assert driven.connection.reset(1) is None
    assert driven.written() == []


@pytest.mark.parametrize("stream_id", [0, 2, 3])
def test_a_stream_that_never_was_can_neither_be_reset_nor_written_to(stream_id: int) -> None:
    driven = connected()
    driven.requests(1)
    with pytest.raises(LocalProtocolError, match=f"there was no stream {stream_id}"):
        driven.connection.reset(stream_id)
    with pytest.raises(LocalProtocolError, match=f"there was no stream {stream_id}"):
        driven.connection.send_data(stream_id, b"")


def test_data_for_a_stream_that_is_over_is_dropped() -> None:
    driven = connected()
    driven.connection.request(BLOCK, end_stream=False)
    driven.written()
    driven.serve(frames.rst_stream(1, ErrorCode.CANCEL))
    driven.connection.send_data(1, b"more", end_stream=True)
    assert driven.written() == []


def test_data_behind_the_end_is_an_error_of_the_caller() -> None:
    driven = connected()
    driven.requests(1)
    with pytest.raises(LocalProtocolError, match="stream 1 has sent its end"):
        driven.connection.send_data(1, b"more")


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(ErrorCode.REFUSED_STREAM, Verdict.REFUSED), (ErrorCode.CANCEL, Verdict.UNKNOWN), (ErrorCode.NO_ERROR, Verdict.UNKNOWN)],
)
def test_a_reset_by_the_server_says_whether_it_acted(code: ErrorCode, verdict: Verdict) -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    (event,) = driven.serve(frames.rst_stream(1, code))
    assert event == StreamReset(1, code, verdict)
    assert repr(code) in repr(event)


def test_a_code_that_nobody_knows_is_passed_on() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    assert driven.serve(frames.rst_stream(1, 0xDEAD)) == [StreamReset(1, 0xDEAD, Verdict.UNKNOWN)]


def test_a_server_that_began_to_answer_cannot_refuse() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    events = driven.serve(frames.headers(1, OK, False), frames.rst_stream(1, ErrorCode.REFUSED_STREAM))
    assert events[1:] == [StreamReset(1, ErrorCode.REFUSED_STREAM, Verdict.UNKNOWN)]


# GOAWAY and the end.


def test_goaway_refuses_what_is_above_and_leaves_the_rest() -> None:
    driven = connected()
    driven.requests(3)
    driven.written()
    events = driven.serve(frames.goaway(3, ErrorCode.NO_ERROR, b'{"reason":"Shutdown"}'))
    assert events == [GoneAway(3, ErrorCode.NO_ERROR, b'{"reason":"Shutdown"}', ((5, Verdict.REFUSED),))]
    assert driven.connection.state is ConnectionState.DRAINING
    assert driven.connection.room() == 0
    assert [event.stream_id for event in driven.serve(answer(3), answer(1)) if isinstance(event, ResponseReceived)] == [3, 1]
    assert driven.connection.open_streams == 0


def test_goaway_takes_back_what_has_not_left() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    driven.requests(2)
    (event,) = driven.serve(frames.goaway(MAX_STREAM_ID, ErrorCode.NO_ERROR))
    assert isinstance(event, GoneAway)
    assert event.streams == ((3, Verdict.NOT_WRITTEN), (5, Verdict.NOT_WRITTEN))
    assert driven.written() == []
    assert driven.connection.open_streams == 1


def test_a_second_goaway_may_lower_the_last_stream_and_not_raise_it() -> None:
    driven = connected()
    driven.requests(3)
    driven.written()
    first, second, third = driven.serve(
        frames.goaway(MAX_STREAM_ID, ErrorCode.NO_ERROR),
        frames.goaway(1, ErrorCode.NO_ERROR),
        frames.goaway(99, ErrorCode.NO_ERROR),
    )
    assert isinstance(first, GoneAway) and first.streams == ()
    assert isinstance(second, GoneAway) and second.streams == ((3, Verdict.REFUSED), (5, Verdict.REFUSED))
    assert isinstance(third, GoneAway) and (third.last_stream_id, third.streams) == (1, ())


def test_goaway_before_settings_is_understood() -> None:
    driven = idle()
    driven.connection.start(0.0)
    driven.requests(1)
    driven.written()
    assert driven.serve(frames.goaway(0, ErrorCode.ENHANCE_YOUR_CALM, b"later")) == [
        GoneAway(0, ErrorCode.ENHANCE_YOUR_CALM, b"later", ((1, Verdict.REFUSED),))
    ]


def test_answers_in_front_of_and_behind_a_goaway_in_one_segment_count() -> None:
    driven = connected()
    driven.requests(3)
    driven.written()
    events = driven.serve(answer(1), frames.goaway(3, ErrorCode.NO_ERROR), answer(3))
    assert [type(event) for event in events] == [ResponseReceived, GoneAway, ResponseReceived]


def test_goaway_below_an_answer_that_began_does_not_make_it_safe_to_repeat() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    _, event = driven.serve(frames.headers(1, OK, False), frames.goaway(0, ErrorCode.NO_ERROR))
    assert isinstance(event, GoneAway) and event.streams == ((1, Verdict.UNKNOWN),)


def test_the_debug_data_of_a_goaway_is_cut() -> None:
    driven = connected(Limits(max_debug_size=10))
    (event,) = driven.serve(frames.goaway(0, 0xBEEF, b"d" * 1000))
    assert event == GoneAway(0, 0xBEEF, b"d" * 10, ())


def test_settings_after_goaway_make_no_room() -> None:
    driven = connected()
    driven.serve(frames.goaway(0, ErrorCode.NO_ERROR), frames.settings([(Setting.MAX_CONCURRENT_STREAMS, 9)]))
    assert driven.connection.room() == 0


def test_the_end_of_the_transport_ends_every_stream() -> None:
    driven = connected()
    driven.requests(2)
    driven.written()
    driven.requests(1)
    assert driven.connection.end_of_input() == [
        ConnectionEnded(((1, Verdict.UNKNOWN), (3, Verdict.UNKNOWN), (5, Verdict.NOT_WRITTEN)))
    ]
    assert driven.connection.state is ConnectionState.CLOSED
    assert driven.written() == []


def test_a_failure_ends_every_stream_and_only_goaway_leaves() -> None:
    driven = connected()
    driven.requests(1)
    driven.written()
    driven.requests(1)
    (event,) = driven.serve(frames.frame(FrameType.PUSH_PROMISE, 0, 1))
    assert isinstance(event, ConnectionFailed)
    assert event.streams == ((1, Verdict.UNKNOWN), (3, Verdict.NOT_WRITTEN))
    ((kind, _, _, payload),) = driven.written()
    assert (kind, frames.parse_goaway(0, 0, payload)) == (FrameType.GOAWAY, (0, ErrorCode.PROTOCOL_ERROR, b""))


def test_answers_in_front_of_a_failure_in_one_segment_count() -> None:
    driven = connected()
    driven.requests(2)
    driven.written()
    first, second = driven.serve(answer(1), frames.frame(FrameType.PUSH_PROMISE, 0, 1), answer(3))
    assert isinstance(first, ResponseReceived)
    assert isinstance(second, ConnectionFailed) and second.streams == ((3, Verdict.UNKNOWN),)


def test_a_closed_connection_is_silent() -> None:
    driven = connected()
    driven.requests(1)
    driven.serve(frames.frame(FrameType.PUSH_PROMISE, 0, 1))
    driven.written()
    assert driven.serve(answer(1)) == []
    assert driven.connection.end_of_input() == []
    assert driven.connection.tick(1e9) == []
    assert driven.connection.deadline is None
    assert driven.connection.room() == 0
    driven.connection.close()
    assert driven.written() == []


def test_a_failure_before_anything_was_written_writes_nothing() -> None:
    driven = idle()
    driven.connection.start(driven.now)
    assert isinstance(driven.serve(answer(1))[0], ConnectionFailed)
    assert driven.written() == []


def test_close_lets_open_streams_go_on() -> None:
    driven = connected()
    driven.requests(1)
    driven.connection.close()
    assert driven.connection.room() == 0
    assert [kind for kind, _ in kinds(driven.written())] == [FrameType.HEADERS, FrameType.DATA, FrameType.GOAWAY]
    (event,) = driven.serve(answer(1))
    assert isinstance(event, ResponseReceived)
    assert driven.connection.state is ConnectionState.DRAINING
    assert driven.connection.open_streams == 0


def test_a_connection_that_never_started_closes_without_a_word() -> None:
    driven = idle()
    driven.connection.close()
    assert driven.connection.state is ConnectionState.CLOSED
    assert driven.written() == []


def test_the_ids_of_streams_run_out() -> None:
    driven = connected(first_stream_id=MAX_STREAM_ID - 2)
    assert driven.requests(2) == [MAX_STREAM_ID - 2, MAX_STREAM_ID]
    assert driven.connection.room() == 0
    with pytest.raises(LocalProtocolError, match="no room"):
        driven.requests(1)
    driven.written()
    assert len(driven.serve(answer(MAX_STREAM_ID - 2), answer(MAX_STREAM_ID))) == 2
