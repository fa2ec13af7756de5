from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from streampush.cli.pki import Issued
from streampush.config import TlsConfig
from streampush.errors import ConfigError
from streampush.server.contexts import TlsContexts
from tests.server.tls import client_context
from tests.support import DevelopmentFiles, authority, device_issued, make_files, server_issued, signed

FILE = "/etc/streampush.toml"


@pytest.fixture
def files(tmp_path: Path) -> DevelopmentFiles:
    return make_files(tmp_path)


@pytest.fixture
def tls(files: DevelopmentFiles) -> TlsConfig:
    return TlsConfig(certificate=str(files.server.certificate), key=str(files.server.key), client_ca=str(files.ca))


def handshake(server: SSL.Context, client: SSL.Context) -> tuple[SSL.Connection, SSL.Connection]:
    """Both ends of a handshake in memory. Raises SSL.Error of the first end that has one."""
    ends = SSL.Connection(server), SSL.Connection(client)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    for _ in range(8):
        for end, other in (ends, ends[::-1]):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    return ends


def refused(tls: TlsConfig, key: str) -> str:
    """The problem of the ConfigError that the settings give, which names file and key in one line."""
    with pytest.raises(ConfigError) as caught:
        TlsContexts(tls, FILE)
    assert (caught.value.file, caught.value.key) == (FILE, key)
    assert "\n" not in str(caught.value)
    return caught.value.problem


def test_context_asks_for_a_certificate_of_the_configured_authorities(tls: TlsConfig) -> None:
    server, client = handshake(TlsContexts(tls, FILE).current, client_context(authority(), device_issued("phone-1")))
    assert server.get_peer_certificate(as_cryptography=True) == device_issued("phone-1").certificate
    # TLS 1.3 asks in the same message that names the authorities
    assert [name.CN for name in client.get_client_ca_list()] == ["streampush test CA"]


def test_suites_of_tls_1_2_are_ecdhe_and_authenticated(tls: TlsConfig) -> None:
    context = TlsContexts(replace(tls, minimum="1.2"), FILE).current
    names = SSL.Connection(context).get_cipher_list()
    old = [name for name in names if not name.startswith("TLS_")]
    assert old
    assert all(name.startswith("ECDHE-") and ("GCM" in name or "CHACHA20" in name) for name in old)


def test_sessions_last_as_long_as_configured(tls: TlsConfig) -> None:
    assert TlsContexts(replace(tls, session_lifetime=90.5), FILE).current.get_timeout() == 90


def test_reload_makes_a_new_context(tls: TlsConfig) -> None:
    contexts = TlsContexts(tls, FILE)
    old = contexts.current
    contexts.reload()
    assert contexts.current is not old


def test_reload_with_a_broken_file_leaves_the_old_context_in_force(tls: TlsConfig) -> None:
    contexts = TlsContexts(tls, FILE)
    old = contexts.current
    Path(tls.certificate).write_text("-----BEGIN nothing")
    with pytest.raises(ConfigError, match=r"tls\.certificate"):
        contexts.reload()
    assert contexts.current is old
    handshake(contexts.current, client_context(authority(), device_issued("phone-1")))


def test_reload_takes_new_settings_and_keeps_them_only_if_they_are_good(tls: TlsConfig) -> None:
    contexts = TlsContexts(tls, FILE)
    with pytest.raises(ConfigError):
        contexts.reload(replace(tls, key="/nowhere"))
    contexts.reload()
    contexts.reload(replace(tls, session_lifetime=60.0))
    contexts.reload()
    assert contexts.current.get_timeout() == 60


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_setting_that_is_missing_is_named(tls: TlsConfig, key: str) -> None:
    assert "missing" in refused(replace(tls, **{key: ""}), f"tls.{key}")


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_file_that_is_not_there_is_named(tls: TlsConfig, key: str) -> None:
    assert "/nowhere/x.pem" in refused(replace(tls, **{key: "/nowhere/x.pem"}), f"tls.{key}")


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_file_that_is_not_pem_is_named(tls: TlsConfig, key: str) -> None:
    path = Path(getattr(tls, key))
    path.write_text("secret words that are not PEM")
    problem = refused(tls, f"tls.{key}")
    assert str(path) in problem
    assert "secret words" not in problem


def test_key_of_another_certificate_is_refused(tls: TlsConfig, files: DevelopmentFiles) -> None:
    other = files.device("phone-1").key
    assert str(other) in refused(replace(tls, key=str(other)), "tls.key")


def test_encrypted_key_is_refused(tls: TlsConfig) -> None:
    encryption = serialization.BestAvailableEncryption(b"passphrase")
    pem = server_issued().key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    Path(tls.key).write_bytes(pem)
    assert "encrypted" in refused(tls, "tls.key")


def test_expired_certificate_is_refused(tls: TlsConfig, files: DevelopmentFiles) -> None:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=9)
    expired = files.write("expired", authority().issue_device("old", days=1, start=start))
    problem = refused(replace(tls, certificate=str(expired.certificate), key=str(expired.key)), "tls.certificate")
    assert "expired" in problem


def test_chain_behind_the_certificate_is_sent(tls: TlsConfig) -> None:
    # one that is not in client_ca, from which OpenSSL would take it by itself
    behind = authority("the server's own CA").issued.certificate
    path = Path(tls.certificate)
    path.write_bytes(server_issued().certificate_pem + behind.public_bytes(serialization.Encoding.PEM))
    _, client = handshake(TlsContexts(tls, FILE).current, client_context(authority(), device_issued("phone-1")))
    chain = client.get_peer_cert_chain(as_cryptography=True)
    assert chain == [server_issued().certificate, behind]


def test_rsa_certificate_serves_as_well(tls: TlsConfig) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = signed([x509.NameAttribute(NameOID.COMMON_NAME, "rsa")], key.public_key(), hours=(-1.0, 60 * 24.0))
    Path(tls.certificate).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    Path(tls.key).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    _, client = handshake(TlsContexts(tls, FILE).current, client_context(authority(), device_issued("phone-1")))
    assert client.get_peer_certificate(as_cryptography=True) == certificate


def test_intermediate_authority_is_trusted_without_the_root_above_it(tls: TlsConfig) -> None:
    intermediate = authority("a CA whose issuer we do not have")
    root = authority("the root above")
    crossed = (
        x509.CertificateBuilder()
        .subject_name(intermediate.issued.certificate.subject)
        .issuer_name(root.issued.certificate.subject)
        .public_key(intermediate.issued.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(intermediate.issued.certificate.not_valid_before_utc)
        .not_valid_after(intermediate.issued.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root.issued.key, hashes.SHA256())
    )
    Path(tls.client_ca).write_bytes(Issued(crossed, intermediate.issued.key).certificate_pem)
    client = client_context(authority(), intermediate.issue_device("phone-1"))
    server, _ = handshake(TlsContexts(tls, FILE).current, client)
    assert server.get_peer_certificate(as_cryptography=True) is not None
