"""A way through an HTTP proxy: the CONNECT method, RFC 9110 section 9.3.6. TLS goes through it from end to end."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

MAX_ANSWER: Final = 16 * 1024
"""Bytes of a proxy's answer up to the blank line."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_NAME = re.compile(r"[A-Za-z0-9._:%-]+")


class ProxyRefused(Exception):
    """The proxy did not open a way; the text is safe to log. `status`: its answer's, 0 if it gave none."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy is, and as whom to use it (Basic, RFC 7617; empty: without). Raises ValueError."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port < 65536:
            raise ValueError("a proxy needs a host and a port from 1 to 65535")
        if ":" in self.user:
            raise ValueError("the user of a proxy cannot have a colon")

    def request(self, host: str, port: int) -> bytes:
        """What to send to be connected to that host. Raises ValueError for a host that is no name."""
        if not _NAME.fullmatch(host):
            raise ValueError("not a host name")
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if self.user:
            lines.append("Proxy-Authorization: Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode())
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


class Tunnel(Protocol):
    """The connection to the proxy; once it is open, all that comes is `inner`'s, and the transport too.

    `opened` fires with nothing, or fails with ProxyRefused; to cancel it ends the connection.
    """

    def __init__(self, request: bytes, inner: IProtocol) -> None:
        self.opened: Deferred[None] = Deferred(self._give_up)
        self._request = request
        self._inner = inner
        self._answer: bytes | None = b""  # None: it is complete

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._request)
        self._request = b""  # it may hold a password

    def dataReceived(self, data: bytes) -> None:
        if self._answer is None:
            self._inner.dataReceived(data)
            return
        if self.opened.called:
            return
        self._answer += data
        end = _END.search(self._answer)
        if end is None:
            if len(self._answer) > MAX_ANSWER:
                self._refuse(f"the proxy's answer is longer than {MAX_ANSWER} bytes")
            return
        status = _STATUS.match(self._answer)
        if status is None:
            self._refuse("the proxy's answer is not HTTP/1")
        elif not status[1].startswith(b"2"):
            self._refuse(f"the proxy answered {int(status[1])}", int(status[1]))
        else:
            rest = self._answer[end.end() :]
            self._answer = None
            transport: Any = self.transport
            self._inner.makeConnection(transport)
            self.opened.callback(None)
            if rest:
                self._inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._answer is None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(ProxyRefused("the proxy ended the connection"))

    def _refuse(self, text: str, status: int = 0) -> None:
        self._give_up(self.opened)
        self.opened.errback(ProxyRefused(text, status))

    def _give_up(self, _opened: Deferred[None]) -> None:
        transport: Any = self.transport
        transport.abortConnection()
