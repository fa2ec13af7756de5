"""The examples of RFC 7541 appendix C."""

from __future__ import annotations

import pytest

from streampush.apns.http2 import hpack
from streampush.apns.http2.hpack import HeaderDecoder

Fields = list[tuple[bytes, bytes]]
Step = tuple[str, Fields, Fields, int]
"""A block in hexadecimal, its fields, the dynamic table afterwards (newest first), and its size in bytes."""


@pytest.mark.parametrize(
    ("value", "prefix_bits", "first", "octets"),
    [(10, 5, 0, "0a"), (10, 5, 0xE0, "ea"), (1337, 5, 0, "1f9a0a"), (42, 8, 0, "2a")],
)
def test_c1_integers(value: int, prefix_bits: int, first: int, octets: str) -> None:
    assert hpack.integer(value, prefix_bits, first).hex() == octets


def test_c2_1_a_literal_with_indexing() -> None:
    decoder = HeaderDecoder()
    found = decoder.decode(bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572"))
    assert list(found) == [(b"custom-key", b"custom-header")]
    assert decoder.table.fields() == [(b"custom-key", b"custom-header")]
    assert decoder.table.size == 55


@pytest.mark.parametrize(
    ("block", "field", "never_indexed"),
    [
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False),  # C.2.2
        ("100870617373776f726406736563726574", (b"password", b"secret"), True),  # C.2.3
    ],
)
def test_c2_2_and_c2_3_a_literal_that_enters_no_table(block: str, field: tuple[bytes, bytes], never_indexed: bool) -> None:
    decoder = HeaderDecoder()
    assert list(decoder.decode(bytes.fromhex(block))) == [field]
    assert decoder.table.fields() == []
    assert hpack.literal(*field, never_indexed=never_indexed).hex() == block


def test_c2_4_an_indexed_field() -> None:
    decoder = HeaderDecoder()
    assert list(decoder.decode(b"\x82")) == [(b":method", b"GET")]
    assert decoder.table.size == 0
    assert hpack.block([(b":method", b"GET")]) == b"\x82"


AUTHORITY = (b":authority", b"www.example.com")
NO_CACHE = (b"cache-control", b"no-cache")
CUSTOM = (b"custom-key", b"custom-value")
GET, HTTP, HTTPS, ROOT = (b":method", b"GET"), (b":scheme", b"http"), (b":scheme", b"https"), (b":path", b"/")


def requests(*blocks: str) -> list[Step]:
    """Appendix C.3 and C.4: the same three requests."""
    tables = [[AUTHORITY], [NO_CACHE, AUTHORITY], [CUSTOM, NO_CACHE, AUTHORITY]]
    lists = [
        [GET, HTTP, ROOT, AUTHORITY],
        [GET, HTTP, ROOT, AUTHORITY, NO_CACHE],
        [GET, HTTPS, (b":path", b"/index.html"), AUTHORITY, CUSTOM],
    ]
    return list(zip(blocks, lists, tables, [57, 110, 164], strict=True))


S302, S307, S200 = (b":status", b"302"), (b":status", b"307"), (b":status", b"200")
PRIVATE = (b"cache-control", b"private")
DATE_21, DATE_22 = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"), (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
LOCATION = (b"location", b"https://www.example.com")
GZIP = (b"content-encoding", b"gzip")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")


def responses(*blocks: str) -> list[Step]:
    """Appendix C.5 and C.6: the same three responses, with a table of 256 bytes, so that entries are evicted."""
    tables = [[LOCATION, DATE_21, PRIVATE, S302], [S307, LOCATION, DATE_21, PRIVATE], [COOKIE, GZIP, DATE_22]]
    lists = [
        [S302, PRIVATE, DATE_21, LOCATION],
        [S307, PRIVATE, DATE_21, LOCATION],
        [S200, PRIVATE, DATE_22, LOCATION, GZIP, COOKIE],
    ]
    return list(zip(blocks, lists, tables, [222, 222, 215], strict=True))


CONVERSATIONS = {
    "c3": requests(
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ),
    "c4": requests(
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ),
    "c5": responses(
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48"
        "514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ),
    "c6": responses(
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27"
        "087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ),
}


def decoder_for(conversation: str) -> HeaderDecoder:
    decoder = HeaderDecoder()
    if conversation in ("c5", "c6"):
        decoder.decode(hpack.size_update(256))
    return decoder


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_c3_to_c6_give_the_fields_and_the_table_of_the_page(conversation: str) -> None:
    decoder = decoder_for(conversation)
    for block, fields, table, size in CONVERSATIONS[conversation]:
        assert list(decoder.decode(bytes.fromhex(block))) == fields
        assert decoder.table.fields() == table
        assert decoder.table.size == size


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_c3_to_c6_are_right_when_read_after_all_of_them_have_come(conversation: str) -> None:
    decoder = decoder_for(conversation)
    found = [decoder.decode(bytes.fromhex(block)) for block, _, _, _ in CONVERSATIONS[conversation]]
    assert [list(one) for one in found] == [fields for _, fields, _, _ in CONVERSATIONS[conversation]]
    assert decoder.table.fields() == CONVERSATIONS[conversation][-1][2]
