"""TLS to a server that speaks HTTP/2: whom we trust, who we are, and what a failed handshake means.

In TLS 1.3 our handshake is done before the server has looked at our certificate, so a refusal arrives as an alert on the first
read; `explain` knows it wherever it comes.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, ITransport
from twisted.internet.ssl import Certificate, TLSVersion, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from streampush.apns.errors import BadCredential
from streampush.apns.link_state import LinkEnd

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
"""OpenSSL's names of the alerts that refuse a client certificate: RFC 8446 section 6.2."""

NO_HTTP2 = "the server does not speak HTTP/2 (ALPN)"


class ClientCredential:
    """A certificate for TLS, with its chain behind it, and its key; both in PEM. Raises BadCredential, without a word of either."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        chain = _certificates("client certificate", certificate)
        private = _private_key(key)
        if chain[0].public_key() != private.public_key():
            raise BadCredential("client certificate and key do not belong together")
        self.not_after = chain[0].not_valid_after_utc
        self._options = {"certificate": chain[0], "privateKey": private, "extraCertChain": chain[1:]}

    @classmethod
    def from_files(cls, certificate: Path | str, key: Path | str) -> ClientCredential:
        """The same from files. Raises BadCredential, which names the file that cannot be read."""
        return cls(_read(certificate), _read(key))

    @property
    def options(self) -> dict[str, object]:
        """For Twisted's CertificateOptions; a new dictionary, because it writes into it."""
        return dict(self._options)


class Http2Tls:
    """TLS 1.2 or later (RFC 9113 section 9.2) with ALPN `h2`, to one host.

    `host`: what the server's certificate must name, a host name or an IP address. `trust`: certificates of the authorities in PEM;
    None: those of the platform. Raises BadCredential.
    """

    def __init__(self, host: str, credential: ClientCredential | None = None, trust: bytes | None = None) -> None:
        self._host = host
        options: dict[str, object] = credential.options if credential is not None else {}
        options["raiseMinimumTo"] = TLSVersion.TLSv1_2
        roots = None
        if trust is not None:
            authorities = [crypto.X509.from_cryptography(one) for one in _certificates("trust", trust)]
            # Twisted does not annotate these two.
            roots = trustRootFromCertificates([Certificate(one) for one in authorities])  # type: ignore[no-untyped-call]
        try:
            self.creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
                host, roots, acceptableProtocols=[b"h2"], extraCertificateOptions=options
            )
        except (ValueError, UnicodeError, SSL.Error) as error:
            raise BadCredential(f"TLS to {host!r} cannot be set up") from error

    def check(self, transport: ITransport) -> str | None:
        """After the handshake: why the server is not the one we wanted, or None.

        The name was looked at during the handshake, but there Twisted lets pass what service_identity cannot read, such as a
        certificate without any name.
        """
        get_handle = getattr(transport, "getHandle", None)
        connection = get_handle() if get_handle is not None else None
        if not isinstance(connection, SSL.Connection):
            return "not a TLS connection"
        try:
            if isIPAddress(self._host) or isIPv6Address(self._host):
                verify_ip_address(connection, self._host)
            else:
                verify_hostname(connection, self._host.encode("idna").decode("ascii"))
        except (VerificationError, CertificateError, ValueError):  # ValueError: names that service_identity cannot read
            return f"the server's certificate is not valid for {self._host}"
        if getattr(transport, "negotiatedProtocol", None) != b"h2":
            return NO_HTTP2
        return None

    def explain(self, reason: Failure) -> LinkEnd | None:
        """What the end of a connection says about TLS; None: nothing."""
        error = reason.value
        if isinstance(error, VerificationError | CertificateError):
            return LinkEnd(f"the server's certificate is not valid for {self._host}", permanent=True)
        if not isinstance(error, SSL.Error):
            return None
        found = error.args[0] if error.args and isinstance(error.args[0], list) else []
        for _, _, text in found:
            if "certificate verify failed" in text:
                return LinkEnd("the server's certificate is not trusted, or has expired", permanent=True)
            if "alert no application protocol" in text:
                return LinkEnd(NO_HTTP2, permanent=True)
            if any(refusal in text for refusal in _REFUSALS):
                return LinkEnd(f"the server refused our certificate: {text}", permanent=True)
        return LinkEnd("the TLS handshake failed: " + (found[0][2] if found else type(error).__name__))


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadCredential(f"{path} cannot be read: {error.strerror}") from error


def _certificates(what: str, pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise BadCredential(f"{what}: no certificate in PEM") from error
    return found


def _private_key(pem: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise BadCredential("client key: not a key in PEM without a passphrase") from error
