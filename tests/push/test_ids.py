"""Ids of messages, epochs and sessions."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.push.ids import POOL_BYTES, EntropyPool, made_at_ms, message_id, random_id

MILLISECONDS = st.integers(0, (1 << 48) - 1)


def test_known_ids() -> None:
    assert message_id(0, bytes) == "0" * 26
    assert message_id((1 << 48) - 1, lambda count: b"\xff" * count) == "7" + "Z" * 25
    assert message_id(1_469_918_176_385, bytes) == "01ARYZ6S41" + "0" * 16  # the time of the ULID specification's example
    assert random_id(lambda count: b"\xff" * count) == "Z" * 16


@given(MILLISECONDS, MILLISECONDS)
def test_message_ids_sort_by_time(one: int, other: int) -> None:
    first, second = sorted((one, other))
    if first != second:
        assert message_id(first, lambda count: b"\xff" * count) < message_id(second, bytes)


@given(MILLISECONDS)
def test_the_time_of_a_message_id_is_read_back(made: int) -> None:
    assert made_at_ms(message_id(made, os.urandom)) == made


@pytest.mark.parametrize("other", ["", "M1", "01ARYZ6S41" + "0" * 16 + "-cleared", "01ARYZ6S41" + "U" * 16])
def test_an_id_of_another_form_has_no_time(other: str) -> None:
    assert made_at_ms(other) is None


def test_ids_differ() -> None:
    assert len({message_id(5, os.urandom) for _ in range(1000)}) == 1000
    assert len({random_id(os.urandom) for _ in range(1000)}) == 1000


def test_each_digit_stands_for_as_many_bytes() -> None:
    digits = Counter("".join(random_id(lambda count, at=at: bytes(range(at, at + count))) for at in range(0, 256, 16)))  # type: ignore[misc]
    assert set(digits.values()) == {8}
    assert len(digits) == 32


def test_an_id_is_as_long_and_as_random_as_it_says() -> None:
    asked: list[int] = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    assert (len(message_id(1, entropy)), len(random_id(entropy))) == (26, 16)
    assert asked == [16, 16]


def test_a_pool_asks_its_source_once_for_many_ids() -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    pool = EntropyPool(source)
    for _ in range(POOL_BYTES // 16):
        pool(16)
    assert asked == [POOL_BYTES]


def test_a_pool_gives_no_byte_twice_and_always_as_many_as_asked_for() -> None:
    pool = EntropyPool(os.urandom)
    taken = [pool(10) for _ in range(2_000)]
    assert {len(each) for each in taken} == {10}
    assert len(set(taken)) == 2_000
