"""The naive Twisted broadcaster: how a push gateway is written in an afternoon, kept as the peer of every figure.

`Int32StringReceiver` over `CertificateOptions`, mutual TLS 1.3. The first byte of a string says what it is:

    N name                  a client says its name, is registered and answered "N"
    B payload               to all clients but the sender: "D" payload; answered "O"
    U name NUL payload      to one client: "D" payload; answered "O", or "X" if there is no such client
    A ...                   an acknowledgement: counted
    P                       a heartbeat (with --heartbeat), in either direction

No checksum, no log, no order, no limit, no recovery: a floor for what framing over Twisted's TLS costs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, TLSVersion, trustRootFromCertificates
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

MAX_STRING = 16 * 1024 * 1024


class NaiveConnection(Int32StringReceiver):
    MAX_LENGTH = MAX_STRING

    def __init__(self, clients: dict[bytes, NaiveConnection], clock: IReactorTime, heartbeat: float) -> None:
        self._clients = clients
        self._clock = clock
        self._heartbeat = heartbeat
        self._beat: IDelayedCall | None = None
        self.name = b""
        self.acknowledged = 0

    if TYPE_CHECKING:  # Twisted has no types for these
        transport: Any

        def sendString(self, string: bytes) -> None: ...

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        if self._heartbeat:
            self._beat = self._clock.callLater(self._heartbeat, self._ping)

    def _ping(self) -> None:
        self.sendString(b"P")
        self._beat = self._clock.callLater(self._heartbeat, self._ping)

    def stringReceived(self, string: bytes) -> None:
        kind = string[:1]
        if kind == b"B":
            message = b"D" + string[1:]
            for client in self._clients.values():
                if client is not self:
                    client.sendString(message)
            self.sendString(b"O")
        elif kind == b"U":
            name, _, payload = string[1:].partition(b"\0")
            addressee = self._clients.get(name)
            if addressee is not None:
                addressee.sendString(b"D" + payload)
            self.sendString(b"X" if addressee is None else b"O")
        elif kind == b"A":
            self.acknowledged += 1
        elif kind == b"N":
            self.name = string[1:]
            self._clients[self.name] = self
            self.sendString(b"N")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._clients.get(self.name) is self:
            del self._clients[self.name]


class NaiveFactory(Factory):
    noisy = False

    def __init__(self, clock: IReactorTime, heartbeat: float) -> None:
        self._clock = clock
        self._heartbeat = heartbeat
        self._clients: dict[bytes, NaiveConnection] = {}

    def buildProtocol(self, addr: object) -> NaiveConnection:
        return NaiveConnection(self._clients, self._clock, self._heartbeat)


def tls_options(ca: Path, certificate: Path, key: Path, *, sessions: bool) -> CertificateOptions:
    """Mutual TLS 1.3. Without `sessions` as Twisted's defaults are: no session can be resumed."""
    read_own: Any = PrivateCertificate.loadPEM  # no types in Twisted, for these three
    read_authority: Any = Certificate.loadPEM
    trust: Any = trustRootFromCertificates
    own = read_own(certificate.read_bytes() + key.read_bytes())
    return CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        trustRoot=trust([read_authority(ca.read_bytes())]),
        raiseMinimumTo=TLSVersion.TLSv1_3,
        enableSessions=sessions,
        enableSessionTickets=sessions,
    )


def main(arguments: list[str] | None = None) -> None:
    """Serves until killed; the first line of stdout is the port."""
    parser = argparse.ArgumentParser(prog="python -m bench.naive", description="The naive Twisted broadcaster.")
    parser.add_argument("--ca", type=Path, required=True, help="CA of the clients' certificates, PEM")
    parser.add_argument("--certificate", type=Path, required=True, help="server certificate, PEM")
    parser.add_argument("--key", type=Path, required=True, help="its key, PEM")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--backlog", type=int, default=1024)
    parser.add_argument("--heartbeat", type=float, default=0.0, help="seconds between pings to each client; 0: none")
    parser.add_argument("--sessions", action="store_true", help="let clients resume TLS sessions; not Twisted's default")
    options = parser.parse_args(arguments)
    tls = tls_options(options.ca, options.certificate, options.key, sessions=options.sessions)
    factory = NaiveFactory(cast(IReactorTime, reactor), options.heartbeat)
    port = cast(Any, reactor).listenSSL(options.port, factory, tls, backlog=options.backlog, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
