"""The fields of a message: lazy, bounded, silent about what they hold. RFC 9113 sections 6.5.2, 8.2 and 8.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import hpack, huffman
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError
from streampush.apns.http2.header_list import NAME_CODED, VALUE_CODED, Field, HeaderList, longer_than

BAD_CODE = b"\x00\x00\x00"

OK = (b":status", b"200", 0)


def read(*fields: tuple[bytes, bytes]) -> HeaderList:
    return hpack.HeaderDecoder().decode(hpack.block(fields, huffman=True))


class TestReading:
    def test_the_first_field_of_a_name_is_given(self) -> None:
        found = read((b":status", b"200"), (b"set-cookie", b"a"), (b"set-cookie", b"b"))
        assert found.get(b"set-cookie") == b"a"
        assert len(found) == 3

    def test_a_name_that_is_not_there_is_none(self) -> None:
        assert read((b":status", b"200")).get(b"apns-id") is None

    @pytest.mark.parametrize("which", range(4))
    def test_a_field_is_found_whatever_of_it_is_coded(self, which: int) -> None:
        name = huffman.encode(b"apns-id") if which & NAME_CODED else b"apns-id"
        value = huffman.encode(b"1-2") if which & VALUE_CODED else b"1-2"
        found = HeaderList([OK, (name, value, which)])
        assert found.get(b"apns-id") == b"1-2"
        assert list(found) == [(b":status", b"200"), (b"apns-id", b"1-2")]

    def test_a_string_that_nobody_reads_may_be_anything(self) -> None:
        found = HeaderList([(b"x", BAD_CODE, VALUE_CODED), (BAD_CODE, b"", NAME_CODED), (b"apns-id", b"1", 0)])
        assert found.get(b"apns-id") == b"1"

    def test_reading_a_string_that_is_no_code_is_a_compression_error(self) -> None:
        found = HeaderList([(b"x", BAD_CODE, VALUE_CODED)])
        with pytest.raises(RemoteProtocolError) as caught:
            found.get(b"x")
        assert caught.value.code is ErrorCode.COMPRESSION_ERROR
        with pytest.raises(RemoteProtocolError):
            list(found)

    def test_its_repr_tells_no_name_and_no_value(self) -> None:
        assert repr(HeaderList([OK, (b"secret", b"secret", 0)], 200)) == "<HeaderList status=200 fields=2>"


strings = st.text("\n0ab", max_size=30).map(str.encode)


@st.composite
def fields(draw: st.DrawFn) -> Field:
    name, value, which = draw(strings), draw(strings), draw(st.integers(0, 3))
    return (
        huffman.encode(name) if which & NAME_CODED else name,
        huffman.encode(value) if which & VALUE_CODED else value,
        which,
    )


class TestLength:
    @given(st.lists(fields(), max_size=6), st.integers(0, 300))
    def test_it_is_what_the_decoded_strings_count(self, some: list[Field], limit: int) -> None:
        size = sum(32 + len(name) + len(value) for name, value in HeaderList(some))
        assert longer_than(some, limit) is (size > limit)
        assert longer_than(some, size) is False
        assert longer_than(some, size - 1) is True

    def test_nothing_is_decoded_where_lengths_tell(self) -> None:
        assert longer_than([(b"x", BAD_CODE, VALUE_CODED)], 40) is False
        assert longer_than([(b"x", BAD_CODE, VALUE_CODED)], 33) is True

    def test_a_string_in_doubt_that_is_no_code_is_a_compression_error(self) -> None:
        with pytest.raises(RemoteProtocolError):
            longer_than([(b"x", BAD_CODE, VALUE_CODED)], 35)


class TestMalformed:
    def test_a_head_of_apple_is_well_formed(self) -> None:
        head = read((b":status", b"410"), (b"apns-id", b"EC1BF194-B3B2-424A-89A9-5A918A6E6B5C"), (b"x", b""), (b"y", b"a b"))
        assert head.malformed() is None

    def test_trailers_are_well_formed_without_a_status(self) -> None:
        assert read((b"grpc-status", b"0")).malformed(trailers=True) is None

    @pytest.mark.parametrize(
        "more",
        [
            (b":status", b"200"),
            (b":path", b"/"),
            (b":", b""),
            (b"connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"x", b"a\nb"),
            (b"x", b"a\rb"),
            (b"x", b"a\0b"),
            (b"x", b" a"),
            (b"x", b"a\t"),
            (b"x", b" "),
            (b"x", b"a\n"),
        ],
    )
    def test_a_field_that_may_not_be_there(self, more: tuple[bytes, bytes]) -> None:
        assert read((b":status", b"200"), more).malformed() is not None

    @pytest.mark.parametrize("name", [b"", b"Upper", b"a b", b"a:b", b"a\x7f", b"a\xe9", b"a\n", b"\0"])
    def test_a_name_with_a_forbidden_character(self, name: bytes) -> None:
        assert HeaderList([OK, (name, b"", 0)], 200).malformed() == "a field name with a forbidden character"

    @pytest.mark.parametrize(
        "head",
        [
            [],
            [(b"apns-id", b"1")],
            [(b"apns-id", b"1"), (b":status", b"200")],
            [(b":status", b"20")],
            [(b":status", b"2000")],
            [(b":status", b"2x0")],
            [(b":status", b"099")],
            [(b":status", "٢٠٠".encode())],
            [(b":path", b"/")],
        ],
    )
    def test_a_head_without_a_status_in_front(self, head: list[tuple[bytes, bytes]]) -> None:
        assert read(*head).status == 0
        assert read(*head).malformed() == "the head does not begin with a status"

    def test_a_status_in_trailers(self) -> None:
        assert read((b":status", b"200")).malformed(trailers=True) is not None

    def test_the_text_tells_nothing_of_the_field(self) -> None:
        text = read((b":status", b"200"), (b"x", b"secret\n")).malformed()
        assert text is not None
        assert "secret" not in text
