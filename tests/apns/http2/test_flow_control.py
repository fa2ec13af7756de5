"""Windows of both directions: RFC 9113 sections 5.2 and 6.9."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError
from streampush.apns.http2.events import (
    ConnectionFailed,
    DataReceived,
    GoneAway,
    ResponseReceived,
    SettingsChanged,
    StreamReset,
    Verdict,
    WindowOpened,
)
from streampush.apns.http2.frames import END_STREAM, MAX_WINDOW, Frame, FrameType
from streampush.apns.http2.limits import Limits
from streampush.apns.http2.settings import Setting
from streampush.apns.http2.windows import ReceiveWindow
from tests.apns.http2.driving import BLOCK, OK, Driven, answer, connected

BIG = 70_000


def sent(written: Iterable[Frame]) -> dict[int, list[bytes]]:
    """The DATA payloads of each stream."""
    found: dict[int, list[bytes]] = {}
    for kind, _, stream_id, payload in written:
        if kind == FrameType.DATA:
            found.setdefault(stream_id, []).append(payload)
    return found


def opened(written: Iterable[Frame]) -> list[tuple[int, int]]:
    """Stream and increment of each WINDOW_UPDATE."""
    return [
        (stream_id, frames.parse_window_update(flags, stream_id, payload))
        for kind, flags, stream_id, payload in written
        if kind == FrameType.WINDOW_UPDATE
    ]


def initial_window(size: int) -> bytes:
    return frames.settings([(Setting.INITIAL_WINDOW_SIZE, size)])


# What we send.


def test_a_body_waits_for_the_window_of_its_stream() -> None:
    driven = connected(initial_window=4)
    driven.requests(1, b"0123456789")
    assert sent(driven.written()) == {1: [b"0123"]}
    driven.serve(frames.window_update(1, 5))
    assert sent(driven.written()) == {1: [b"45678"]}
    driven.serve(frames.window_update(1, 5))
    assert driven.written() == [(FrameType.DATA, END_STREAM, 1, b"9")]


def test_a_body_waits_for_the_window_of_the_connection() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    driven.requests(1, b"x" * BIG)
    assert sum(map(len, sent(driven.written())[1])) == 65_535
    driven.serve(frames.window_update(0, BIG))
    (last,) = driven.written()
    assert last[1] == END_STREAM and len(last[3]) == BIG - 65_535


def test_a_body_is_cut_to_the_frames_that_the_server_takes() -> None:
    driven = connected()
    driven.requests(1, b"x" * 40_000)
    assert list(map(len, sent(driven.written())[1])) == [16_384, 16_384, 7232]
    driven.serve(frames.settings([(Setting.MAX_FRAME_SIZE, 20_000)]))
    driven.requests(1, b"x" * 21_000)
    assert list(map(len, sent(driven.written())[3])) == [20_000, 1000]


def test_two_hundred_bodies_of_four_kilobytes_go_through_a_window_of_65535() -> None:
    driven = connected(max_streams=200)
    streams = driven.requests(200, b"x" * 4096)
    received = dict.fromkeys(streams, 0)
    while data := sent(driven.written()):
        for stream_id, pieces in data.items():
            received[stream_id] += sum(map(len, pieces))
            driven.serve(frames.window_update(0, sum(map(len, pieces))))
    assert set(received.values()) == {4096}


def test_streams_that_wait_for_the_connection_take_turns() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    driven.requests(4, b"x" * BIG)  # the first one takes the whole window
    driven.written()
    driven.serve(frames.window_update(0, 6 * 16_384))
    turns = [stream_id for kind, _, stream_id, _ in driven.written() if kind == FrameType.DATA]
    assert turns == [1, 3, 5, 7, 3, 5, 7]


def test_a_stream_without_window_does_not_stop_the_others() -> None:
    driven = connected(initial_window=4)
    driven.requests(2, b"0123456789")
    driven.written()
    driven.serve(frames.window_update(3, 100))
    assert sent(driven.written()) == {3: [b"456789"]}


def test_settings_open_the_windows_of_open_streams() -> None:
    driven = connected(initial_window=0)
    driven.requests(2, b"01234")
    assert sent(driven.written()) == {}
    driven.serve(initial_window(3))
    assert sent(driven.written()) == {1: [b"012"], 3: [b"012"]}


def test_the_acknowledgement_leaves_before_what_the_new_settings_allow() -> None:
    driven = connected(initial_window=0)
    driven.requests(1, b"01234")
    driven.written()
    driven.serve(initial_window(3))
    assert [kind for kind, _, _, _ in driven.written()] == [FrameType.SETTINGS, FrameType.DATA]


def test_a_window_that_settings_made_negative_opens_late() -> None:
    driven = connected(initial_window=10)
    driven.requests(1, b"x" * 30)
    driven.written()
    driven.serve(initial_window(4))  # 6 below zero
    driven.serve(frames.window_update(1, 6))
    assert sent(driven.written()) == {}
    driven.serve(frames.window_update(1, 1))
    assert sent(driven.written()) == {1: [b"x"]}


def test_a_ready_stream_whose_window_settings_shut_waits() -> None:
    driven = connected(initial_window=BIG)
    driven.requests(1, b"x" * BIG)
    driven.written()
    driven.serve(initial_window(0))
    driven.serve(frames.window_update(0, BIG))
    assert sent(driven.written()) == {}


def test_the_end_of_a_body_alone_needs_no_window() -> None:
    driven = connected(initial_window=0)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    driven.connection.send_data(stream_id, b"", end_stream=True)
    assert driven.written()[-1] == (FrameType.DATA, END_STREAM, 1, b"")


def test_pieces_that_waited_are_joined() -> None:
    driven = connected(initial_window=0)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    for piece in (b"ab", b"cd", b"ef"):
        driven.connection.send_data(stream_id, piece)
    driven.connection.send_data(stream_id, b"", end_stream=True)
    driven.written()
    driven.serve(frames.window_update(1, 3))
    driven.serve(frames.window_update(1, 30))
    assert sent(driven.written()) == {1: [b"abc", b"def"]}


def test_the_window_of_a_request_that_was_taken_back_serves_the_others() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    driven.requests(2, b"x" * 65_535)
    driven.connection.reset(1)
    assert sum(map(len, sent(driven.written())[3])) == 65_535


def test_goaway_gives_the_window_of_what_it_takes_back_to_the_others() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    driven.connection.request(BLOCK, end_stream=False)
    driven.written()
    driven.requests(1, b"x" * 65_535)
    driven.connection.send_data(1, b"y", end_stream=True)
    (event,) = driven.serve(frames.goaway(1, ErrorCode.NO_ERROR))
    assert isinstance(event, GoneAway)
    assert driven.written() == [(FrameType.DATA, END_STREAM, 1, b"y")]


def test_a_caller_learns_how_much_it_can_send_and_when() -> None:
    driven = connected(initial_window=10)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    assert driven.connection.writable(stream_id) == 10
    driven.connection.send_data(stream_id, b"x" * 10)
    assert driven.connection.writable(stream_id) == 0
    driven.written()
    assert driven.serve(frames.window_update(stream_id, 3)) == [WindowOpened(stream_id)]
    assert driven.connection.writable(stream_id) == 3
    assert driven.serve(frames.window_update(stream_id, 3)) == []


def test_a_caller_that_sent_too_much_learns_when_all_of_it_is_gone() -> None:
    driven = connected(initial_window=10)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    driven.connection.send_data(stream_id, b"x" * 15)
    driven.written()
    assert driven.serve(frames.window_update(stream_id, 5)) == []
    assert driven.serve(frames.window_update(stream_id, 1)) == [WindowOpened(stream_id)]


def test_a_caller_that_waits_for_the_connection_is_woken() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    driven.connection.send_data(stream_id, b"x" * 65_535)
    assert driven.connection.writable(stream_id) == 0
    assert driven.serve(frames.window_update(0, 1)) == [WindowOpened(stream_id)]


def test_a_caller_that_waits_is_woken_by_settings() -> None:
    driven = connected(initial_window=0)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    assert driven.connection.writable(stream_id) == 0
    assert driven.serve(initial_window(5)) == [SettingsChanged(100), WindowOpened(stream_id)]


def test_a_caller_that_waits_is_woken_by_what_is_taken_back() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    waiting = driven.connection.request(BLOCK, end_stream=False)
    driven.written()
    (other,) = driven.requests(1, b"x" * 65_535)
    assert driven.connection.writable(waiting) == 0
    driven.connection.reset(other)
    driven.written()
    deadline = driven.connection.deadline
    assert deadline is not None and deadline < driven.now
    assert driven.connection.tick(driven.now) == [WindowOpened(waiting)]


def test_a_caller_is_not_woken_for_a_stream_that_ends_at_the_same_time() -> None:
    driven = connected(initial_window=0)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    driven.written()
    assert driven.connection.writable(stream_id) == 0
    (event,) = driven.serve(frames.window_update(stream_id, 5), answer(stream_id))
    assert isinstance(event, ResponseReceived)


def test_a_caller_that_waited_and_then_gave_the_end_is_not_woken() -> None:
    driven = connected(initial_window=0)
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    assert driven.connection.writable(stream_id) == 0
    driven.connection.send_data(stream_id, b"end", end_stream=True)
    driven.written()
    assert driven.serve(frames.window_update(stream_id, 5), frames.window_update(0, 5)) == []
    assert sent(driven.written()) == {stream_id: [b"end"]}


def test_a_stream_that_was_reset_while_it_waited_sends_nothing() -> None:
    driven = connected(initial_window=MAX_WINDOW)
    driven.requests(2, b"x" * BIG)
    driven.written()
    driven.connection.reset(1)
    driven.connection.reset(3)
    driven.serve(frames.window_update(0, BIG))
    assert sent(driven.written()) == {}


def test_a_closed_connection_takes_nothing() -> None:
    driven = connected()
    stream_id = driven.connection.request(BLOCK, end_stream=False)
    driven.connection.end_of_input()
    assert driven.connection.writable(stream_id) == 0
    driven.connection.send_data(stream_id, b"late")
    assert driven.written() == []


def test_answers_to_many_unfinished_bodies_are_no_flood() -> None:
    driven = connected(Limits(max_replies=100), initial_window=0)
    streams = driven.requests(50)
    driven.written()
    events = driven.serve(*map(answer, streams))
    assert [type(event) for event in events] == [ResponseReceived] * 50


def test_a_stream_whose_body_is_given_takes_nothing_more() -> None:
    driven = connected()
    driven.requests(1)
    assert driven.connection.writable(1) == 0


@given(
    window=st.sampled_from([0, 1, 7, 100, 65_535]),
    bodies=st.lists(st.lists(st.integers(0, 300), max_size=4), min_size=1, max_size=4),
    updates=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 400)), max_size=20),
)
def test_bodies_arrive_whole_and_in_order_whatever_opens_the_windows(
    window: int, bodies: list[list[int]], updates: list[tuple[int, int]]
) -> None:
    driven = connected(initial_window=window)
    whole: dict[int, bytes] = {}
    for number, sizes in enumerate(bodies):
        stream_id = driven.connection.request(BLOCK, end_stream=False)
        pieces = [bytes([65 + number + index]) * size for index, size in enumerate(sizes)]
        for piece in pieces:
            driven.connection.send_data(stream_id, piece)
        driven.connection.send_data(stream_id, b"", end_stream=True)
        whole[stream_id] = b"".join(pieces)
    written = driven.written()
    for target, increment in updates:
        stream_id = 2 * target - 1 if target else 0
        if stream_id <= 2 * len(bodies):
            driven.serve(frames.window_update(stream_id, increment))
            written += driven.written()
    for stream_id in whole:
        driven.serve(frames.window_update(stream_id, 2000))
    driven.serve(frames.window_update(0, 10_000))
    written += driven.written()
    arrived = sent(written)
    assert {stream_id: b"".join(arrived[stream_id]) for stream_id in whole} == whole
    ends = [stream_id for kind, flags, stream_id, _ in written if kind == FrameType.DATA and flags & END_STREAM]
    assert sorted(ends) == sorted(whole)


# Faults of the server.


def test_a_connection_window_above_the_limit_ends_the_connection() -> None:
    driven = connected()
    (event,) = driven.serve(frames.window_update(0, MAX_WINDOW - 65_535), frames.window_update(0, 1))
    assert isinstance(event, ConnectionFailed) and event.code == ErrorCode.FLOW_CONTROL_ERROR


def test_a_stream_window_above_the_limit_ends_the_stream() -> None:
    driven = connected(initial_window=1)
    driven.connection.request(BLOCK, end_stream=False)
    driven.written()
    (event,) = driven.serve(frames.window_update(1, MAX_WINDOW))
    assert isinstance(event, StreamReset)
    assert (event.code, event.verdict) == (ErrorCode.FLOW_CONTROL_ERROR, Verdict.UNKNOWN)
    assert driven.written()[-1][:3] == (FrameType.RST_STREAM, 0, 1)


def test_settings_that_raise_a_window_above_the_limit_end_the_connection() -> None:
    driven = connected(initial_window=0)
    driven.connection.request(BLOCK, end_stream=False)
    driven.written()
    driven.serve(frames.window_update(1, 1))
    (event,) = driven.serve(initial_window(MAX_WINDOW))
    assert isinstance(event, ConnectionFailed) and event.code == ErrorCode.FLOW_CONTROL_ERROR


# What the server sends.


def begin_answer(driven: Driven) -> None:
    driven.requests(1)
    driven.written()
    driven.serve(frames.headers(1, OK, False))


def test_windows_open_again_when_half_of_them_was_consumed() -> None:
    driven = connected(Limits(stream_window=1000, connection_window=65_535))
    begin_answer(driven)
    driven.serve(frames.data(1, b"x" * 499, False))
    assert opened(driven.written()) == []
    driven.serve(frames.data(1, b"x", False))
    assert opened(driven.written()) == [(1, 500)]


def test_a_stream_that_ended_gets_no_window() -> None:
    driven = connected(Limits(stream_window=1000))
    begin_answer(driven)
    driven.serve(frames.data(1, b"x" * 900, True))
    assert opened(driven.written()) == []


def test_an_answer_of_many_windows_arrives() -> None:
    driven = connected(Limits(stream_window=1000, connection_window=65_535))
    begin_answer(driven)
    received = 0
    for _ in range(500):
        events = driven.serve(frames.data(1, b"x" * 400, False))
        received += sum(len(event.data) for event in events if isinstance(event, DataReceived))
    assert received == 200_000


def test_the_connection_window_opens_for_what_comes_for_streams_that_are_over() -> None:
    driven = connected(Limits(stream_window=65_535, connection_window=65_535))
    driven.requests(1)
    driven.written()
    driven.connection.reset(1)
    driven.serve(*[frames.data(1, b"x" * 10_000, False) for _ in range(4)])
    assert opened(driven.written()) == [(0, 40_000)]


def test_padding_counts_and_is_consumed_at_once() -> None:
    driven = connected(Limits(stream_window=100), automatic_windows=False)
    begin_answer(driven)
    driven.serve(frames.frame(FrameType.DATA, frames.PADDED, 1, bytes([60]) + b"x" + bytes(60)))
    assert opened(driven.written()) == [(1, 61)]


def test_more_data_than_the_stream_window_ends_the_stream() -> None:
    driven = connected(Limits(stream_window=100))
    begin_answer(driven)
    (event,) = driven.serve(frames.data(1, b"x" * 101, False))
    assert isinstance(event, StreamReset)
    assert (event.code, event.verdict) == (ErrorCode.FLOW_CONTROL_ERROR, Verdict.UNKNOWN)


def test_data_above_the_stream_window_opens_the_connection_again() -> None:
    driven = connected(Limits(stream_window=20_000, connection_window=65_535), automatic_windows=False)
    begin_answer(driven)
    driven.serve(frames.data(1, b"x" * 16_384, False), frames.data(1, b"x" * 16_384, False))
    assert opened(driven.written()) == [(0, 32_768)]


def test_more_data_than_the_connection_window_ends_the_connection() -> None:
    driven = connected(Limits(stream_window=MAX_WINDOW, connection_window=65_535), automatic_windows=False)
    begin_answer(driven)
    events = driven.serve(*[frames.data(1, b"x" * 16_384, False) for _ in range(4)])
    assert isinstance(events[-1], ConnectionFailed) and events[-1].code == ErrorCode.FLOW_CONTROL_ERROR


def test_the_window_stays_shut_until_the_caller_consumed() -> None:
    driven = connected(Limits(stream_window=100), automatic_windows=False)
    begin_answer(driven)
    driven.serve(frames.data(1, b"x" * 100, False))
    assert opened(driven.written()) == []
    driven.connection.consumed(1, 40)
    assert opened(driven.written()) == []
    driven.connection.consumed(1, 40)
    assert opened(driven.written()) == [(1, 80)]


def test_nobody_consumes_more_than_was_given() -> None:
    driven = connected(automatic_windows=False)
    begin_answer(driven)
    driven.serve(frames.data(1, b"x" * 100, False))
    with pytest.raises(LocalProtocolError, match="stream 1: 101 bytes consumed of 100"):
        driven.connection.consumed(1, 101)


def test_what_a_finished_answer_left_unread_opens_the_connection_when_it_is_consumed() -> None:
    driven = connected(Limits(stream_window=65_535, connection_window=65_535), automatic_windows=False)
    begin_answer(driven)
    driven.serve(*[frames.data(1, b"x" * 16_384, number == 1) for number in range(2)])
    assert opened(driven.written()) == []
    driven.connection.consumed(1, 16_384)
    driven.connection.consumed(1, 16_384)
    assert opened(driven.written()) == [(0, 32_768)]


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_reset_left_unread_opens_the_connection(finished: bool) -> None:
    driven = connected(Limits(stream_window=65_535, connection_window=65_535), automatic_windows=False)
    begin_answer(driven)
    driven.serve(*[frames.data(1, b"x" * 11_000, finished and number == 2) for number in range(3)])
    driven.connection.reset(1)
    assert opened(driven.written()) == [(0, 33_000)]
    driven.connection.consumed(1, 33_000)
    assert driven.written() == []


@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=50))
def test_a_window_never_forgets_a_byte(size: int, steps: list[tuple[int, int]]) -> None:
    window = ReceiveWindow(size)
    server = size  # what the server believes that it may send
    unread = 0
    for came, consumed in steps:
        came = min(came, server)
        assert window.take(came)
        server -= came
        unread += came
        freed = min(consumed, unread)
        unread -= freed
        server += window.free(freed)
        assert server + unread <= size
    server += window.free(unread)
    assert 2 * server > size
    assert not window.take(server + 1)
