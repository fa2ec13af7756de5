"""What both sides of a handover say, without sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streampush.handover.wire import (
    KINDS,
    MAX_MESSAGE,
    MAX_REASON,
    MAX_SOCKETS,
    HandoverFault,
    Message,
    Offered,
    Reader,
    encode,
    encode_offer,
    parse_offer,
)

WORDS = st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(["reason", "pid", "x"]), st.text(max_size=20))))


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def fault(data: bytes) -> str:
    with pytest.raises(HandoverFault) as caught:
        Reader().feed(data)
    return str(caught.value)


@given(words=WORDS, cuts=st.lists(st.integers(1, 30), max_size=30))
def test_words_come_through_however_they_are_cut(words: list[tuple[str, dict[str, str]]], cuts: list[int]) -> None:
    data = b"".join(encode(kind, **fields) for kind, fields in words)
    reader, got = Reader(), []
    for cut in [*cuts, len(data)]:
        got += reader.feed(data[:cut])
        data = data[cut:]
    assert got == [Message(kind, fields) for kind, fields in words]


@given(st.binary(max_size=200) | st.binary(max_size=60).map(frame))
@example(frame(b"[" * MAX_MESSAGE))
@example(frame(b"\xff"))
def test_any_bytes_are_words_or_a_fault(data: bytes) -> None:
    try:
        Reader().feed(data)
    except HandoverFault as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("length", [0, MAX_MESSAGE + 1, 2**32 - 1])
def test_a_length_out_of_range_is_a_fault_at_once(length: int) -> None:
    assert "bytes, allowed are" in fault(length.to_bytes(4, "big"))


@pytest.mark.parametrize("body", [b"x", b"[]", b'"ask"', b"{}", b'{"v":1}', b'{"v":1,"kind":"sing"}', b'{"v":1,"kind":[]}'])
def test_what_is_no_word_is_a_fault(body: bytes) -> None:
    fault(frame(body))


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_version_is_refused(version: object) -> None:
    assert "version 1" in fault(frame(json.dumps({"v": version, "kind": "ask"}).encode()))


def test_unknown_fields_are_passed_over() -> None:
    (message,) = Reader().feed(encode_with(sockets=[{"name": "stream", "later": 1}], wait=1, later={}))
    assert parse_offer(message) == ([Offered("stream")], 1.0)


def encode_with(**fields: Any) -> bytes:
    return encode("offer", **fields)


def test_an_offer_comes_through() -> None:
    offered = [Offered("stream"), Offered("rest", foreign=True), Offered("stream.12")]
    (message,) = Reader().feed(encode_offer(offered, 12.5))
    assert parse_offer(message) == (offered, 12.5)


def test_the_largest_offer_fits_a_message() -> None:
    encode_offer([Offered(f"{'x' * 32}.{number:04}", foreign=True) for number in range(MAX_SOCKETS)], 86_400)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sockets": {}, "wait": 1},
        {"sockets": [], "wait": -1},
        {"sockets": [], "wait": "1"},
        {"sockets": [], "wait": True},
        {"sockets": [], "wait": 1e9},
        {"sockets": ["stream"], "wait": 1},
        {"sockets": [{"name": "a b"}], "wait": 1},
        {"sockets": [{"name": 1}], "wait": 1},
        {"sockets": [{"name": "stream", "foreign": 1}], "wait": 1},
        {"sockets": [{"name": "stream"}, {"name": "stream"}], "wait": 1},
        {"sockets": [{"name": f"s.{number}"} for number in range(MAX_SOCKETS + 1)], "wait": 1},
    ],
)
def test_a_bad_offer_is_a_fault(fields: dict[str, Any]) -> None:
    with pytest.raises(HandoverFault):
        parse_offer(Message("offer", fields))


@given(st.text() | st.integers() | st.none())
def test_a_reason_is_one_short_line(reason: object) -> None:
    text = Message("failed", {"reason": reason}).text("reason")
    assert len(text) <= MAX_REASON
    assert text == "" or text.isprintable()
