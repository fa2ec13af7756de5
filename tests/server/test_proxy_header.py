"""ProxyHeader, with Twisted's parsers as the second opinion."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

from streampush.server.proxy_header import MAX_BLOCK, MAX_TEXT, BadProxyHeader, ProxyHeader
from streampush.server.stream import Address
from tests.server.proxy_headers import CHECK, PROXY, SIGNATURE, TCP4, TCP6, UDP4, UNIX, UNSPECIFIED, block, raw, text

BOTH = frozenset((1, 2))
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
HOSTS = st.ip_addresses().map(str)
PORTS = st.integers(0, 65535)


def read(data: bytes, versions: frozenset[int] = BOTH, step: int | None = None) -> tuple[Address | None, bytes]:
    """The client, and what is left behind the header. `step`: bytes that arrive at a time."""
    header = ProxyHeader(versions)
    there = b""
    while not header.done:
        assert data, "the header is not complete"
        there, data = there + data[: step or len(data)], data[step or len(data) :]
        taken = header.feed(there)
        assert 1 <= taken <= len(there)
        there = there[taken:]
    return header.source, there + data


def fault(data: bytes, versions: frozenset[int] = BOTH) -> str:
    with pytest.raises(BadProxyHeader) as caught:
        read(data, versions)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(HOSTS, PORTS, st.binary(max_size=64), st.sampled_from([text, block]))
def test_client_is_who_the_header_names_and_what_follows_is_left(host: str, port: int, behind: bytes, write: type) -> None:
    own = "2001:db8::1" if ":" in host else "192.0.2.1"
    header = text(host, port, own) if write is text else block(host, port)
    source, left = read(header + behind)
    assert source is not None
    assert (ipaddress.ip_address(source.host), source.port, left) == (ipaddress.ip_address(host), port, behind)
    assert type(source) is (IPv6Address if ":" in host else IPv4Address)


@pytest.mark.parametrize("header", [text("198.51.100.7"), block("198.51.100.7"), block("2001:db8::7", extra=b"\4\0\3abc"), CHECK])
def test_header_that_arrives_in_any_pieces_is_the_same(header: bytes) -> None:
    whole = read(header + TLS)
    assert whole[1] == TLS
    assert all(read(header + TLS, step=step) == whole for step in range(1, len(header) + 2))


@given(HOSTS, PORTS, st.binary(max_size=40))
def test_twisted_reads_the_same_client_from_a_block(host: str, port: int, extra: bytes) -> None:
    header = block(host, port, extra)
    theirs = V2Parser.parse(header).source
    ours, _ = read(header)
    assert ours is not None
    assert (ipaddress.ip_address(ours.host), ours.port) == (ipaddress.ip_address(theirs.host), theirs.port)


@given(HOSTS, PORTS)
def test_twisted_reads_the_same_client_from_a_line(host: str, port: int) -> None:
    header = text(host, port, "2001:db8::1" if ":" in host else "192.0.2.1")
    theirs = V1Parser.parse(header[:-2]).source
    ours, _ = read(header)
    assert ours is not None
    assert (ipaddress.ip_address(ours.host), ours.port) == (ipaddress.ip_address(theirs.host), theirs.port)


@given(st.binary(max_size=80), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"]))
def test_any_bytes_are_a_client_or_a_check_or_one_fault_or_wait_for_more(rest: bytes, start: bytes) -> None:
    header = ProxyHeader(BOTH)
    there = start + rest
    try:
        while there and not header.done:
            there = there[header.feed(there) :]
    except BadProxyHeader:
        return
    assert len(header._buffer) <= 16 + MAX_BLOCK
    if header.done and header.source is not None and start == SIGNATURE:
        assert V2Parser.parse(bytes(header._buffer)).source.port == header.source.port


@pytest.mark.parametrize("header", [CHECK, block("198.51.100.7", command=0x20), b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN a b 1 2\r\n"])
def test_proxy_that_speaks_for_itself_names_no_client(header: bytes) -> None:
    assert read(header + TLS) == (None, TLS)


@pytest.mark.parametrize("data", [TLS, b"GET / HTTP/1.1\r\n\r\n", b"PING", b"\r\n\r\nhello", SIGNATURE[:-1] + b"x"])
def test_what_is_no_header_is_a_fault_as_soon_as_it_shows(data: bytes) -> None:
    assert fault(data) == "it does not begin with a PROXY header"


@pytest.mark.parametrize(("header", "allowed"), [(text("198.51.100.7"), 2), (block("198.51.100.7"), 1)])
def test_version_that_is_not_allowed_is_a_fault(header: bytes, allowed: int) -> None:
    assert "listen.proxy_protocol does not allow" in fault(header, frozenset((allowed,)))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (raw(0x31, TCP4, bytes(12)), "unknown version or command"),
        (raw(0x22, TCP4, bytes(12)), "unknown version or command"),
        (raw(PROXY, TCP4, b"", MAX_BLOCK + 1), f"allowed are {MAX_BLOCK}"),
        (raw(PROXY, TCP4, bytes(11)), "too short"),
        (raw(PROXY, TCP6, bytes(35)), "too short"),
        (raw(PROXY, UDP4, bytes(12)), "no TCP client"),
        (raw(PROXY, UNIX, bytes(216)), "no TCP client"),
        (raw(PROXY, UNSPECIFIED, b""), "no TCP client"),
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 51000\r\n", "cannot be read"),
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 +743\r\n", "cannot be read"),
        (b"PROXY TCP4  198.51.100.7 192.0.2.1 1 2\r\n", "cannot be read"),
        (b"PROXY UDP4 198.51.100.7 192.0.2.1 1 2\r\n", "cannot be read"),
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 2\r\n", "port"),
        (b"PROXY TCP4 198.51.100.777 192.0.2.1 1 2\r\n", "address"),
        (b"PROXY TCP4 2001:db8::7 192.0.2.1 1 2\r\n", "address"),
        (b"PROXY TCP6 198.51.100.7 192.0.2.1 1 2\r\n", "address"),
        (b"PROXY TCP4 " + b"1" * 200, f"no end within {MAX_TEXT} bytes"),
    ],
)
def test_header_that_names_no_client_by_its_address_is_a_fault(header: bytes, words: str) -> None:
    assert words in fault(header)


def test_block_of_the_largest_size_is_read() -> None:
    source, left = read(block("198.51.100.7", extra=bytes(MAX_BLOCK - 12)) + TLS)
    assert (source, left) == (IPv4Address("TCP", "198.51.100.7", 51000), TLS)


def test_longest_line_is_read() -> None:
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    header = text(longest, 65535, longest, 65535)
    assert len(header) == MAX_TEXT - 3  # the rest is for UNKNOWN
    assert read(header + TLS) == (IPv6Address("TCP", longest, 65535), TLS)


def test_nothing_is_read_behind_the_end() -> None:
    header = ProxyHeader(BOTH)
    header.feed(CHECK)
    for data in (b"x", b""):
        with pytest.raises(ValueError, match="nothing is to be read"):
            header.feed(data)


def test_twisted_refuses_what_is_no_block_too() -> None:
    with pytest.raises(InvalidProxyHeader):
        V2Parser.parse(raw(0x31, TCP4, bytes(12)))
