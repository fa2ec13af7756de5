"""Frames: docs/protocol.md section 3. The golden vectors test the single cases; here are units, properties and the cost."""

from __future__ import annotations

from struct import pack, unpack_from
from unittest.mock import patch
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streampush.protocol import framing
from streampush.protocol.codes import Code
from streampush.protocol.errors import LocalProtocolError, RemoteProtocolError
from streampush.protocol.framing import (
    FRAME_OVERHEAD,
    MAX_FRAME_LIMIT,
    RESYNC_CHECKSUM_FACTOR,
    Damage,
    Decoded,
    FrameDecoder,
    encode_frame,
)
from tests.line_count import lines_run
from tests.protocol.strategies import chunkings, cut, pieces, streams

limits = st.tuples(st.integers(1, 300), st.sampled_from([0, 1, 8, 9, 30, 200, 70_000]))


def codes(decoded: list[Decoded]) -> list[bytes | Code]:
    return [item.code if isinstance(item, Damage) else item for item in decoded]


def run(decoder: FrameDecoder, chunks: list[bytes]) -> tuple[list[bytes | Code], Code | None]:
    found: list[bytes | Code] = []
    for chunk in chunks:
        found += codes(decoder.feed(chunk))
        if decoder.failure is not None:
            return found, decoder.failure.code
    return found, None


def by_the_page(data: bytes, max_frame: int, max_resync: int) -> tuple[list[bytes | Code], Code | None]:
    """The algorithm of section 3.1, word for word, on the whole stream."""
    found: list[bytes | Code] = []
    p = wasted = 0
    scanning = False
    end = 0

    def there(count: int) -> bool:
        return p + count <= len(data)

    while True:
        if not scanning:
            if not there(4):
                return found, None
            (n,) = unpack_from(">I", data, p)
            if 1 <= n <= max_frame:
                if not there(8 + n):
                    return found, None
                payload = data[p + 4 : p + 4 + n]
                right = unpack_from(">I", data, p + 4 + n)[0] == crc32(payload)
                found.append(payload if right else Code.CHECKSUM_MISMATCH)
                p += 8 + n
                wasted = max(0, wasted - (8 + n))
                continue
            code = Code.EMPTY_FRAME if n == 0 else Code.FRAME_TOO_LARGE
            if max_resync == 0:
                return found, code
            found.append(code)
            end = p + 1 + max_resync
            p += 1
            scanning = True
        if p + 9 > end:
            return found, Code.FRAME_TOO_LARGE
        if not there(4):
            return found, None
        (n,) = unpack_from(">I", data, p)
        if 1 <= n <= max_frame and p + 8 + n <= end:
            if not there(8 + n):
                return found, None
            if unpack_from(">I", data, p + 4 + n)[0] == crc32(data[p + 4 : p + 4 + n]):
                scanning = False
                continue
            wasted += n
            if wasted > 16 * max_resync:
                return found, Code.CHECKSUM_MISMATCH
        p += 1


class TestEncoding:
    def test_a_frame_is_length_payload_and_checksum(self) -> None:
        assert encode_frame(b"123456789").hex() == "00000009" + b"123456789".hex() + "cbf43926"

    def test_an_empty_payload_is_our_fault(self) -> None:
        with pytest.raises(LocalProtocolError, match="payload of 0 bytes, allowed are 1 to 16777215"):
            encode_frame(b"")

    def test_the_limit_is_inclusive(self) -> None:
        assert len(encode_frame(b"abc", 3)) == 3 + FRAME_OVERHEAD
        with pytest.raises(LocalProtocolError, match="payload of 4 bytes, allowed are 1 to 3"):
            encode_frame(b"abcd", 3)


class TestLimits:
    @pytest.mark.parametrize("max_frame", [0, -1, MAX_FRAME_LIMIT + 1])
    def test_a_frame_limit_out_of_range_is_refused(self, max_frame: int) -> None:
        with pytest.raises(ValueError, match=f"max_frame {max_frame}, allowed are 1 to 16777215"):
            FrameDecoder(max_frame)

    def test_a_negative_window_is_refused(self) -> None:
        with pytest.raises(ValueError, match="max_resync_bytes -1 is negative"):
            FrameDecoder(10, -1)

    def test_the_largest_frame_of_all_passes(self) -> None:
        payload = bytes(MAX_FRAME_LIMIT)
        assert FrameDecoder(MAX_FRAME_LIMIT).feed(encode_frame(payload)) == [payload]


class TestDecoder:
    def test_a_fresh_decoder_holds_nothing(self) -> None:
        decoder = FrameDecoder()
        assert not decoder.partial
        assert decoder.buffered == 0

    def test_one_byte_is_a_started_frame(self) -> None:
        decoder = FrameDecoder()
        assert decoder.feed(b"\0") == []
        assert decoder.partial
        assert decoder.buffered == 1

    def test_whole_frames_leave_nothing_behind(self) -> None:
        decoder = FrameDecoder()
        assert decoder.feed(encode_frame(b"a") + encode_frame(b"b")) == [b"a", b"b"]
        assert not decoder.partial

    def test_a_scan_waits_even_when_no_byte_is_held(self) -> None:
        decoder = FrameDecoder()
        decoder.feed(b"\xff" * 40)
        assert decoder.buffered < 4
        assert decoder.partial

    def test_the_call_behind_a_failure_raises_it(self) -> None:
        decoder = FrameDecoder(max_resync_bytes=0)
        assert decoder.feed(encode_frame(b"a") + bytes(8)) == [b"a"]
        with pytest.raises(RemoteProtocolError, match="2005: length 0, allowed are 1 to 1048576"):
            decoder.feed(b"")
        assert decoder.buffered == 0

    @pytest.mark.parametrize(
        ("head", "detail"),
        [
            (b"GET / HTTP/1.1", "the bytes look like HTTP"),
            (b"PRI * HTTP/2.0", "the bytes look like HTTP"),
            (b"\x16\x03\x01\x02\x00\x01", "the bytes look like a TLS handshake inside the stream"),
            (b"\x80\x00\x00\x00", "length 2147483648, allowed are 1 to 1048576"),
        ],
    )
    def test_a_wrong_protocol_is_named(self, head: bytes, detail: str) -> None:
        assert FrameDecoder().feed(head) == [Damage(Code.FRAME_TOO_LARGE, detail)]

    def test_a_failed_scan_says_what_it_looked_for(self) -> None:
        decoder = FrameDecoder(max_resync_bytes=10)
        decoder.feed(b"\xff" * 30)
        assert str(decoder.failure) == "2004: no frame within 10 bytes behind a lost position"

    def test_no_payload_is_in_a_damage(self) -> None:
        (damage,) = FrameDecoder().feed(pack(">I", 6) + b"secret" + bytes(4))
        assert damage == Damage(Code.CHECKSUM_MISMATCH, "frame of 6 bytes")


class TestProperties:
    @given(streams, limits)
    def test_the_decoder_is_the_algorithm_of_the_page(self, data: bytes, limit: tuple[int, int]) -> None:
        ours, page = run(FrameDecoder(*limit), [data]), by_the_page(data, *limit)
        if ours[1] is not None and page[1] is None:  # ours may be sure of a failure up to three bytes earlier
            for rest in (bytes(3), b"\xff\xff\xff"):
                assert ours == by_the_page(data + rest, *limit)
        else:
            assert ours == page

    @given(streams, limits, chunkings)
    @example(b"\xff" * 4 + encode_frame(b"x") * 3, (300, 70_000), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    def test_any_chunking_gives_the_same(self, data: bytes, limit: tuple[int, int], cuts: list[int]) -> None:
        whole = run(FrameDecoder(*limit), [data])
        assert run(FrameDecoder(*limit), cut(data, cuts)) == whole
        assert run(FrameDecoder(*limit), [bytes((byte,)) for byte in data]) == whole

    @given(st.binary(max_size=400) | streams, limits)
    def test_arbitrary_bytes_raise_nothing_but_the_peers_fault(self, data: bytes, limit: tuple[int, int]) -> None:
        decoder = FrameDecoder(*limit)
        decoder.feed(data)
        if decoder.failure is not None:
            with pytest.raises(RemoteProtocolError):
                decoder.feed(data)

    @given(st.lists(pieces, max_size=8).map(b"".join), st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5))
    def test_good_frames_behind_damage_are_all_recovered(self, damage: bytes, payloads: list[bytes]) -> None:
        """Every piece is small, so each false length resolves within the frames of the tail, and nothing is given up."""
        if not damage:
            return
        decoder = FrameDecoder(300, 4000)
        tail = [bytes((number, 77)) for number in range(60)]
        found, failure = run(decoder, [damage, *(encode_frame(payload) for payload in [*payloads, *tail])])
        assert failure is None
        # what the damage itself ends with may reach into the frames behind it: the false frame's own bytes are lost
        swallowed = 308
        sizes = 0
        kept: list[bytes] = []
        for payload in [*payloads, *tail]:
            if sizes >= swallowed:
                kept.append(payload)
            sizes += len(payload) + FRAME_OVERHEAD
        assert [item for item in found if isinstance(item, bytes)][-len(kept) :] == kept

    @given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5), st.binary(max_size=50))
    def test_good_frames_behind_a_lost_position_are_all_recovered(self, payloads: list[bytes], noise: bytes) -> None:
        """A lost position, then noise without a plausible length: not one frame is missing."""
        noise = b"\xff" + bytes(byte | 0x80 for byte in noise) + b"\xff\xff\xff"
        found, failure = run(FrameDecoder(300, 200), [noise + b"".join(map(encode_frame, payloads))])
        assert failure is None
        assert found == [Code.FRAME_TOO_LARGE, *payloads]

    @given(streams, limits, chunkings)
    def test_what_is_held_is_bounded(self, data: bytes, limit: tuple[int, int], cuts: list[int]) -> None:
        decoder = FrameDecoder(*limit)
        for chunk in cut(data, cuts):
            decoder.feed(chunk)
            assert decoder.buffered <= max(limit[0] + FRAME_OVERHEAD, limit[1] + 1)
            if decoder.failure is not None:
                break


def steps(decoder: FrameDecoder, data: bytes, chunk: int) -> int:
    """How many lines of the decoder run."""

    def feed() -> None:
        for start in range(0, len(data), chunk):
            decoder.feed(data[start : start + chunk])
            if decoder.failure is not None:
                break

    return lines_run(feed, framing.__file__)


class TestCost:
    """Counted, not timed: lines of Python that run, and bytes that are checksummed."""

    @pytest.mark.parametrize("chunk", [1, 7, 1024])
    @pytest.mark.parametrize(
        "unit",
        [
            pytest.param(encode_frame(b"x" * 20), id="good frames"),
            pytest.param(pack(">I", 20) + bytes(24), id="wrong checksums"),
            pytest.param(b"\xff" * 4 + encode_frame(b"x"), id="positions lost again and again"),
            pytest.param(b"\xff" + b"\0\0\x01" * 9 + encode_frame(b"x"), id="false frames before each good one"),
        ],
    )
    def test_twice_the_bytes_cost_twice_the_steps(self, unit: bytes, chunk: int) -> None:
        once = steps(FrameDecoder(2000, 2000), unit * 50, chunk)
        twice = steps(FrameDecoder(2000, 2000), unit * 100, chunk)
        assert twice <= 2.1 * once

    def test_a_large_frame_in_small_chunks_costs_a_few_steps_for_each(self) -> None:
        data = encode_frame(bytes(512 * 1024))
        assert steps(FrameDecoder(), data, 256) <= 40 * (len(data) // 256 + 1)

    @pytest.mark.parametrize("good", [b"", encode_frame(b"x")], ids=["one scan", "a good frame behind each scan"])
    def test_checksums_in_vain_are_bounded(self, good: bytes) -> None:
        window = 4096
        data = (b"\xff" + b"\0\0\x0f" * 20 + good) * 400
        worked = 0

        def counting(payload: bytes) -> int:
            nonlocal worked
            worked += len(payload)
            return crc32(payload)

        decoder = FrameDecoder(window, window)
        with patch.object(framing, "crc32", counting):
            decoder.feed(data)
        assert decoder.failure is not None
        assert worked <= (RESYNC_CHECKSUM_FACTOR + 1) * window + 2 * len(data)
