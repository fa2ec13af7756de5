"""Listening sockets, and options of accepted ones."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError

# TCP keepalive finds peers that died without a word where the session's own heartbeat does not look (handshake, linger):
# a minute of silence, then 4 probes 15 s apart.
_KEEPALIVE: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
)

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""Value of SO_LINGER: close drops what is unsent and tells the peer at once with a reset."""


def open_listening(address: str, port: int, backlog: int) -> socket.socket:
    """A non-blocking TCP socket that listens there, IPv4 or IPv6. Raises CannotListenError if the address is taken or not ours."""
    family = socket.AF_INET6 if isIPv6Address(address) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # getaddrinfo knows the zone of a link-local address
        found = socket.getaddrinfo(address or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
        sock.bind(found[0][4])
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        fault = CannotListenError(address, port, error)  # type: ignore[no-untyped-call]  # not annotated
        raise fault from error
    return sock


def tune(sock: socket.socket) -> None:
    """Non-blocking, small writes leave at once, dead peers are found. Raises OSError."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def close(sock: socket.socket, *, reset: bool) -> None:
    """Closes; with `reset` what is unsent is dropped and the peer is told at once. Never raises."""
    with contextlib.suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    with contextlib.suppress(OSError):
        sock.close()
