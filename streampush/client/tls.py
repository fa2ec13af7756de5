"""TLS of the client: who we are, whom we trust, and what a failed handshake means.

In TLS 1.3 a client's handshake is done before the server has looked at the client's certificate, so a refusal arrives as an
alert on the first read. `explain` knows it wherever it comes.

A resumed session skips the verification of the chain and, in Twisted, the callback that checks the name. Only sessions of
connections that were greeted are kept, each is used once (RFC 8446 appendix C.4), and `check` looks at the name after every
handshake. It is also the one that refuses what Twisted 26.10 only logs: a certificate without any subjectAltName, and one with
a `urn:` name, such as a device's, which service_identity cannot read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.ssl import Certificate, TLSVersion, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.client.errors import CredentialsError

Address: TypeAlias = tuple[str, int]
"""A host name or IP address, and a port."""

CONNECT_TIMEOUT = 10.0
"""Seconds for name resolution and TCP; the handshake has its own deadline."""

_REFUSALS = (
    "alert bad certificate",
    "alert unsupported certificate",
    "alert certificate revoked",
    "alert certificate expired",
    "alert certificate unknown",
    "alert certificate required",
    "alert unknown ca",
    "alert access denied",
    "alert handshake failure",
)
"""OpenSSL's names of the alerts that refuse a client certificate: RFC 8446 section 6.2, docs/protocol.md section 2."""


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
        authorities = [crypto.X509.from_cryptography(authority) for authority in _certificates("CA", ca)]
        # Twisted does not annotate these two.
        self._trust = trustRootFromCertificates([Certificate(one) for one in authorities])  # type: ignore[no-untyped-call]
        self._extra: dict[str, object] = {"enableSessionTickets": resume_sessions, "raiseMinimumTo": TLSVersion.TLSv1_2}
        if (certificate is None) != (key is None):
            raise CredentialsError("a certificate needs its key, and a key its certificate")
        if certificate is not None and key is not None:
            self._identify(_certificates("certificate", certificate), _private_key(key))
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

    def _identify(self, chain: list[x509.Certificate], key: PrivateKeyTypes) -> None:
        if chain[0].public_key() != key.public_key():
            raise CredentialsError("certificate and key do not belong together")
        self._extra.update(certificate=chain[0], privateKey=key, extraCertChain=chain[1:])

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
        try:
            if isIPAddress(name) or isIPv6Address(name):
                verify_ip_address(connection, name)
            else:
                verify_hostname(connection, name.encode("idna").decode("ascii"))
        except (VerificationError, CertificateError, ValueError):  # ValueError: service_identity on a urn: in the certificate
            return f"the server's certificate is not valid for {name}"
        return None

    def remember(self, address: Address, transport: ITransport) -> None:
        connection = _connection(transport) if self._resume_sessions else None
        session = connection.get_session() if connection is not None else None
        if session is not None:
            self._sessions[address] = session

    def explain(self, reason: Failure) -> str | None:
        error = reason.value
        if isinstance(error, VerificationError | CertificateError):
            return "the server's certificate is not valid for its name"
        if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list):
            return None
        for _, _, text in error.args[0]:
            if "certificate verify failed" in text:
                return "the server's certificate is not trusted"
            if any(refusal in text for refusal in _REFUSALS):
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


def _certificates(part: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CredentialsError(f"{part}: no certificate in PEM form") from error


def _private_key(pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise CredentialsError("key: no unencrypted private key in PEM form") from error
