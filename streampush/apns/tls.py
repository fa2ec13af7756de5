"""TLS to a server that speaks HTTP/2: whom we trust, who we are, and what a failed handshake means."""

from __future__ import annotations

from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, ITransport
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.python.failure import Failure

from streampush.apns.errors import BadCredential
from streampush.apns.link_state import LinkEnd
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

NO_HTTP2 = "the server does not speak HTTP/2 (ALPN)"


class ClientCredential:
    """A certificate for TLS, with its chain behind it, and its key; both in PEM. Raises BadCredential, without a word of either."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        try:
            self._options = own_options(certificate, key, whose="client ")
        except UnusablePem as error:
            raise BadCredential(str(error)) from error

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
        try:
            roots = None if trust is None else trust_in("trust", trust)
        except UnusablePem as error:
            raise BadCredential(str(error)) from error
        try:
            self.creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
                host, roots, acceptableProtocols=[b"h2"], extraCertificateOptions=options
            )
        except (ValueError, UnicodeError, SSL.Error) as error:
            raise BadCredential(f"TLS to {host!r} cannot be set up") from error

    def check(self, transport: ITransport) -> str | None:
        """After the handshake: why the server is not the one we wanted, or None."""
        get_handle = getattr(transport, "getHandle", None)
        connection = get_handle() if get_handle is not None else None
        if not isinstance(connection, SSL.Connection):
            return "not a TLS connection"
        if not is_named(connection, self._host):
            return f"the server's certificate is not valid for {self._host}"
        if getattr(transport, "negotiatedProtocol", None) != b"h2":
            return NO_HTTP2
        return None

    def explain(self, reason: Failure) -> LinkEnd | None:
        """What the end of a connection says about TLS; None: nothing."""
        error = reason.value
        if is_wrong_name(error):
            return LinkEnd(f"the server's certificate is not valid for {self._host}", permanent=True)
        if not isinstance(error, SSL.Error):
            return None
        reasons = openssl_reasons(error)
        for text in reasons:
            if is_untrusted(text):
                return LinkEnd("the server's certificate is not trusted, or has expired", permanent=True)
            if "alert no application protocol" in text:
                return LinkEnd(NO_HTTP2, permanent=True)
            if refuses_us(text):
                return LinkEnd(f"the server refused our certificate: {text}", permanent=True)
        return LinkEnd("the TLS handshake failed: " + (reasons[0] if reasons else type(error).__name__))


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadCredential(f"{path} cannot be read: {error.strerror}") from error
