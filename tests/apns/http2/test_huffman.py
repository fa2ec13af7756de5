"""The Huffman code of strings: RFC 7541 section 5.2 and appendix B. hpack is the other side."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import huffman
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError

their_encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode

words = st.text("abcdefghij 0123456789-/:", max_size=60).map(str.encode)
strings = words | st.binary(max_size=40)


def bits(text: str) -> bytes:
    """Ones and zeros as bytes; blanks are for the reader."""
    text = text.replace(" ", "")
    return int(text, 2).to_bytes(len(text) // 8, "big")


def refused(data: bytes) -> bool:
    try:
        huffman.decode(data)
    except RemoteProtocolError as error:
        assert error.code is ErrorCode.COMPRESSION_ERROR
        return True
    return False


@given(strings)
def test_what_we_write_is_what_the_library_writes(text: bytes) -> None:
    assert huffman.encode(text) == their_encode(text)


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_has_the_code_of_the_page(byte: int) -> None:
    assert huffman.CODE_LENGTHS[byte] == REQUEST_CODES_LENGTH[byte]
    assert huffman.encode(bytes((byte,)) * 8) == their_encode(bytes((byte,)) * 8)
    assert huffman.decode(huffman.encode(bytes((byte,)) * 8)) == bytes((byte,)) * 8


@given(strings)
def test_what_was_written_is_read(text: bytes) -> None:
    assert huffman.decode(huffman.encode(text)) == text


@given(st.binary(max_size=12) | strings.map(their_encode), st.integers(0, 7), st.integers(0, 2**16))
def test_any_bytes_are_read_or_refused_as_the_library_does(data: bytes, bit: int, at: int) -> None:
    if data:
        at %= len(data)
        data = data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]
    try:
        text = decode_huffman(data)
    except HPACKDecodingError:
        assert refused(data)
    else:
        assert huffman.decode(data) == text


@given(st.binary(max_size=12))
def test_a_string_has_one_code_only(data: bytes) -> None:
    if not refused(data):
        assert huffman.encode(huffman.decode(data)) == data


@pytest.mark.parametrize("count", range(8))
def test_up_to_seven_ones_are_a_padding(count: int) -> None:
    # '0' is 00000, so these strings need each length of padding once.
    padding = -5 * count % 8
    assert huffman.decode(bits("00000" * count + "1" * padding) if count else b"") == b"0" * count


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",  # eight ones and no symbol
        bits("00000 111 11111111"),  # '0' and eleven ones
        bits("11111000 11111111"),  # '&' and eight ones
        bits("00000 110"),  # a padding with a zero
        bits("00000 000"),
        bits("010100 01"),
        bits("1" * 30 + "11"),  # EOS and its padding
        bits("00000" + "1" * 30 + "00000"),  # EOS in the middle
        b"\xff" * 8,
    ],
)
def test_a_wrong_padding_and_an_eos_are_compression_errors(data: bytes) -> None:
    assert refused(data)


def test_nothing_is_the_code_of_nothing() -> None:
    assert huffman.encode(b"") == b""
    assert huffman.decode(b"") == b""


@given(st.lists(st.sampled_from([0x0A, 0x16, 0xF9, 0x30, 0x61, 0x41]), max_size=40).map(bytes))
def test_the_length_of_the_string_is_within_the_bounds(text: bytes) -> None:
    size = len(huffman.encode(text))
    assert huffman.least_decoded(size) <= len(text) <= huffman.most_decoded(size)


@given(st.integers(0, 200))
def test_the_bounds_are_reached(count: int) -> None:
    assert huffman.least_decoded(len(huffman.encode(b"\n" * count))) == count
    assert huffman.most_decoded(len(huffman.encode(b"0" * 8 * count))) == 8 * count
