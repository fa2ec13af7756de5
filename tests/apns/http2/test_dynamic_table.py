"""The dynamic table: RFC 7541 sections 2.3.2 and 4. The model is a table that decodes everything at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.http2 import huffman
from streampush.apns.http2.dynamic_table import DynamicTable
from streampush.apns.http2.errors import ErrorCode, RemoteProtocolError
from streampush.apns.http2.header_list import NAME_CODED, VALUE_CODED, Field, decoded
from tests.apns.http2.counting import lines_run

BAD_CODE = bytes(9)
"""No string has this code: it ends with a padding of zeros."""


def coded(name: bytes, value: bytes, which: int) -> Field:
    return (
        huffman.encode(name) if which & NAME_CODED else name,
        huffman.encode(value) if which & VALUE_CODED else value,
        which,
    )


class EagerTable:
    """Section 4 word for word."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.entries: list[tuple[bytes, bytes]] = []

    @property
    def size(self) -> int:
        return sum(32 + len(name) + len(value) for name, value in self.entries)

    def add(self, field: Field) -> None:
        name, value, _ = decoded(field)
        size = 32 + len(name) + len(value)
        while self.entries and self.size + size > self.max_size:
            self.entries.pop()
        if size <= self.max_size:
            self.entries.insert(0, (name, value))

    def resize(self, max_size: int) -> None:
        self.max_size = max_size
        while self.size > max_size:
            self.entries.pop()


# Long and short codes, so that what entries may count differs much from what they count.
texts = st.text("\n\r0", max_size=40).map(str.encode)
fields = st.builds(coded, texts, texts, st.integers(0, 3))
sizes = st.integers(0, 300)
steps = st.lists(st.one_of(fields, fields, fields, st.integers(-1, 6), sizes.map(lambda size: ("resize", size))), max_size=40)


@given(sizes, steps)
def test_it_holds_what_a_table_holds_that_decodes_all(max_size: int, steps: list[Field | int | tuple[str, int]]) -> None:
    table, model = DynamicTable(max_size), EagerTable(max_size)
    for step in steps:
        if isinstance(step, int):
            if 0 <= step < len(model.entries):
                name, value, _ = decoded(table.find(step))
                assert (name, value) == model.entries[step]
            else:
                with pytest.raises(RemoteProtocolError):
                    table.find(len(model.entries) + abs(step))
        elif len(step) == 2:
            table.resize(step[1])
            model.resize(step[1])
        else:
            table.add(step)
            model.add(step)
    assert (table.fields(), table.size) == (model.entries, model.size)


def test_an_index_behind_the_last_entry_is_a_compression_error() -> None:
    table = DynamicTable(4096)
    table.add((b"a", b"b", 0))
    assert table.find(0) == (b"a", b"b", 0)
    with pytest.raises(RemoteProtocolError) as caught:
        table.find(1)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_an_entry_that_nobody_can_doubt_is_given_as_it_came() -> None:
    table = DynamicTable(4096)
    field = coded(b"apns-id", b"1234", NAME_CODED | VALUE_CODED)
    table.add(field)
    assert table.find(0) is field


def test_an_entry_that_nobody_refers_to_is_never_decoded() -> None:
    table = DynamicTable(200)
    for _ in range(1000):
        table.add((b"x", BAD_CODE, VALUE_CODED))
        table.add((b"y", b"1", 0))
        assert table.find(0) == (b"y", b"1", 0)


def test_an_entry_in_doubt_is_decoded_and_a_bad_code_is_an_error_then() -> None:
    table = DynamicTable(44)
    table.add((b"x", BAD_CODE, VALUE_CODED))
    with pytest.raises(RemoteProtocolError, match="Huffman") as caught:
        table.find(0)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_an_entry_in_doubt_is_given_if_it_fits_when_decoded() -> None:
    table = DynamicTable(44)
    table.add(coded(b"x", b"\n" * 11, VALUE_CODED))
    assert table.find(0) == (b"x", b"\n" * 11, 0)


def test_an_entry_in_doubt_is_gone_if_it_does_not_fit_when_decoded() -> None:
    table = DynamicTable(44)
    table.add(coded(b"x", b"0" * 12, VALUE_CODED))
    with pytest.raises(RemoteProtocolError, match="no entry 0"):
        table.find(0)


def test_an_entry_that_was_decoded_once_counts_what_it_is() -> None:
    table = DynamicTable(130)
    table.add((b"y", b"1", 0))
    table.add(coded(b"x", b"\n" * 10, VALUE_CODED))
    assert table.size == 34 + 43
    table.add((b"x", BAD_CODE, VALUE_CODED))  # which counts 47 at most
    assert table.find(2) == (b"y", b"1", 0)


def test_a_table_without_room_holds_nothing() -> None:
    table = DynamicTable(0)
    table.add((b"x", BAD_CODE, VALUE_CODED))
    assert (table.fields(), table.size) == ([], 0)


def test_emptying_decodes_nothing() -> None:
    table = DynamicTable(4096)
    table.add((b"x", BAD_CODE, VALUE_CODED))
    table.resize(0)
    table.resize(4096)
    assert table.fields() == []


def test_entries_without_end_are_held_within_the_room() -> None:
    table = DynamicTable(4096)
    for _ in range(500):
        table.add((b"", huffman.encode(b"0" * 8), VALUE_CODED))
    assert len(table._entries) <= 4096 // 32


@pytest.mark.parametrize("position", [0, 30, 90])
def test_what_is_done_for_additions_and_look_ups_in_turn_is_linear(position: int) -> None:
    def cost(rounds: int) -> int:
        table = DynamicTable(4096)
        for _ in range(128):
            table.add((b"", b"", 0))
        code = huffman.encode(b"ab")

        def work() -> None:
            for _ in range(rounds):
                table.add((b"", code, VALUE_CODED))
                table.find(position)

        return lines_run(work)

    assert cost(800) < 2.2 * cost(400)


def test_what_a_settling_does_is_what_came_since_the_last_one() -> None:
    table = DynamicTable(4096)
    code = huffman.encode(b"ab")
    for _ in range(200):
        table.add((b"", code, VALUE_CODED))
    table.resize(4000)
    table.add((b"", code, VALUE_CODED))
    assert lines_run(lambda: table.find(100)) < 80
