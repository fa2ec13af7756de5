"""Frames of HTTP/2: RFC 9113 sections 4 and 6. hyperframe is the other side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hyperframe import frame as theirs
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import frames
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError, ProtocolError, RemoteProtocolError, StreamError, error_name
from streampush.apns.http2.frames import (
    ACK,
    DEFAULT_MAX_FRAME_SIZE,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HIGHEST_MAX_FRAME_SIZE,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    PRIORITY_FIELDS,
    Frame,
    FrameReader,
    FrameType,
)
from tests.apns.http2.counting import lines_run
from tests.apns.http2.strategies import (
    any_stream_ids,
    chunkings,
    codes,
    cut,
    padded_data,
    padded_headers,
    payloads,
    raw_frames,
    settings_pairs,
    stream_ids,
)


def read_one(data: bytes) -> Frame:
    """The only frame in `data`."""
    (one,) = FrameReader(HIGHEST_MAX_FRAME_SIZE).feed(data)
    return one


def read_theirs(data: bytes) -> list[Any]:
    """`data` as hyperframe reads it."""
    found = []
    view = memoryview(data)
    while view:
        one, length = theirs.Frame.parse_frame_header(view[:9], strict=True)
        one.parse_body(view[9 : 9 + length])
        found.append(one)
        view = view[9 + length :]
    return found


def read_by_the_book(data: bytes, limit: int) -> tuple[list[Frame], bool]:
    """RFC 9113 section 4.1 word for word, on the whole stream; and whether it ends at a frame that is too large."""
    found: list[Frame] = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        if length > limit:
            return found, True
        if len(data) < 9 + length:
            break
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big") % 2**31, data[9 : 9 + length]))
        data = data[9 + length :]
    return found, False


class TestReader:
    @given(st.lists(raw_frames, max_size=8).map(b"".join), st.binary(max_size=30), chunkings)
    def test_any_chunking_gives_the_same_frames(self, stream: bytes, noise: bytes, cuts: list[int]) -> None:
        reader = FrameReader()
        found: list[Frame] = []
        for chunk in cut(stream + noise, cuts):
            found += reader.feed(chunk)
            if reader.fault is not None:
                break
        assert (found, reader.fault is not None) == read_by_the_book(stream + noise, DEFAULT_MAX_FRAME_SIZE)

    @given(st.lists(raw_frames, max_size=3).map(b"".join), st.binary(max_size=12))
    def test_bytes_one_by_one_give_the_same_frames(self, stream: bytes, noise: bytes) -> None:
        reader = FrameReader()
        found: list[Frame] = []
        for byte in stream + noise:
            found += reader.feed(bytes((byte,)))
            if reader.fault is not None:
                break
        assert (found, reader.fault is not None) == read_by_the_book(stream + noise, DEFAULT_MAX_FRAME_SIZE)

    def test_a_frame_of_the_greatest_size_is_read(self) -> None:
        payload = bytes(DEFAULT_MAX_FRAME_SIZE)
        assert FrameReader().feed(frames.frame(0, 0, 1, payload)) == [(0, 0, 1, payload)]

    def test_the_reserved_bit_is_taken_away(self) -> None:
        assert FrameReader().feed(b"\0\0\0\x03\x04" + b"\xff\xff\xff\xff") == [(3, 4, MAX_STREAM_ID, b"")]

    def test_a_frame_that_is_too_long_is_a_fault_as_soon_as_its_header_is_there(self) -> None:
        reader = FrameReader()
        header = frames.frame(0, 0, 1, bytes(DEFAULT_MAX_FRAME_SIZE + 1))[:FRAME_HEADER]
        assert reader.feed(header[:-1]) == []
        assert reader.fault is None
        assert reader.feed(header[-1:]) == []
        assert reader.fault is not None
        assert reader.fault.code is ErrorCode.FRAME_SIZE_ERROR
        assert "16385" in reader.fault.text
        assert reader.buffered == 0

    def test_frames_in_front_of_a_fault_are_not_lost(self) -> None:
        reader = FrameReader()
        found = reader.feed(frames.ping(b"12345678") + frames.settings_ack() + b"\xff" * 30)
        assert [one[0] for one in found] == [FrameType.PING, FrameType.SETTINGS]
        assert reader.fault is not None

    def test_behind_a_fault_each_call_raises_it(self) -> None:
        reader = FrameReader()
        reader.feed(b"\xff" * 9)
        for _ in range(2):
            with pytest.raises(RemoteProtocolError) as caught:
                reader.feed(frames.settings_ack())
            assert caught.value is reader.fault

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP/1"),
            (b"\x15\x03\x01\x00\x02\x02\x28\x00\x00", "TLS"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "TLS"),
        ],
    )
    def test_another_protocol_is_named(self, data: bytes, words: str) -> None:
        reader = FrameReader()
        assert reader.feed(data) == []
        assert reader.fault is not None
        assert words in reader.fault.text

    def test_a_greater_limit_lets_longer_frames_in(self) -> None:
        reader = FrameReader(DEFAULT_MAX_FRAME_SIZE + 5)
        assert len(reader.feed(frames.frame(0, 0, 1, bytes(DEFAULT_MAX_FRAME_SIZE + 5)))) == 1
        assert reader.feed(frames.frame(0, 0, 1, bytes(DEFAULT_MAX_FRAME_SIZE + 6))) == []
        assert reader.fault is not None

    @pytest.mark.parametrize("limit", [0, DEFAULT_MAX_FRAME_SIZE - 1, HIGHEST_MAX_FRAME_SIZE + 1])
    def test_a_limit_that_the_protocol_forbids_is_refused(self, limit: int) -> None:
        with pytest.raises(ValueError, match="max_frame_size"):
            FrameReader(limit)

    @given(raw_frames, st.integers(0, 200))
    def test_only_the_unfinished_frame_is_held(self, one: bytes, end: int) -> None:
        reader = FrameReader()
        reader.feed(one + one[:end])
        rest = len(one[:end]) % len(one)
        assert reader.buffered == rest

    def test_what_is_done_for_a_frame_in_small_chunks_is_linear(self) -> None:
        def cost(size: int) -> int:
            reader = FrameReader()
            chunks = [bytes((byte,)) for byte in frames.frame(0, 0, 1, bytes(size))]
            found: list[Frame] = []

            def work() -> None:
                for chunk in chunks:
                    found.extend(reader.feed(chunk))

            lines = lines_run(work)
            assert len(found) == 1
            return lines

        assert cost(4000) < 8 * 4000  # a chunk that completes nothing is appended, and no more


class TestWritersReadByHyperframe:
    @given(stream_ids, st.binary(min_size=1, max_size=90), st.booleans())
    def test_a_field_block_in_one_frame(self, stream_id: int, block: bytes, end: bool) -> None:
        (one,) = read_theirs(frames.headers(stream_id, block, end))
        assert (type(one), one.stream_id, one.data) == (theirs.HeadersFrame, stream_id, block)
        assert set(one.flags) == {"END_HEADERS"} | ({"END_STREAM"} if end else set())

    @given(stream_ids, st.binary(min_size=11, max_size=90), st.booleans())
    def test_a_field_block_that_must_be_split(self, stream_id: int, block: bytes, end: bool) -> None:
        first, *others = read_theirs(frames.headers(stream_id, block, end, max_frame_size=10))
        assert type(first) is theirs.HeadersFrame
        assert set(first.flags) == ({"END_STREAM"} if end else set())
        assert {type(one) for one in others} == {theirs.ContinuationFrame}
        assert [set(one.flags) for one in others] == [set()] * (len(others) - 1) + [{"END_HEADERS"}]
        assert {one.stream_id for one in [first, *others]} == {stream_id}
        assert max(len(one.data) for one in [first, *others]) <= 10
        assert b"".join(one.data for one in [first, *others]) == block

    @given(stream_ids, payloads, st.booleans())
    def test_data(self, stream_id: int, payload: bytes, end: bool) -> None:
        (one,) = read_theirs(frames.data(stream_id, payload, end))
        assert (type(one), one.stream_id, one.data) == (theirs.DataFrame, stream_id, payload)
        assert set(one.flags) == ({"END_STREAM"} if end else set())

    @given(stream_ids, codes)
    def test_rst_stream(self, stream_id: int, code: int) -> None:
        (one,) = read_theirs(frames.rst_stream(stream_id, code))
        assert (type(one), one.stream_id, one.error_code) == (theirs.RstStreamFrame, stream_id, code)

    @given(settings_pairs)
    def test_settings(self, pairs: list[tuple[int, int]]) -> None:
        (one,) = read_theirs(frames.settings(pairs))
        assert (type(one), one.settings, set(one.flags)) == (theirs.SettingsFrame, dict(pairs), set())

    def test_settings_ack(self) -> None:
        (one,) = read_theirs(frames.settings_ack())
        assert (type(one), one.settings, set(one.flags)) == (theirs.SettingsFrame, {}, {"ACK"})

    @given(st.binary(min_size=8, max_size=8), st.booleans())
    def test_ping(self, opaque: bytes, ack: bool) -> None:
        (one,) = read_theirs(frames.ping(opaque, ack))
        assert (type(one), one.opaque_data, set(one.flags)) == (theirs.PingFrame, opaque, {"ACK"} if ack else set())

    @given(any_stream_ids, codes, payloads)
    def test_goaway(self, last: int, code: int, debug: bytes) -> None:
        (one,) = read_theirs(frames.goaway(last, code, debug))
        assert (type(one), one.last_stream_id, one.error_code, one.additional_data) == (theirs.GoAwayFrame, last, code, debug)

    @given(any_stream_ids, st.integers(1, MAX_WINDOW))
    def test_window_update(self, stream_id: int, increment: int) -> None:
        (one,) = read_theirs(frames.window_update(stream_id, increment))
        assert (type(one), one.stream_id, one.window_increment) == (theirs.WindowUpdateFrame, stream_id, increment)


class TestFramesOfHyperframe:
    @given(padded_data())
    def test_data(self, one: theirs.DataFrame) -> None:
        kind, flags, stream_id, payload = read_one(one.serialize())
        assert (kind, stream_id) == (FrameType.DATA, one.stream_id)
        assert bool(flags & END_STREAM) == ("END_STREAM" in one.flags)
        assert frames.parse_data(flags, stream_id, payload) == one.data
        assert len(payload) == one.flow_controlled_length

    @given(padded_headers())
    def test_headers(self, one: theirs.HeadersFrame) -> None:
        kind, flags, stream_id, payload = read_one(one.serialize())
        assert (kind, stream_id) == (FrameType.HEADERS, one.stream_id)
        assert bool(flags & END_HEADERS) == ("END_HEADERS" in one.flags)
        assert frames.parse_headers(flags, stream_id, payload) == one.data

    @given(stream_ids, payloads)
    def test_continuation(self, stream_id: int, block: bytes) -> None:
        kind, *rest = read_one(theirs.ContinuationFrame(stream_id, block, flags=["END_HEADERS"]).serialize())
        assert kind == FrameType.CONTINUATION
        assert frames.parse_continuation(*rest) == block

    @given(stream_ids, any_stream_ids)
    def test_priority(self, stream_id: int, depends: int) -> None:
        kind, *rest = read_one(theirs.PriorityFrame(stream_id, depends_on=depends, stream_weight=7).serialize())
        assert kind == FrameType.PRIORITY
        frames.check_priority(*rest)

    @given(stream_ids, codes)
    def test_rst_stream(self, stream_id: int, code: int) -> None:
        kind, *rest = read_one(theirs.RstStreamFrame(stream_id, code).serialize())
        assert (kind, frames.parse_rst_stream(*rest)) == (FrameType.RST_STREAM, code)

    @given(st.dictionaries(st.integers(0, 255), codes, max_size=6).map(lambda pairs: list(pairs.items())))  # it writes no others
    def test_settings(self, pairs: list[tuple[int, int]]) -> None:
        kind, *rest = read_one(theirs.SettingsFrame(0, dict(pairs)).serialize())
        assert (kind, frames.parse_settings(*rest)) == (FrameType.SETTINGS, pairs)

    def test_settings_ack(self) -> None:
        kind, flags, stream_id, payload = read_one(theirs.SettingsFrame(0, flags=["ACK"]).serialize())
        assert (kind, flags, frames.parse_settings(flags, stream_id, payload)) == (FrameType.SETTINGS, ACK, [])

    @given(st.binary(min_size=8, max_size=8))
    def test_ping(self, opaque: bytes) -> None:
        kind, *rest = read_one(theirs.PingFrame(0, opaque).serialize())
        assert (kind, frames.parse_ping(*rest)) == (FrameType.PING, opaque)

    @given(any_stream_ids, codes, payloads)
    def test_goaway(self, last: int, code: int, debug: bytes) -> None:
        kind, *rest = read_one(theirs.GoAwayFrame(0, last, code, debug).serialize())
        assert (kind, frames.parse_goaway(*rest)) == (FrameType.GOAWAY, (last, code, debug))

    @given(any_stream_ids, st.integers(1, MAX_WINDOW))
    def test_window_update(self, stream_id: int, increment: int) -> None:
        kind, *rest = read_one(theirs.WindowUpdateFrame(stream_id, increment).serialize())
        assert (kind, frames.parse_window_update(*rest)) == (FrameType.WINDOW_UPDATE, increment)


Parser = Callable[[int, int, bytes], object]

ON_A_STREAM: list[tuple[Parser, bytes]] = [
    (frames.parse_data, b"x"),
    (frames.parse_headers, b"x"),
    (frames.parse_continuation, b"x"),
    (frames.check_priority, bytes(5)),
    (frames.parse_rst_stream, bytes(4)),
]
ON_THE_CONNECTION: list[tuple[Parser, bytes]] = [
    (frames.parse_settings, bytes(6)),
    (frames.parse_ping, bytes(8)),
    (frames.parse_goaway, bytes(8)),
]
ALL: list[Parser] = [*(parser for parser, _ in ON_A_STREAM + ON_THE_CONNECTION), frames.parse_window_update]


class TestMalformedFrames:
    @pytest.mark.parametrize(("parse", "payload"), ON_A_STREAM)
    def test_a_frame_of_a_stream_on_stream_0(self, parse: Parser, payload: bytes) -> None:
        parse(0, 1, payload)
        with pytest.raises(RemoteProtocolError, match="on stream 0") as caught:
            parse(0, 0, payload)
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR

    @pytest.mark.parametrize(("parse", "payload"), ON_THE_CONNECTION)
    def test_a_frame_of_the_connection_on_a_stream(self, parse: Parser, payload: bytes) -> None:
        parse(0, 0, payload)
        with pytest.raises(RemoteProtocolError, match="on stream 3, not 0") as caught:
            parse(0, 3, payload)
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR

    @pytest.mark.parametrize(
        ("parse", "flags", "stream_id", "payload"),
        [
            (frames.parse_data, PADDED, 1, b""),
            (frames.parse_headers, PADDED, 1, b""),
            (frames.parse_headers, PADDED | PRIORITY_FIELDS, 1, bytes(5)),
            (frames.parse_headers, PRIORITY_FIELDS, 1, bytes(4)),
            (frames.parse_rst_stream, 0, 1, bytes(3)),
            (frames.parse_rst_stream, 0, 1, bytes(5)),
            (frames.parse_settings, 0, 0, bytes(5)),
            (frames.parse_settings, 0, 0, bytes(7)),
            (frames.parse_settings, ACK, 0, bytes(6)),
            (frames.parse_ping, 0, 0, bytes(7)),
            (frames.parse_ping, ACK, 0, bytes(9)),
            (frames.parse_goaway, 0, 0, bytes(7)),
            (frames.parse_window_update, 0, 0, bytes(3)),
            (frames.parse_window_update, 0, 1, b"\0\0\0\0\1"),
        ],
    )
    def test_a_wrong_length_is_a_frame_size_error(self, parse: Parser, flags: int, stream_id: int, payload: bytes) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            parse(flags, stream_id, payload)
        assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR

    @pytest.mark.parametrize(
        ("parse", "flags", "payload"),
        [
            (frames.parse_data, PADDED, b"\x01"),
            (frames.parse_data, PADDED, b"\x04abc"),
            (frames.parse_headers, PADDED, b"\x04abc"),
            (frames.parse_headers, PADDED | PRIORITY_FIELDS, b"\x01" + bytes(5)),
        ],
    )
    def test_padding_beyond_the_payload_is_a_protocol_error(self, parse: Parser, flags: int, payload: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match="padding") as caught:
            parse(flags, 1, payload)
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR

    @pytest.mark.parametrize(
        ("parse", "flags", "payload"),
        [
            (frames.parse_data, PADDED, b"\x03abc"),
            (frames.parse_headers, PADDED, b"\x03abc"),
            (frames.parse_headers, PADDED | PRIORITY_FIELDS, b"\x00" + bytes(5)),
            (frames.parse_headers, PRIORITY_FIELDS, bytes(5)),
        ],
    )
    def test_a_payload_of_padding_and_priority_alone_is_empty(self, parse: Parser, flags: int, payload: bytes) -> None:
        assert parse(flags, 1, payload) == b""

    @pytest.mark.parametrize("size", [0, 4, 6])
    def test_a_priority_of_wrong_length_concerns_its_stream_only(self, size: int) -> None:
        with pytest.raises(StreamError) as caught:
            frames.check_priority(0, 5, bytes(size))
        assert (caught.value.stream_id, caught.value.code) == (5, ErrorCode.FRAME_SIZE_ERROR)

    def test_a_window_update_by_0_concerns_its_stream(self) -> None:
        with pytest.raises(StreamError) as caught:
            frames.parse_window_update(0, 5, b"\x80\0\0\0")
        assert (caught.value.stream_id, caught.value.code) == (5, ErrorCode.PROTOCOL_ERROR)

    def test_a_window_update_by_0_on_stream_0_concerns_the_connection(self) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            frames.parse_window_update(0, 0, bytes(4))
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR

    def test_reserved_bits_are_passed_over(self) -> None:
        assert frames.parse_window_update(0, 1, b"\x80\0\0\x02") == 2
        assert frames.parse_goaway(0, 0, b"\x80\0\0\x03" + bytes(4)) == (3, 0, b"")

    @given(st.sampled_from(ALL), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=300))
    def test_noise_gives_a_value_or_a_fault_of_the_peer(self, parse: Parser, flags: int, stream_id: int, payload: bytes) -> None:
        try:
            parse(flags, stream_id, payload)
        except (RemoteProtocolError, StreamError) as error:
            assert error.code in (ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR)


class TestWritersRefuse:
    def test_a_ping_without_eight_bytes(self) -> None:
        with pytest.raises(LocalProtocolError):
            frames.ping(b"1234567")

    @pytest.mark.parametrize("increment", [0, -1, MAX_WINDOW + 1])
    def test_an_increment_out_of_range(self, increment: int) -> None:
        with pytest.raises(LocalProtocolError):
            frames.window_update(1, increment)

    def test_a_payload_that_no_header_can_announce(self) -> None:
        with pytest.raises(LocalProtocolError):
            frames.data(1, bytes(HIGHEST_MAX_FRAME_SIZE + 1), False)


class TestErrors:
    def test_a_code_has_the_name_of_the_page(self) -> None:
        assert error_name(7) == "REFUSED_STREAM"

    def test_a_code_that_nobody_knows_is_a_number(self) -> None:
        assert error_name(0xBEEF) == "error 0xbeef"

    def test_a_fault_of_the_connection_says_its_code(self) -> None:
        error = RemoteProtocolError(ErrorCode.COMPRESSION_ERROR, "index 70")
        assert (error.code, error.text, str(error)) == (ErrorCode.COMPRESSION_ERROR, "index 70", "COMPRESSION_ERROR: index 70")
        assert isinstance(error, ProtocolError)

    def test_a_fault_of_a_stream_says_which(self) -> None:
        error = StreamError(7, ErrorCode.CANCEL, "too long")
        assert (error.stream_id, error.code, error.text) == (7, ErrorCode.CANCEL, "too long")
        assert str(error) == "stream 7: CANCEL: too long"
