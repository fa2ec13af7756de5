"""A server on loopback made of the rooms under test, and clients of Twisted's and of plain sockets to try it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from cryptography.x509 import Certificate
from OpenSSL import SSL, crypto
from twisted.internet import defer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from streampush.cli.pki import CertificateAuthority, Issued
from streampush.config import AdmissionConfig, ListenConfig, TlsConfig
from streampush.server.admission import Admission
from streampush.server.contexts import TlsContexts
from streampush.server.flusher import WriteFlusher
from streampush.server.listener import StreamPort
from streampush.server.socket_set import make_socket_set
from streampush.server.stream import Address
from streampush.server.transport import TlsTransport


class Recorder:
    """A StreamProtocol that notes what it is told; `on` maps an event to what to do then."""

    def __init__(self, door: Admission, peer: Address) -> None:
        self._door = door
        self.peer = peer
        self.transport: TlsTransport
        self.events: list[tuple[Any, ...]] = []
        self.received = bytearray()
        self.on: dict[str, Callable[[Recorder], object]] = {}
        self._waiting: dict[str, list[defer.Deferred[Recorder]]] = {}

    def makeConnection(self, transport: TlsTransport) -> None:
        self.transport = transport
        self._happened("made")

    def handshakeCompleted(self) -> None:
        self._door.handshake_done(self.peer.host)
        self._happened("completed")

    def handshakeFailed(self, result: str, detail: str) -> None:
        self._door.handshake_done(self.peer.host)
        self._happened("failed", str(result), detail)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._happened("data", len(data))

    def roomAgain(self) -> None:
        self._happened("room")

    def connectionLost(self, reason: Failure) -> None:
        self._door.released(self.peer.host)
        self._happened("lost", reason.type.__name__)  # type: ignore[union-attr]

    @property
    def names(self) -> list[str]:
        """The names of the events, data left out."""
        return [event[0] for event in self.events if event[0] != "data"]

    def wait(self, name: str) -> defer.Deferred[Recorder]:
        """Fires when the event has happened."""
        if any(event[0] == name for event in self.events):
            return defer.succeed(self)
        waiter: defer.Deferred[Recorder] = defer.Deferred()
        self._waiting.setdefault(name, []).append(waiter)
        return waiter

    def wait_bytes(self, count: int) -> defer.Deferred[Recorder]:
        """Fires when so many bytes have come."""
        done: defer.Deferred[Recorder] = defer.Deferred()
        chain = self.on.get("data")

        def look(recorder: Recorder) -> None:
            if chain is not None:
                chain(recorder)
            if len(recorder.received) >= count and not done.called:
                done.callback(recorder)

        self.on["data"] = look
        if len(self.received) >= count:
            done.callback(self)
        return done

    def _happened(self, *event: Any) -> None:
        self.events.append(event)
        if event[0] in self.on:
            self.on[event[0]](self)
        for waiter in self._waiting.pop(event[0], []):
            waiter.callback(self)


class Refusals:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.checks = 0

    def refused_connection(self, reason: str) -> None:
        self.reasons.append(reason)

    def proxy_check(self) -> None:
        self.checks += 1


class TlsServer:
    """`accepted` holds the protocols in order; `prepare` is called with each new one."""

    def __init__(
        self,
        reactor: Any,
        tls: TlsConfig,
        *,
        admission: Admission | None = None,
        high_water: int = 65536,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: ListenConfig | None = None,
        prepare: Callable[[Recorder], object] = lambda protocol: None,
    ) -> None:
        self.reactor = reactor
        self.admission = admission or Admission(AdmissionConfig(), 1000)
        self.contexts = TlsContexts(tls, "streampush.toml")
        self.flusher = WriteFlusher(lambda call: reactor.callLater(0, call))
        self.metrics = Refusals()
        self.accepted: list[Recorder] = []
        self.prepare = prepare
        self._waiting: list[defer.Deferred[Recorder]] = []
        self.sockets = make_socket_set(reactor)
        self.port = StreamPort(
            reactor,
            listen or ListenConfig(address=address, port=port),
            sockets=self.sockets,
            admission=self.admission,
            contexts=self.contexts,
            protocol_factory=self._make,
            telling_factory=lambda peer, reason: self._make(peer),
            flusher=self.flusher,
            metrics=self.metrics,
            high_water=high_water,
        )
        self.port.startListening()

    @property
    def address(self) -> tuple[str, int]:
        host = self.port.getHost()
        return host.host, host.port

    def _make(self, peer: Address) -> Recorder:
        protocol = Recorder(self.admission, peer)
        self.prepare(protocol)
        self.accepted.append(protocol)
        waiting, self._waiting = self._waiting, []
        self.reactor.callLater(0, lambda: [waiter.callback(protocol) for waiter in waiting])
        return protocol

    def next_protocol(self) -> defer.Deferred[Recorder]:
        """The next one that is accepted."""
        waiter: defer.Deferred[Recorder] = defer.Deferred()
        self._waiting.append(waiter)
        return waiter

    async def stop(self) -> None:
        """Ends everything and waits until it is over."""
        await self.port.stopListening()
        for protocol in self.accepted:
            if hasattr(protocol, "transport"):
                protocol.transport.abort()
                await protocol.wait("lost")


def client_context(
    authority: CertificateAuthority,
    issued: Issued | None,
    *,
    version: int | None = None,
    chain: tuple[Certificate, ...] = (),
) -> SSL.Context:
    """A client's context that trusts `authority`; `version` pins the protocol's version."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if issued is not None:
        context.use_certificate(issued.certificate)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(issued.key)
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(authority.issued.certificate))
    context.set_verify(SSL.VERIFY_PEER)
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    return context


class Client:
    """A TLS client on a non-blocking socket, stepped by the reactor: what it reads is in `received`. `greeting` goes before TLS."""

    def __init__(
        self,
        reactor: Any,
        address: tuple[str, int],
        context: SSL.Context,
        session: SSL.Session | None = None,
        greeting: bytes = b"",
    ) -> None:
        self._reactor = reactor
        self.received = bytearray()
        self.error: SSL.Error | OSError | None = None  # what ended it, None: the server's close_notify
        self.connected: defer.Deferred[Client] = defer.Deferred()
        self.closed: defer.Deferred[Client] = defer.Deferred()
        self._waiting: list[tuple[int, defer.Deferred[Client]]] = []
        self._handshaking = True
        self._unsent = b""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.connect(address)
        self.sock.sendall(greeting)
        self.sock.setblocking(False)
        self.tls = SSL.Connection(context, self.sock)
        self.tls.set_connect_state()
        if session is not None:
            self.tls.set_session(session)
        self.on_read: Callable[[int], object] = lambda size: None
        reactor.addReader(self)
        self.doRead()

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:
        return "client"

    def connectionLost(self, reason: Failure) -> None:
        self._end(None)

    def pause(self) -> None:
        self._reactor.removeReader(self)

    def resume(self) -> None:
        self._reactor.addReader(self)

    def write(self, data: bytes) -> None:
        self._unsent += data
        self.doWrite()

    def doWrite(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.tls.send(self._unsent) :]
        except SSL.WantWriteError:
            self._reactor.addWriter(self)
        except SSL.Error as error:
            self._end(error)
        else:
            self._reactor.removeWriter(self)

    def doRead(self) -> None:
        try:
            if self._handshaking:
                self.tls.do_handshake()
                self._handshaking = False
                self.connected.callback(self)
            while self.sock.fileno() != -1:
                data = self.tls.recv(65536)
                self.received += data
                self.on_read(len(data))
                for count, waiter in self._waiting[:]:
                    if len(self.received) >= count:
                        self._waiting.remove((count, waiter))
                        waiter.callback(self)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._end(None)
        except SSL.Error as error:
            self._end(error)

    def wait_bytes(self, count: int) -> defer.Deferred[Client]:
        waiter: defer.Deferred[Client] = defer.Deferred()
        if len(self.received) >= count:
            waiter.callback(self)
        else:
            self._waiting.append((count, waiter))
        return waiter

    def close(self) -> None:
        """close_notify and FIN; ends with the server's."""
        with contextlib.suppress(SSL.Error):
            self.tls.shutdown()
        self.sock.shutdown(socket.SHUT_WR)

    def drop(self, *, reset: bool = False) -> None:
        """FIN without close_notify, or a reset."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._end(None)

    def _end(self, error: SSL.Error | OSError | None) -> None:
        if self.sock.fileno() == -1:
            return
        self.error = error
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self.sock.close()
        self.closed.callback(self)
        if self._handshaking:
            self._handshaking = False
            self.connected.callback(self)


class PlainClient(Protocol):
    """Sends bytes that are not TLS, keeps what comes back."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.received = b""
        self.lost: defer.Deferred[str] = defer.Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.greeting)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.callback(reason.type.__name__)  # type: ignore[union-attr]

    @classmethod
    def factory(cls, greeting: bytes) -> Factory:
        return Factory.forProtocol(lambda: cls(greeting))  # type: ignore[arg-type]
