"""The simulated Apple on a port: Twisted, TLS with ALPN.

`AppleProtocol` also runs over any transport without TLS, such as a test's in-memory one, on a fake clock.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.apns.simulator.apple import SimulatedApple
from streampush.apns.simulator.connection import AppleConnection, Ending

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a client has to take what is left and close; then the connection is reset."""


@implementer(IHandshakeListener, IPushProducer)
class AppleProtocol(Protocol):
    """One connection over a transport. `clock`: the time of the connection."""

    def __init__(self, clock: IReactorTime, connection: AppleConnection) -> None:
        self.connection = connection
        self.lost: Deferred[None] = Deferred()
        """Fires when the transport is gone."""
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._closing = False
        self._full = False  # the transport has enough to write

    # ----------------------------------------------------------------------------------------------------------- for the transport

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._settle()

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        peer = transport.getPeerCertificate()
        if peer is not None:
            self.connection.show_certificate(certificate_topics(peer.to_cryptography()))

    def dataReceived(self, data: bytes) -> None:
        self.connection.receive(data, self._clock.seconds())
        self._settle()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_call()
        self._closing = True
        self.lost.callback(None)

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self._settle()

    def stopProducing(self) -> None:
        self._full = True

    # -------------------------------------------------------------------------------------------------------------- for the factory

    def abort(self) -> None:
        """Resets the connection."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    # --------------------------------------------------------------------------------------------------------------------- its work

    def _settle(self) -> None:
        """After everything that happened: writes, ends, and comes again when something is due."""
        if self._closing:
            return
        transport: Any = self.transport
        if not self._full:
            data = self.connection.outbound()
            if data:
                transport.write(data)
        if not self.connection.reading:
            transport.pauseProducing()
        if self.connection.ending is not None:
            self._end(self.connection.ending)
        else:
            self._schedule()

    def _end(self, ending: Ending) -> None:
        self._stop_call()
        self._closing = True
        transport: Any = self.transport
        if ending is Ending.RESET:
            transport.abortConnection()
            return
        transport.write(self.connection.outbound())
        transport.unregisterProducer()
        transport.loseConnection()
        self._call = self._clock.callLater(CLOSE_TIMEOUT, self.abort)

    def _schedule(self) -> None:
        deadline = self.connection.deadline
        self._stop_call()
        if deadline is not None:
            self._call = self._clock.callLater(max(deadline - self._clock.seconds(), 0.0), self._due)

    def _due(self) -> None:
        self._call = None
        self.connection.tick(self._clock.seconds())
        self._settle()

    def _stop_call(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


class AppleFactory(Factory):
    """Makes a protocol for every connection, and knows those that are open."""

    noisy = False

    def __init__(self, clock: IReactorTime, apple: SimulatedApple) -> None:
        self.open: set[AppleProtocol] = set()
        self._clock = clock
        self._apple = apple

    def buildProtocol(self, addr: object) -> AppleProtocol:
        protocol = AppleProtocol(self._clock, self._apple.connect(self._clock.seconds()))
        protocol.factory = self
        self.open.add(protocol)
        protocol.lost.addCallback(lambda _: self.open.discard(protocol))
        return protocol


@implementer(IOpenSSLServerConnectionCreator)
class AppleContexts:
    """TLS as Apple has it: 1.2 or newer, ALPN `h2`, a client certificate if the client has one and `client_ca` is given.

    All in PEM; `key` is secret. Raises ValueError for what cannot be read or does not belong together.
    """

    def __init__(self, certificate: bytes, key: bytes, client_ca: bytes = b"") -> None:
        self._http2 = _context(certificate, key, client_ca)
        self._http2.set_alpn_select_callback(_select_h2)
        self._http1 = _context(certificate, key, client_ca)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        wrapped = protocol.wrappedProtocol
        speaks_http2 = not isinstance(wrapped, AppleProtocol) or wrapped.connection.speaks_http2
        return SSL.Connection(self._http2 if speaks_http2 else self._http1, None)


def _select_h2(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return b"h2" if b"h2" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _context(certificate: bytes, key: bytes, client_ca: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    try:
        own, *chain = x509.load_pem_x509_certificates(certificate)
        context.use_certificate(own)
        for link in chain:
            context.add_extra_chain_cert(link)
        context.use_privatekey(serialization.load_pem_private_key(key, None))  # type: ignore[arg-type]  # others raise TypeError
        context.check_privatekey()
    except (TypeError, ValueError, SSL.Error) as error:
        raise ValueError("certificate and key cannot be used for a TLS server") from error
    if client_ca:
        store = context.get_cert_store()
        for authority in x509.load_pem_x509_certificates(client_ca):
            if store is not None:
                store.add_cert(crypto.X509.from_cryptography(authority))
        context.set_verify(SSL.VERIFY_PEER, lambda connection, peer, number, depth, good: bool(good))
    return context


def certificate_topics(certificate: x509.Certificate) -> tuple[str, ...]:
    """The bundle ids that a provider's certificate is for: the user ids of its subject, where Apple writes them."""
    return tuple(str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.USER_ID))


class AppleServer:
    """The simulator on a port. `listen` makes it."""

    def __init__(self, port: IListeningPort, factory: AppleFactory) -> None:
        self._port = port
        self._factory = factory

    @property
    def host(self) -> str:
        """The address that is listened on."""
        return str(self._port.getHost().host)  # type: ignore[attr-defined]  # IAddress of TCP has it

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._port.getHost().port)  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Stops listening and resets what is open."""
        await _as_deferred(self._port.stopListening())
        open_now = list(self._factory.open)
        for protocol in open_now:
            protocol.abort()
        await DeferredList([protocol.lost for protocol in open_now])


def _as_deferred(value: Deferred[None] | None) -> Deferred[None]:
    if value is not None:
        return value
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done


def listen(
    reactor: Any,
    apple: SimulatedApple,
    *,
    certificate: bytes,
    key: bytes,
    client_ca: bytes = b"",
    host: str = "127.0.0.1",
    port: int = 0,
) -> AppleServer:
    """Listens with TLS; port 0: one of the kernel's choice. `certificate`, `key` and `client_ca` in PEM, see AppleContexts.

    `reactor`: IReactorTCP and IReactorTime. Raises CannotListenError, ValueError.
    """
    factory = AppleFactory(reactor, apple)
    tls = TLSMemoryBIOFactory(AppleContexts(certificate, key, client_ca), False, factory)
    return AppleServer(reactor.listenTCP(port, tls, interface=host), factory)
