"""What became of a TLS handshake, in the few words that operators count by.

OpenSSL says in an exception *that* the client's certificate was not accepted, and only to the verification callback *why*.
`note_verification` leaves it in the connection's application data, `classify` puts both together. As a resumed session verifies
nothing, data that is still empty after the handshake tells a resumed session (pyOpenSSL has no public question for it).
"""

from __future__ import annotations

import enum
from typing import Final

from OpenSSL import SSL, crypto

_V = SSL.X509VerificationCodes


class HandshakeResult(enum.StrEnum):
    """Why a handshake failed; also the label of the metric."""

    NO_CERTIFICATE = "no_certificate"
    UNKNOWN_CA = "unknown_ca"
    EXPIRED = "expired"
    REVOKED = "revoked"
    BAD_CERTIFICATE = "bad_certificate"
    NOT_TLS = "not_tls"
    TLS_ERROR = "tls_error"
    TIMEOUT = "timeout"
    ABORTED = "aborted"


_FAULTS: Final = {
    _V.ERR_CERT_HAS_EXPIRED: (HandshakeResult.EXPIRED, "certificate has expired"),
    _V.ERR_CERT_NOT_YET_VALID: (HandshakeResult.EXPIRED, "certificate is not valid yet"),
    _V.ERR_CERT_REVOKED: (HandshakeResult.REVOKED, "certificate is revoked"),
    _V.ERR_UNABLE_TO_GET_ISSUER_CERT: (HandshakeResult.UNKNOWN_CA, "issuer is unknown"),
    _V.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: (HandshakeResult.UNKNOWN_CA, "issuer is unknown"),
    _V.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: (HandshakeResult.UNKNOWN_CA, "issuer is unknown"),
    _V.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: (HandshakeResult.UNKNOWN_CA, "certificate is self-signed"),
    _V.ERR_SELF_SIGNED_CERT_IN_CHAIN: (HandshakeResult.UNKNOWN_CA, "root of the chain is not trusted"),
    _V.ERR_CERT_UNTRUSTED: (HandshakeResult.UNKNOWN_CA, "issuer is not trusted"),
    _V.ERR_CERT_SIGNATURE_FAILURE: (HandshakeResult.BAD_CERTIFICATE, "signature is wrong"),
    _V.ERR_INVALID_PURPOSE: (HandshakeResult.BAD_CERTIFICATE, "certificate is not for clients"),
}

# OpenSSL's words for a first record that is none
_NOT_TLS: Final = frozenset(
    (
        "http request",
        "https proxy request",
        "wrong version number",
        "wrong ssl version",
        "packet length too long",
        "record length mismatch",
        "unknown protocol",
        "bad record type",
        "unexpected message",
    )
)


def note_verification(connection: SSL.Connection, _certificate: crypto.X509, fault: int, _depth: int, good: int) -> bool:
    """The verification callback of every server context. Keeps the first fault, accepts what OpenSSL accepts."""
    if not connection.get_app_data():
        connection.set_app_data(0 if good else fault)
    return bool(good)


def was_resumed(connection: SSL.Connection) -> bool:
    """Whether a completed handshake verified no certificate, because it resumed a session."""
    return connection.get_app_data() is None


def classify(error: SSL.Error, connection: SSL.Connection) -> tuple[HandshakeResult, str]:
    """The result and a detail, in English and safe to log, for what `do_handshake` raised."""
    if isinstance(error, SSL.SysCallError | SSL.ZeroReturnError):
        return HandshakeResult.ABORTED, "the peer closed the connection"
    reasons = [entry[2] for entry in error.args[0]] if error.args else []
    detail = "; ".join(reasons)
    fault = connection.get_app_data()
    if fault:
        return _FAULTS.get(fault, (HandshakeResult.BAD_CERTIFICATE, f"certificate was not accepted, OpenSSL's fault {fault}"))
    if "peer did not return a certificate" in reasons:
        return HandshakeResult.NO_CERTIFICATE, detail
    if not _NOT_TLS.isdisjoint(reasons):
        return HandshakeResult.NOT_TLS, detail
    return HandshakeResult.TLS_ERROR, detail
