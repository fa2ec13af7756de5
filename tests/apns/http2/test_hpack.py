"""Field compression: RFC 7541. hpack is the other side, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import hpack as theirs
import pytest
from hpack.hpack import decode_integer, encode_integer
from hpack.table import HeaderTable
from hypothesis import example, given
from hypothesis import strategies as st

from streampush.apns.http2 import hpack
from streampush.apns.http2.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from streampush.apns.http2.hpack import MAX_KNOWN, HeaderDecoder
from streampush.apns.http2.static_table import FIELD_INDEX, NAME_INDEX, STATIC_TABLE
from tests.apns.http2.counting import lines_run

Fields = list[tuple[bytes, bytes]]

names = st.sampled_from([name for name, _ in STATIC_TABLE] + [b"apns-id", b"apns-unique-id", b"x"]) | st.text(
    "abc-z0", min_size=1, max_size=8
).map(str.encode)
values = st.sampled_from([value for _, value in STATIC_TABLE] + [b"a" * 126, b"b" * 127, b"c" * 300]) | st.binary(max_size=20)
field_lists = st.lists(st.tuples(names, values) | st.sampled_from(STATIC_TABLE), max_size=8)


PLAIN = b"\x00\x01x\x01a"
ENTERS = b"\x40\x01y\x01a"
NAMED = b"\x0f\x2f\x01c"
LONG = b"\x00\x01x\x7f\x00" + b"a" * 127
PIECES = [
    b"\x88",  # :status 200
    b"\x89",
    PLAIN,  # a literal that enters no table
    b"\x00\x01x\x01b",
    b"\x00\x01x\x02ab",
    b"\x00\x01x\x00",
    b"\x10\x01x\x01a",
    LONG,
    NAMED,  # with the name of the table's first entry
    ENTERS,  # a literal that enters the table
    b"\x40\x01y\x01b",
    b"\xbe",  # the table's first entry
    b"\x20",  # the table is emptied, and takes nothing
    b"\x3f\x11",  # it takes 48 bytes
    b"\x00\x01x",  # the block ends too early, unless something follows
]


def their_list(found: Iterable[theirs.HeaderTuple]) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in found]


class TestTables:
    def test_the_static_table_is_that_of_the_library(self) -> None:
        assert STATIC_TABLE == HeaderTable.STATIC_TABLE

    def test_a_name_has_its_lowest_index(self) -> None:
        assert (NAME_INDEX[b":status"], NAME_INDEX[b":authority"], NAME_INDEX[b"www-authenticate"]) == (8, 1, 61)
        assert (FIELD_INDEX[b":status", b"404"], FIELD_INDEX[b":authority", b""]) == (13, 1)


class TestWriting:
    @given(st.integers(0, 2**30), st.integers(1, 8))
    def test_an_integer_is_that_of_the_library(self, value: int, prefix_bits: int) -> None:
        assert hpack.integer(value, prefix_bits) == bytes(encode_integer(value, prefix_bits))

    @given(field_lists, st.booleans())
    def test_a_block_is_read_by_the_library(self, fields: Fields, huffman: bool) -> None:
        assert their_list(theirs.Decoder().decode(hpack.block(fields, huffman=huffman), raw=True)) == fields

    @given(names, values, st.booleans(), st.booleans())
    def test_a_literal_is_read_by_the_library_and_enters_no_table(
        self, name: bytes, value: bytes, never_indexed: bool, huffman: bool
    ) -> None:
        decoder = theirs.Decoder()
        (found,) = decoder.decode(hpack.literal(name, value, never_indexed=never_indexed, huffman=huffman), raw=True)
        assert (found[0], found[1], found.indexable) == (name, value, not never_indexed)
        assert not decoder.header_table.dynamic_entries

    @given(names, values)
    def test_a_prefix_and_a_string_are_a_literal(self, name: bytes, value: bytes) -> None:
        assert hpack.name_prefix(name) + hpack.string(value) == hpack.literal(name, value)

    @given(st.integers(0, 4096))
    def test_a_size_update_is_read_by_the_library(self, size: int) -> None:
        decoder = theirs.Decoder()
        decoder.decode(hpack.size_update(size) + b"\x88")
        assert decoder.header_table_size == size

    @pytest.mark.parametrize("name", [b"", b"Apns-Id"])
    def test_a_name_that_may_not_be_sent_is_refused(self, name: bytes) -> None:
        with pytest.raises(LocalProtocolError) as caught:
            hpack.literal(name, b"x")
        assert "Apns" not in str(caught.value)


class Peer:
    """The library's encoder; what it wrote is right whenever it is read."""

    def __init__(self) -> None:
        self.encoder = theirs.Encoder()

    def write(self, fields: Fields, huffman: bool) -> bytes:
        return bytes(self.encoder.encode(fields, huffman=huffman))

    def table(self) -> Fields:
        return [(bytes(name), bytes(value)) for name, value in self.encoder.header_table.dynamic_entries]


turns = st.lists(st.tuples(field_lists, st.booleans(), st.none() | st.integers(0, 400)), min_size=1, max_size=8)


class TestReading:
    @given(turns)
    def test_blocks_of_the_library_are_read_with_its_table(self, turns: list[tuple[Fields, bool, int | None]]) -> None:
        peer, decoder = Peer(), HeaderDecoder()
        peer.encoder.header_table_size = 300
        for fields, huffman, size in turns:
            if size is not None:
                peer.encoder.header_table_size = size
            assert list(decoder.decode(peer.write(fields, huffman))) == fields
        assert decoder.table.fields() == peer.table()

    @given(turns)
    def test_blocks_are_right_when_read_after_all_of_them_have_come(self, turns: list[tuple[Fields, bool, int | None]]) -> None:
        peer, decoder = Peer(), HeaderDecoder()
        found = []
        for fields, huffman, size in turns:
            if size is not None:
                peer.encoder.header_table_size = size
            found.append(decoder.decode(peer.write(fields, huffman)))
        assert decoder.table.fields() == peer.table()
        assert [list(one) for one in reversed(found)] == [fields for fields, _, _ in reversed(turns)]

    @given(turns, st.data())
    def test_a_field_is_found_by_its_name(self, turns: list[tuple[Fields, bool, int | None]], data: st.DataObject) -> None:
        peer, decoder = Peer(), HeaderDecoder()
        for fields, huffman, _ in turns:
            found = decoder.decode(peer.write(fields, huffman))
            for name, _ in fields:
                assert found.get(name) == next(value for other, value in fields if other == name)

    def test_an_entry_read_after_it_was_evicted_is_right(self) -> None:
        decoder = HeaderDecoder()
        literal = b"\x40\x01x" + hpack.string(b"1" * 30, huffman=True)
        first = decoder.decode(b"\x88" + literal)
        second = decoder.decode(b"\x88\xbe")
        decoder.decode(hpack.size_update(0) + b"\x88")
        assert decoder.table.fields() == []
        assert list(first) == list(second) == [(b":status", b"200"), (b"x", b"1" * 30)]

    @given(st.lists(field_lists, max_size=3), st.binary(max_size=30), st.integers(0, 2**16), st.integers(0, 255))
    @example([], b"\x7f\x80\x80\x80\x80\x80\x00", 0, 0)
    def test_damaged_blocks_are_refused_or_read_as_the_library_does(
        self, lists: list[Fields], noise: bytes, at: int, change: int
    ) -> None:
        peer, ours, other = Peer(), HeaderDecoder(), theirs.Decoder()
        block = b"".join(peer.write(fields, True) for fields in lists) + noise
        if block:
            at %= len(block)
            block = block[:at] + bytes((block[at] ^ change,)) + block[at + 1 :]
        try:
            expected = their_list(other.decode(block, raw=True))
        except theirs.HPACKError:
            with pytest.raises(RemoteProtocolError) as caught:
                list(ours.decode(block))
            assert caught.value.code is ErrorCode.COMPRESSION_ERROR
        else:
            try:
                assert list(ours.decode(block)) == expected
            except RemoteProtocolError as error:
                assert "octets" in error.text  # the library reads integers without an end

    @given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), max_size=12))
    @example([[b"\x88", PLAIN], [b"\x88", PLAIN, b"\x88"]])  # more behind the value
    @example([[b"\x88", LONG], [b"\x88", LONG.replace(b"a", b"b")], [b"\x88", LONG[:-1]]])  # a length of two octets
    @example([[b"\x88", b"\x00\x01x\x01a"], [b"\x88", b"\x00\x01x"]])  # less than all in front of it
    @example([[b"\x88", ENTERS]] * 2 + [[b"\xbe", b"\xbf"]])  # a field that enters the table, twice
    @example([[b"\x88", ENTERS], [b"\x88", NAMED], [b"\x88", b"\x40\x01z\x01a"], [b"\x88", NAMED]])  # a name that is another now
    @example([[b"\x20", b"\x88"], [b"\x88", ENTERS], [b"\x3f\x11", b"\x88"], [b"\x88", ENTERS], [b"\xbe"]])  # a table again
    def test_what_is_remembered_of_earlier_blocks_changes_nothing(self, blocks: list[list[bytes]]) -> None:
        ours, other = HeaderDecoder(), theirs.Decoder()
        for block in map(b"".join, blocks):
            try:
                expected = their_list(other.decode(block, raw=True))
            except theirs.HPACKError:
                with pytest.raises(RemoteProtocolError):
                    list(ours.decode(block))
                return
            assert list(ours.decode(block)) == expected
            assert ours.table.fields() == their_list(other.header_table.dynamic_entries)

    def test_a_server_that_never_answers_twice_alike_is_not_remembered_for_ever(self) -> None:
        decoder = HeaderDecoder()
        for number in range(3 * MAX_KNOWN):
            decoder.decode(b"\x88" + hpack.literal(b"n%04d" % number, b"1"))
            assert len(decoder._known) <= MAX_KNOWN

    @pytest.mark.parametrize("length", [2, 126, 127, 150])  # from 127 on the length takes several octets
    def test_an_answer_like_one_before_takes_few_lines(self, length: int) -> None:
        decoder = HeaderDecoder()
        blocks = [b"\x88" + hpack.literal(b"apns-id", b"%0*d" % (length, number)) for number in range(10, 13)]
        first, second, third = (lines_run(partial(decoder.decode, block)) for block in blocks)
        assert third == second < first / 3

    @given(st.lists(st.binary(max_size=60), max_size=5), st.integers(0, 200), st.booleans(), st.integers(0, 9000))
    def test_noise_gives_a_list_or_a_compression_error(self, blocks: list[bytes], limit: int, tolerant: bool, size: int) -> None:
        decoder = HeaderDecoder(size, limit, tolerant=tolerant)
        try:
            for block in blocks:
                found = decoder.decode(block)
                assert sum(32 + len(name) + len(value) for name, value in found) <= limit
        except RemoteProtocolError as error:
            assert error.code is ErrorCode.COMPRESSION_ERROR

    @given(field_lists, st.booleans())
    def test_a_block_cut_short_is_refused_or_ends_between_two_fields(self, fields: Fields, huffman: bool) -> None:
        block = Peer().write(fields, huffman)
        whole = 0
        for end in range(len(block)):
            try:
                found = HeaderDecoder().decode(block[:end])
            except RemoteProtocolError as error:
                assert error.text.startswith("a field block that ends within")
            else:
                assert list(found) == fields[: len(found)]
                whole += 1
        assert whole == len(fields)


class TestRefused:
    @pytest.mark.parametrize(
        "block",
        [
            "80",  # index 0
            "be",  # an index into an empty table
            "ff00",  # index 127
            "7e0161",  # a name of an empty table
            "0f2f0161",  # the same with a prefix of four bits
            "1f2f0161",
            "ff80808080",  # an integer that does not end in the block
            "ff8080808000",  # an integer of more octets than are allowed
            "ffffffffff7f",
            "82ff",
            "00",
            "0001",
            "000161",
            "00016102",
            "0001610261",
            "007f",
            "00ff",
            "0001617f",
            "8820",  # a size update behind a field
            "88203f00",
            "3fe21f",  # a table of 4097 bytes
            "3f",
        ],
    )
    def test_a_block_that_means_nothing_is_a_compression_error(self, block: str) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            HeaderDecoder().decode(bytes.fromhex(block))
        assert caught.value.code is ErrorCode.COMPRESSION_ERROR

    def test_an_integer_of_as_many_octets_as_are_allowed_is_read(self) -> None:
        block = b"\x00" + hpack.string(b"a") + b"\x7f\x83\x80\x80\x00" + b"x" * 130
        assert list(HeaderDecoder().decode(block)) == [(b"a", b"x" * 130)]

    def test_the_text_of_a_fault_tells_nothing_of_the_block(self) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            HeaderDecoder().decode(b"\x00\x06secret\x06secre")
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


class TestStatus:
    @pytest.mark.parametrize("status", [200, 204, 206, 304, 400, 404, 500, 100, 403, 405, 410, 413, 429, 503, 999])
    @pytest.mark.parametrize("huffman", [False, True])
    def test_it_is_the_number_of_the_first_field(self, status: int, huffman: bool) -> None:
        fields = [(b":status", b"%d" % status), (b"apns-id", b"1")]
        assert HeaderDecoder().decode(hpack.block(fields, huffman=huffman)).status == status
        assert HeaderDecoder().decode(hpack.size_update(0) + hpack.block(fields, huffman=huffman)).status == status
        assert HeaderDecoder().decode(Peer().write(fields, huffman)).status == status

    def test_it_is_found_in_a_literal_name(self) -> None:
        assert HeaderDecoder().decode(b"\x00" + hpack.string(b":status", huffman=True) + hpack.string(b"410")).status == 410

    def test_it_is_found_in_the_dynamic_table(self) -> None:
        decoder = HeaderDecoder()
        assert decoder.decode(b"\x48\x03410").status == 410
        assert decoder.decode(b"\xbe").status == 410

    def test_a_status_that_is_no_code_is_a_compression_error(self) -> None:
        with pytest.raises(RemoteProtocolError):
            HeaderDecoder().decode(b"\x08\x83\x00\x00\x00")


class TestTableSize:
    def test_a_peer_that_obeys_empties_the_table(self) -> None:
        decoder = HeaderDecoder(tolerant=False)
        decoder.decode(hpack.size_update(0) + b"\x88\x40\x01x\x01y")
        assert decoder.table.fields() == []
        with pytest.raises(RemoteProtocolError):
            decoder.decode(b"\xbe")

    def test_a_peer_that_passes_over_our_size_is_understood(self) -> None:
        peer, decoder = Peer(), HeaderDecoder(max_table_size=0)
        for number in range(200):
            fields = [(b":status", b"200"), (b"apns-id", b"%08d" % (number % 50)), (b"server", b"apple")]
            assert list(decoder.decode(peer.write(fields, True))) == fields

    def test_a_peer_that_passes_over_our_size_is_an_error_if_asked_for(self) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            HeaderDecoder(max_table_size=0, tolerant=False).decode(b"\x88")
        assert caught.value.code is ErrorCode.COMPRESSION_ERROR

    def test_an_empty_block_is_no_size_update(self) -> None:
        assert list(HeaderDecoder().decode(b"")) == []
        with pytest.raises(RemoteProtocolError):
            HeaderDecoder(tolerant=False).decode(b"")

    def test_a_size_beyond_ours_is_an_error_if_asked_for(self) -> None:
        with pytest.raises(RemoteProtocolError):
            HeaderDecoder(max_table_size=100, tolerant=False).decode(hpack.size_update(101) + b"\x88")

    def test_a_greater_table_may_be_announced(self) -> None:
        decoder = HeaderDecoder(max_table_size=10_000, tolerant=False)
        decoder.decode(b"\x88")
        decoder.decode(hpack.size_update(10_000) + b"\x40\x01x" + hpack.string(b"y" * 9000))
        assert decoder.table.size == 9033
        with pytest.raises(RemoteProtocolError):
            decoder.decode(hpack.size_update(10_001) + b"\x88")

    def test_several_updates_in_front_of_a_block_are_obeyed_in_order(self) -> None:
        decoder = HeaderDecoder()
        decoder.decode(b"\x88\x40\x01x\x01y")
        decoder.decode(hpack.size_update(0) + hpack.size_update(4096) + b"\x88")
        assert (decoder.table.fields(), decoder.table.max_size) == ([], 4096)


class TestTooLong:
    def test_a_list_within_the_limit_is_given(self) -> None:
        found = HeaderDecoder(max_list_size=42 + 34).decode(b"\x88\x00\x01x\x01y")
        assert (found.too_long, len(found)) == (False, 2)

    def test_a_list_beyond_the_limit_is_dropped_but_for_its_status(self) -> None:
        found = HeaderDecoder(max_list_size=42 + 33).decode(b"\x88\x00\x01x\x01y")
        assert (found.too_long, found.status, list(found)) == (True, 200, [])

    def test_the_table_stays_right(self) -> None:
        peer, decoder = Peer(), HeaderDecoder(max_list_size=200)
        assert decoder.decode(peer.write([(b":status", b"200"), (b"x", b"1" * 200)], True)).too_long
        assert list(decoder.decode(peer.write([(b"x", b"1")], True))) == [(b"x", b"1")]
        assert decoder.table.fields() == peer.table()

    def test_many_references_to_a_long_entry_do_not_become_long(self) -> None:
        decoder = HeaderDecoder()
        decoder.decode(b"\x40\x01x" + hpack.string(b"0" * 4000, huffman=True))
        found = decoder.decode(b"\xbe" * 16_000)
        assert found.too_long
        assert len(list(found)) == 0

    def test_few_references_to_a_long_entry_count_too(self) -> None:
        decoder = HeaderDecoder(max_list_size=16_384)
        decoder.decode(b"\x40\x01x" + hpack.string(b"0" * 4000))
        assert not decoder.decode(b"\xbe" * 4).too_long
        assert decoder.decode(b"\xbe" * 5).too_long

    @given(
        st.lists(st.sampled_from([b"\xbe", b"\x90", b"\x00\x01y" + hpack.string(b"\n\n", huffman=True)]), max_size=40),
        st.integers(0, 3000),
    )
    def test_the_limit_is_exact(self, parts: list[bytes], limit: int) -> None:
        blocks = [b"\x40\x01x" + hpack.string(b"0" * 100, huffman=True), b"".join(parts)]
        free, bound = HeaderDecoder(max_list_size=2**20), HeaderDecoder(max_list_size=limit)
        sizes = [sum(32 + len(name) + len(value) for name, value in free.decode(block)) for block in blocks]
        assert [bound.decode(block).too_long for block in blocks] == [size > limit for size in sizes]


class TestCost:
    @pytest.mark.parametrize(
        "unit",
        [
            b"\x88",
            b"\x00\x01a\x01b",
            b"\x40\x01a" + hpack.string(b"ab", huffman=True),
            b"\x40\x01a" + hpack.string(b"ab", huffman=True) + b"\xff\x08",  # an addition and a look-up deep in the table
            b"\x40\x01a" + hpack.string(b"0" * 100, huffman=True) + b"\xc8",
            hpack.size_update(0) + hpack.size_update(4096),
            hpack.size_update(4000) + hpack.size_update(4096),
        ],
    )
    def test_what_is_done_for_a_block_is_linear(self, unit: bytes) -> None:
        def cost(count: int) -> int:
            decoder = HeaderDecoder(max_list_size=2**24)
            decoder.decode(b"\x40\x00\x00" * 128)
            return lines_run(lambda: decoder.decode(unit * count))

        assert cost(600) < 2.2 * cost(300)

    def test_what_nobody_reads_costs_nothing(self) -> None:
        def cost(size: int) -> int:
            decoder = HeaderDecoder()
            block = b"\x88\x40\x07apns-id" + hpack.string(b"0" * size, huffman=True)
            return lines_run(lambda: decoder.decode(block).status)

        assert cost(10) == cost(100)


@given(st.integers(0, 2**27), st.integers(1, 7))
def test_an_integer_that_we_write_is_read_by_the_library(value: int, prefix_bits: int) -> None:
    octets = hpack.integer(value, prefix_bits)
    assert decode_integer(octets, prefix_bits) == (value, len(octets))
