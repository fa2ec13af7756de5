"""TLS of the HTTP API: certificate with its chain, read again on demand without dropping a connection."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, TLSVersion
from zope.interface import implementer

from streampush.config import RestConfig
from streampush.errors import ConfigError


@implementer(IOpenSSLContextFactory)
class RestTls:
    """A context factory for `listenSSL`. New connections get the certificate that was read last; open ones keep theirs.

    Raises ConfigError, naming `file` and the key, if certificate or key cannot be used.
    """

    def __init__(self, rest: RestConfig, file: str) -> None:
        self._rest = rest
        self._file = file
        self._context = self._read()

    def getContext(self) -> SSL.Context:
        """Asked by Twisted for each connection."""
        return self._context

    def reload(self) -> None:
        """Reads both files again. Raises ConfigError; then the old ones stay in force."""
        self._context = self._read()

    def _read(self) -> SSL.Context:
        rest = self._rest
        try:
            with open(rest.certificate, "rb") as file:
                chain = x509.load_pem_x509_certificates(file.read())
        except (OSError, ValueError) as error:
            raise ConfigError(self._file, "rest.certificate", f"{rest.certificate} cannot be read as PEM: {error}") from error
        try:
            with open(rest.key, "rb") as file:
                key = load_pem_private_key(file.read(), None)
            options = CertificateOptions(
                privateKey=crypto.PKey.from_cryptography_key(key),  # type: ignore[arg-type]  # raises TypeError for a kind it does not know
                certificate=crypto.X509.from_cryptography(chain[0]),
                extraCertChain=[crypto.X509.from_cryptography(certificate) for certificate in chain[1:]],
                raiseMinimumTo=TLSVersion.TLSv1_2,
            )
            context: SSL.Context = options.getContext()
            context.check_privatekey()
        except (OSError, ValueError, TypeError, SSL.Error) as error:
            raise ConfigError(self._file, "rest.key", f"{rest.key} cannot be used with {rest.certificate}") from error
        return context
