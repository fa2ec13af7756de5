"""Headers of the PROXY protocol as proxies write them."""

from __future__ import annotations

import socket
import struct

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UDP4, UNIX, UNSPECIFIED = 0x11, 0x21, 0x12, 0x31, 0x00


def text(source: str, port: int = 51000, own: str = "192.0.2.1", own_port: int = 7443) -> bytes:
    """A version 1 header."""
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {own} {port} {own_port}\r\n".encode()


def block(source: str, port: int = 51000, extra: bytes = b"", *, command: int = PROXY) -> bytes:
    """A version 2 header; `extra` are its type-length-value fields."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    own = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, own) + struct.pack("!HH", port, 7443)
    return raw(command, TCP6 if family == socket.AF_INET6 else TCP4, addresses + extra)


def raw(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    """A version 2 header of any bytes; `length` is what it says of them, if that is not true."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


CHECK = raw(LOCAL, UNSPECIFIED, b"")
"""What a proxy says when it asks for itself."""
