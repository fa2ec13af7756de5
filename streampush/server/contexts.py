"""The server's TLS settings, built from files and rebuilt as a whole on reload.

A context is never changed once connections use it: `reload` builds a new one and swaps. Connections that are open keep theirs.
The new context has new ticket keys, so a session that was made before a reload (perhaps under a CA that is gone) cannot be
resumed after it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from streampush.config import Config, RestConfig, TlsConfig
from streampush.config_files import check_files
from streampush.errors import ConfigError
from streampush.server.handshake import note_verification

# TLS 1.2 only: forward secrecy and authenticated encryption; TLS 1.3 has nothing else
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"

_SESSION_CONTEXT: Final = b"streampush"

_OPTIONS: Final = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE

_MINIMUM: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


class TlsContexts:
    """The context for new connections, `current`. `file` is the configuration file, for messages.

    Raises ConfigError naming file, key and path, from the constructor and from `reload`.
    """

    __slots__ = ("_file", "_tls", "current")

    def __init__(self, tls: TlsConfig, file: str) -> None:
        self._tls = tls
        self._file = file
        self.current = _build(tls, file)

    def reload(self, tls: TlsConfig | None = None) -> None:
        """Reads all files anew, with new settings if they are given; the old context stays in force if anything is wrong.

        Blocks for a few small files on the local disk.
        """
        tls = tls or self._tls
        self.current = _build(tls, self._file)
        self._tls = tls


def _build(tls: TlsConfig, file: str) -> SSL.Context:
    for key in ("certificate", "key", "client_ca"):
        if not getattr(tls, key):
            raise ConfigError(file, f"tls.{key}", "is missing: the path of a PEM file")
    only_these = replace(tls, crl="", deny_list="")
    for problem in check_files(Config(file=file, tls=only_these, rest=RestConfig(enabled=False))):
        if problem.severity == "error":
            raise ConfigError(file, problem.key, problem.text)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_MINIMUM[tls.minimum])
    context.set_cipher_list(_CIPHERS)
    context.set_options(_OPTIONS)
    # an idle connection keeps no 16 KiB buffers, which is most of its memory
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    _set_resumption(context, tls)
    _load_own(context, tls, file)
    _load_authorities(context, tls, file)
    return context


def _set_resumption(context: SSL.Context, tls: TlsConfig) -> None:
    context.set_session_id(_SESSION_CONTEXT)
    # tickets keep the session at the client: nothing to store here, nothing to share
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_timeout(max(1, int(tls.session_lifetime)))
    if not tls.resumption:
        context.set_options(SSL.OP_NO_TICKET)


def _load_own(context: SSL.Context, tls: TlsConfig, file: str) -> None:
    try:
        own, *chain = x509.load_pem_x509_certificates(Path(tls.certificate).read_bytes())
        context.use_certificate(own)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
    except (OSError, ValueError, SSL.Error) as error:
        raise ConfigError(file, "tls.certificate", f"{tls.certificate} cannot be used as a server certificate") from error
    try:
        key = serialization.load_pem_private_key(Path(tls.key).read_bytes(), None)
        context.use_privatekey(key)  # type: ignore[arg-type]  # a kind of key that TLS has no use for raises TypeError
        context.check_privatekey()
    except (OSError, ValueError, TypeError, SSL.Error) as error:
        raise ConfigError(file, "tls.key", f"{tls.key} cannot be used as the private key of {tls.certificate}") from error


def _load_authorities(context: SSL.Context, tls: TlsConfig, file: str) -> None:
    try:
        authorities = x509.load_pem_x509_certificates(Path(tls.client_ca).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(file, "tls.client_ca", f"{tls.client_ca} holds no PEM certificate that can be read") from error
    store = context.get_cert_store()
    if store is None:
        raise ConfigError(file, "tls.client_ca", "OpenSSL gave no certificate store")
    # a site that trusts only its intermediate CA need not trust the root above it
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, note_verification)
