"""What every TLS client needs: who it is and whom it trusts, from PEM; whether a server is the one it wanted; whose fault a failed
handshake is.

In TLS 1.3 a client's handshake is done before the server has looked at the client's certificate, so a refusal arrives as an alert
on the first read: `refuses_us` is to be asked wherever a connection ends.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.ssl import Certificate, trustRootFromCertificates

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


class UnusablePem(ValueError):
    """Says which part cannot be used and why, without a word of it."""


def own_options(certificate: bytes, key: bytes, *, whose: str = "") -> dict[str, object]:
    """For Twisted's CertificateOptions: a certificate, with its chain behind it, and its key. `whose` stands before the name of a
    part in errors, with a space. Raises UnusablePem."""
    chain = certificates(f"{whose}certificate", certificate)
    try:
        private = serialization.load_pem_private_key(key, None)
        theirs = chain[0].public_key()
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise UnusablePem(f"{whose}key: no unencrypted private key in PEM form") from error
    if theirs != private.public_key():
        raise UnusablePem(f"{whose}certificate and key do not belong together")
    return {"certificate": chain[0], "privateKey": private, "extraCertChain": chain[1:]}


def certificates(part: str, pem: bytes) -> list[x509.Certificate]:
    """One or more. Raises UnusablePem, which names the part."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusablePem(f"{part}: no certificate in PEM form") from error


def trust_in(part: str, pem: bytes) -> Any:
    """What Twisted takes as a trust root: these authorities and no other. Raises UnusablePem, which names the part."""
    authorities = [crypto.X509.from_cryptography(authority) for authority in certificates(part, pem)]
    # Twisted does not annotate these two.
    return trustRootFromCertificates([Certificate(one) for one in authorities])  # type: ignore[no-untyped-call]


def is_named(connection: SSL.Connection, host: str) -> bool:
    """Whether the server's certificate is valid for this host name or IP address.

    To be asked after every handshake. Twisted asks as well, but not of a resumed session, and it lets pass what service_identity
    cannot read: a certificate without any subjectAltName, or with a `urn:` name, such as a device's.
    """
    try:
        if isIPAddress(host) or isIPv6Address(host):
            verify_ip_address(connection, host)
        else:
            verify_hostname(connection, host.encode("idna").decode("ascii"))
    except (VerificationError, CertificateError, ValueError):  # ValueError: names that service_identity cannot read
        return False
    return True


def is_wrong_name(error: BaseException | None) -> bool:
    """Whether the handshake was ended because of the name in the server's certificate."""
    return isinstance(error, VerificationError | CertificateError)


def openssl_reasons(error: BaseException | None) -> list[str]:
    """What OpenSSL says of an error of its own; nothing of any other."""
    if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list):
        return []
    return [text for _, _, text in error.args[0]]


def is_untrusted(reason: str) -> bool:
    """Whether this reason of OpenSSL's is that no authority that we trust stands for the server, or its certificate has expired."""
    return "certificate verify failed" in reason


def refuses_us(reason: str) -> bool:
    """Whether this reason of OpenSSL's is that the server takes our certificate for none of those that it lets in."""
    return any(refusal in reason for refusal in _REFUSALS)
