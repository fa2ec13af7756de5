"""TLS of the client: who we are, whom we trust, and what a failed handshake means.

A resumed session skips the verification of the chain and, in Twisted, the callback that checks the name. Only sessions of
connections that were greeted are kept, each is used once (RFC 8446 appendix C.4), and `check` looks at the name after every
handshake.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.client.errors import CredentialsError
from streampush.tls_clients import (
    UnusablePem,
    is_named,
    is_untrusted,
    is_wrong_name,
    openssl_reasons,
    own_options,
    refuses_us,
    trust_in,
)

Address: TypeAlias = tuple[str, int]
"""A host name or IP address, and a port."""

CONNECT_TIMEOUT = 10.0
"""Seconds for name resolution and TCP; the handshake has its own deadline."""


class Security(Protocol):
    """How a connection is made and secured. `ClientTls` is the real one; a test may give plain transports instead."""

    def connect(self, reactor: IReactorTime, address: Address, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connects; the protocol's `handshakeCompleted` says when it is secure."""

    def check(self, address: Address, transport: ITransport) -> str | None:
        """After each handshake: why the server is not the one we wanted, or None."""

    def remember(self, address: Address, transport: ITransport) -> None:
        """The server has greeted: what makes the next handshake cheaper may be kept."""

    def explain(self, reason: Failure) -> str | None:
        """What is wrong with the credentials, theirs or ours, or None if the connection ended for another reason."""


class ClientTls:
    """Mutual TLS, version 1.2 or later.

    `ca`, `certificate` (with its chain behind it) and `key` are PEM. Without certificate and key the client is anonymous, which
    a streampush server refuses. `server_name`: what the server's certificate must name, if not the host that is connected to.
    Raises CredentialsError.
    """

    def __init__(
        self,
        ca: bytes,
        certificate: bytes | None = None,
        key: bytes | None = None,
        *,
        server_name: str = "",
        resume_sessions: bool = True,
    ) -> None:
        self._extra: dict[str, object] = {"enableSessionTickets": resume_sessions, "raiseMinimumTo": TLSVersion.TLSv1_2}
        try:
            self._trust = trust_in("CA", ca)
            if certificate is not None and key is not None:
                self._extra.update(own_options(certificate, key))
        except UnusablePem as error:
            raise CredentialsError(str(error)) from error
        if (certificate is None) != (key is None):
            raise CredentialsError("a certificate needs its key, and a key its certificate")
        self._server_name = server_name
        self._resume_sessions = resume_sessions
        self._options: dict[str, IOpenSSLClientConnectionCreator] = {}
        self._sessions: dict[Address, SSL.Session] = {}

    @classmethod
    def from_files(
        cls,
        ca: Path | str,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        *,
        server_name: str = "",
        resume_sessions: bool = True,
    ) -> ClientTls:
        """The same from PEM files. Raises CredentialsError, which names the file that cannot be read."""
        read = [None if path is None else _read(path) for path in (certificate, key)]
        return cls(_read(ca), read[0], read[1], server_name=server_name, resume_sessions=resume_sessions)

    def connect(self, reactor: IReactorTime, address: Address, factory: IProtocolFactory) -> Deferred[IProtocol]:
        name = self._name(address)
        if name not in self._options:
            # Each call gets its own dictionary: Twisted writes into it.
            self._options[name] = optionsForClientTLS(name, self._trust, extraCertificateOptions=dict(self._extra))
        creator = _ResumingCreator(self._options[name], self._sessions.pop(address, None))
        tls_factory = TLSMemoryBIOFactory(creator, True, factory, clock=reactor)
        endpoint = HostnameEndpoint(reactor, address[0], address[1], timeout=CONNECT_TIMEOUT)
        connecting: Deferred[IProtocol] = endpoint.connect(tls_factory)
        return connecting

    def check(self, address: Address, transport: ITransport) -> str | None:
        connection = _connection(transport)
        if connection is None:
            return "not a TLS connection"
        name = self._name(address)
        if is_named(connection, name):
            return None
        return f"the server's certificate is not valid for {name}"

    def remember(self, address: Address, transport: ITransport) -> None:
        connection = _connection(transport) if self._resume_sessions else None
        session = connection.get_session() if connection is not None else None
        if session is not None:
            self._sessions[address] = session

    def explain(self, reason: Failure) -> str | None:
        error = reason.value
        if is_wrong_name(error):
            return "the server's certificate is not valid for its name"
        for text in openssl_reasons(error):
            if is_untrusted(text):
                return "the server's certificate is not trusted"
            if refuses_us(text):
                return f"the server refused our certificate: {text}"
        return None

    def _name(self, address: Address) -> str:
        return self._server_name or address[0]


@implementer(IOpenSSLClientConnectionCreator)
class _ResumingCreator:
    """Makes the connection of one attempt, offering a session if there is one."""

    def __init__(self, creator: IOpenSSLClientConnectionCreator, session: SSL.Session | None) -> None:
        self._creator = creator
        self._session = session

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        if self._session is not None:
            connection.set_session(self._session)
            self._session = None
        return connection


def _connection(transport: ITransport) -> SSL.Connection | None:
    if not isinstance(transport, TLSMemoryBIOProtocol):
        return None
    connection: SSL.Connection = transport.getHandle()  # type: ignore[no-untyped-call]  # Twisted does not annotate it
    return connection


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
