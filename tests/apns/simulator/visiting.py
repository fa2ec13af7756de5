"""A provider with TLS on the real reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.cli.pki import Issued
from tests.apns.simulator.providers import H2Side


@implementer(IHandshakeListener)
class Visitor(Protocol):
    """A client with TLS: pushes as soon as it can, and calls `done` when `want` answers are there or all is over."""

    def __init__(self, want: int, jwt: bytes, done: Callable[[Visitor], None]) -> None:
        self.side = H2Side(jwt)
        self.raw = b""
        self.protocol: bytes | None = None
        self.lost = False
        self._want = want
        self._done = done

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.side.answers.values()]

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        self.protocol = transport.negotiatedProtocol
        for _ in range(self._want):
            self.side.push()
        transport.write(self.side.outbound())

    def dataReceived(self, data: bytes) -> None:
        self.raw += data
        if self.protocol == b"h2":
            self.side.receive(data)
        if all(self.statuses):
            self._done(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = True
        self._done(self)


async def visit(host: str, port: int, want: int, ca: bytes, jwt: bytes, client: Issued | None = None) -> Visitor:
    """Connects, pushes `want` times at once, and comes back when all is answered or the connection has ended."""
    found: Deferred[Visitor] = Deferred()
    visitor = Visitor(want, jwt, lambda visitor: None if found.called else found.callback(visitor))
    options = ssl.optionsForClientTLS(
        "localhost",
        trustRoot=ssl.Certificate.loadPEM(ca),
        clientCertificate=None if client is None else ssl.PrivateCertificate.loadPEM(client.certificate_pem + client.key_pem),
        acceptableProtocols=[b"h2"],
    )
    endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, host, port))
    await endpoint.connect(Factory.forProtocol(lambda: visitor))
    return await found
