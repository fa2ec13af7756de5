"""The header with which a proxy begins a connection to say who its client is: PROXY protocol, versions 1 and 2.

Sans-IO. Source: "The PROXY protocol, versions 1 & 2" in HAProxy's documentation. Version 1 is a line of text of at most 107 bytes,
version 2 a block of 16 bytes with a length, then addresses and type-length-value fields; these fields are passed over.

Behind the header stand the client's own bytes, which OpenSSL reads from the socket itself. So nothing beyond the header may be
taken: the caller looks at what is there without taking it (MSG_PEEK) and takes as much as `feed` says.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address

from streampush.server.stream import Address

MAX_TEXT: Final = 107
"""Bytes of a version 1 header with its line end, by the specification."""

MAX_BLOCK: Final = 2048
"""Bytes behind the first 16 of a version 2 header: addresses take 36, and what proxies add some hundred; the length field allows
65535, which is memory that a stranger would hold."""

MAX_HEADER: Final = 16 + MAX_BLOCK
"""Bytes that are ever looked at at once."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

_START: Final = struct.Struct("!12sBBH")
_TCP4: Final = struct.Struct("!4s4sHH")
_TCP6: Final = struct.Struct("!16s16sHH")

_PREFIX: Final = b"PROXY "
_LINE: Final = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN( [^\r\n]*)?\r\n")

_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half, the command in the low half


class BadProxyHeader(Exception):
    """What came is no header that can be used. The text is safe to log: nothing of the peer's is in it."""


class ProxyHeader:
    """Reads one header. `versions`: those that are accepted, of 1 and 2.

    When `done`, `source` is the client, or None: the proxy speaks for itself, to see whether we live (LOCAL; in version 1 UNKNOWN).
    """

    __slots__ = ("_buffer", "_version", "_versions", "done", "source")

    def __init__(self, versions: frozenset[int]) -> None:
        self._versions = versions
        self._version = 0  # not known before the first byte
        self._buffer = bytearray()
        self.done = False
        self.source: Address | None = None

    @property
    def begun(self) -> bool:
        """Whether anything came."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> int:
        """Takes what belongs to the header of bytes that wait to be read, at least one; returns how many that are.

        Raises BadProxyHeader, and then nobody knows who the client is.
        """
        if self.done or not data:
            raise ValueError("nothing is to be read")
        if not self._version:
            self._version = self._begin(data[0])
        return self._feed_text(data) if self._version == 1 else self._feed_block(data)

    def _begin(self, first: int) -> int:
        version = {_PREFIX[0]: 1, SIGNATURE[0]: 2}.get(first)
        if version is None:
            raise BadProxyHeader("it does not begin with a PROXY header")
        if version not in self._versions:
            raise BadProxyHeader(f"a PROXY header of version {version}, which listen.proxy_protocol does not allow")
        return version

    # -------------------------------------------------------------------------------------------------------------- version 1

    def _feed_text(self, data: bytes) -> int:
        had = len(self._buffer)
        self._buffer += data[: MAX_TEXT - had]
        end = self._buffer.find(b"\r\n") + 2
        if end >= 2:
            del self._buffer[end:]
            self.source = _text_source(bytes(self._buffer))
            self.done = True
            return end - had
        if not _PREFIX.startswith(self._buffer[: len(_PREFIX)]):
            raise BadProxyHeader("it does not begin with a PROXY header")
        if len(self._buffer) == MAX_TEXT:
            raise BadProxyHeader(f"its PROXY header has no end within {MAX_TEXT} bytes")
        return len(self._buffer) - had

    # -------------------------------------------------------------------------------------------------------------- version 2

    def _feed_block(self, data: bytes) -> int:
        had = len(self._buffer)
        self._buffer += data[: max(0, _START.size - had)]
        if not SIGNATURE.startswith(self._buffer[: len(SIGNATURE)]):
            raise BadProxyHeader("it does not begin with a PROXY header")
        if len(self._buffer) < _START.size:
            return len(self._buffer) - had
        _, command, family, length = _START.unpack_from(self._buffer)
        if command not in (_LOCAL, _PROXY):
            raise BadProxyHeader("its PROXY header has an unknown version or command")
        if length > MAX_BLOCK:
            raise BadProxyHeader(f"its PROXY header has {length} bytes, allowed are {MAX_BLOCK}")
        taken = len(self._buffer) - had
        self._buffer += data[taken : taken + _START.size + length - len(self._buffer)]
        if len(self._buffer) == _START.size + length:
            self.source = _block_source(family, bytes(self._buffer[_START.size :])) if command == _PROXY else None
            self.done = True
        return len(self._buffer) - had


def _text_source(line: bytes) -> Address | None:
    if _UNKNOWN.fullmatch(line):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadProxyHeader("its PROXY header cannot be read")
    family, *hosts, source_port, own_port = (part.decode() for part in match.groups())
    of = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        source, _ = (str(of(host)) for host in hosts)
    except ValueError:
        raise BadProxyHeader("its PROXY header has an address that is none") from None
    if max(int(source_port), int(own_port)) > 65535:
        raise BadProxyHeader("its PROXY header has a port that is none")
    return _address(family, source, int(source_port))


def _block_source(family: int, block: bytes) -> Address:
    if family == 0x11 and len(block) >= _TCP4.size:
        source, _, port, _ = _TCP4.unpack_from(block)
        return _address("TCP4", socket.inet_ntop(socket.AF_INET, source), port)
    if family == 0x21 and len(block) >= _TCP6.size:
        source, _, port, _ = _TCP6.unpack_from(block)
        return _address("TCP6", socket.inet_ntop(socket.AF_INET6, source), port)
    if family in (0x11, 0x21):
        raise BadProxyHeader("its PROXY header is too short for its addresses")
    raise BadProxyHeader("its PROXY header names no TCP client")


def _address(family: str, host: str, port: int) -> Address:
    return IPv4Address("TCP", host, port) if family == "TCP4" else IPv6Address("TCP", host, port)
