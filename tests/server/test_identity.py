from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from streampush.config import TlsConfig
from streampush.errors import ConfigError
from streampush.server.identity import Identity, IdentityError, Revocations, fingerprint_of, identify, valid_now
from tests.support import authority, device_issued, publisher_issued

FILE = "/etc/streampush.toml"
NOW = dt.datetime.now(dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*uris: str, names: tuple[str, ...] = ("cn",), san: bool = True) -> x509.Certificate:
    """Self-signed, with these URIs and common names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(77)
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
    )
    if san:
        alternatives: list[x509.GeneralName] = [x509.DNSName("device.example")]
        alternatives += [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(KEY, hashes.SHA256())


def refused(certificate: x509.Certificate, mode: str = "san_uri") -> str:
    with pytest.raises(IdentityError) as caught:
        identify(certificate, mode)
    return caught.value.reason


def test_device_of_a_user() -> None:
    issued = device_issued("phone-1", "alice").certificate
    assert identify(issued, "san_uri") == Identity(
        kind="device",
        name="phone-1",
        user_id="alice",
        fingerprint=issued.fingerprint(hashes.SHA256()).hex(),
        serial=issued.serial_number,
        not_after=issued.not_valid_after_utc,
    )


def test_device_without_a_user() -> None:
    assert identify(certificate("urn:streampush:device:sensor-1"), "san_uri").user_id == ""


def test_publisher() -> None:
    identity = identify(publisher_issued("backend").certificate, "san_uri")
    assert (identity.kind, identity.name, identity.user_id) == ("publisher", "backend", "")


def test_other_uris_do_not_matter() -> None:
    issued = certificate("https://example.com/", "urn:uuid:1234", "urn:streampush:device:a")
    assert identify(issued, "san_uri").name == "a"


def test_scheme_and_namespace_are_matched_without_regard_to_case() -> None:
    assert identify(certificate("URN:StreamPush:device:Phone"), "san_uri").name == "Phone"


@pytest.mark.parametrize(
    ("uris", "word"),
    [
        ((), "0 devices"),
        (("urn:streampush:user:alice",), "0 devices"),
        (("urn:streampush:device:a", "urn:streampush:device:b"), "2 devices"),
        (("urn:streampush:device:a", "urn:streampush:publisher:b"), "2 devices"),
        (("urn:streampush:device:a", "urn:streampush:user:b", "urn:streampush:user:c"), "2 users"),
        (("urn:streampush:publisher:a", "urn:streampush:user:b"), "1 users"),
        (("urn:streampush:device:a", "urn:streampush:usr:b"), "unknown kind"),
        (("urn:streampush:device:",), "device name"),
        (("urn:streampush:device:a:b",), "device name"),
        (("urn:streampush:device:a b",), "device name"),
        (("urn:streampush:device:a/b",), "device name"),
        (("urn:streampush:device:a*",), "device name"),
        (("urn:streampush:device:a%41",), "device name"),
        (("urn:streampush:device:a\n",), "device name"),
        (("urn:streampush:device:" + "a" * 129,), "device name"),
        (("urn:streampush:publisher:",), "publisher name"),
        (("urn:streampush:device:a", "urn:streampush:user:"), "user name"),
    ],
)
def test_names_that_are_no_identity(uris: tuple[str, ...], word: str) -> None:
    assert word in refused(certificate(*uris))


def test_longest_name_is_allowed() -> None:
    assert identify(certificate("urn:streampush:device:" + "a" * 128), "san_uri").name == "a" * 128


def test_certificate_without_alternative_names_is_refused() -> None:
    assert "no subject alternative name" in refused(certificate(san=False))


def test_common_name_is_a_device_without_a_user() -> None:
    identity = identify(certificate("urn:streampush:device:other", names=("phone-1",)), "common_name")
    assert (identity.kind, identity.name, identity.user_id) == ("device", "phone-1", "")


def test_common_name_of_a_publisher() -> None:
    identity = identify(certificate(names=("publisher:backend",)), "common_name")
    assert (identity.kind, identity.name) == ("publisher", "backend")


@pytest.mark.parametrize("names", [(), ("a", "b"), ("a:b",), ("publisher:",), ("publisher:a:b",), ("Jürgen",)])
def test_common_names_that_are_no_identity(names: tuple[str, ...]) -> None:
    refused(certificate(names=names), "common_name")


def test_no_part_of_the_certificate_is_in_the_reason() -> None:
    assert "hunter2" not in refused(certificate("urn:streampush:device:hunter2 !"))


@given(st.text(min_size=1, max_size=40))
def test_arbitrary_common_names_give_an_identity_or_a_reason(name: str) -> None:
    try:
        made = certificate(names=(name,), san=False)
    except ValueError:  # X.509 does not allow it
        return
    try:
        identity = identify(made, "common_name")
    except IdentityError:
        return
    assert name in (identity.name, f"publisher:{identity.name}")


def test_dates_of_the_certificate_are_looked_at() -> None:
    made = certificate()
    assert valid_now(made, NOW)
    assert not valid_now(made, NOW + dt.timedelta(days=2))
    assert not valid_now(made, NOW - dt.timedelta(days=2))


# ---------------------------------------------------------------------------------------------------------------- revocations


@pytest.fixture
def tls(tmp_path: Path) -> TlsConfig:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority().issued.certificate_pem)
    return TlsConfig(client_ca=str(ca))


def with_crl(tls: TlsConfig, tmp_path: Path, *pems: bytes) -> TlsConfig:
    path = tmp_path / "revoked.crl"
    path.write_bytes(b"\n".join(pems))
    return replace(tls, crl=str(path))


def with_deny_list(tls: TlsConfig, tmp_path: Path, text: str) -> TlsConfig:
    path = tmp_path / "denied.txt"
    path.write_text(text)
    return replace(tls, deny_list=str(path))


def reason(revocations: Revocations, certificate: x509.Certificate) -> str | None:
    return revocations.reason(certificate, identify(certificate, "san_uri"))


PHONE = device_issued("phone-1", "alice").certificate
TABLET = device_issued("tablet-1", "alice").certificate
BACKEND = publisher_issued("backend").certificate


def test_nothing_is_revoked_without_lists(tls: TlsConfig) -> None:
    revocations = Revocations.load(tls, FILE)
    assert reason(revocations, PHONE) is None
    assert revocations.warnings == ()


def test_listed_certificate_is_revoked_and_no_other(tls: TlsConfig, tmp_path: Path) -> None:
    revocations = Revocations.load(with_crl(tls, tmp_path, authority().revoke([PHONE])), FILE)
    assert (reason(revocations, PHONE), reason(revocations, TABLET)) == ("revoked", None)


def test_several_lists_in_one_file_count_together(tls: TlsConfig, tmp_path: Path) -> None:
    other = authority("another CA")
    Path(tls.client_ca).write_bytes(authority().issued.certificate_pem + other.issued.certificate_pem)
    theirs = other.issue_device("phone-1").certificate
    settings = with_crl(tls, tmp_path, authority().revoke([PHONE]), other.revoke([theirs]))
    revocations = Revocations.load(settings, FILE)
    assert (reason(revocations, PHONE), reason(revocations, theirs), reason(revocations, TABLET)) == ("revoked", "revoked", None)


def test_serial_number_counts_only_with_its_issuer(tls: TlsConfig, tmp_path: Path) -> None:
    revocations = Revocations.load(with_crl(tls, tmp_path, authority().revoke([PHONE])), FILE)
    identity = replace(identify(certificate("urn:streampush:device:x"), "san_uri"), serial=PHONE.serial_number)
    assert revocations.reason(certificate("urn:streampush:device:x"), identity) is None


def test_list_past_its_date_is_used_and_warned_of(tls: TlsConfig, tmp_path: Path) -> None:
    entry = x509.load_pem_x509_crl(authority().revoke([PHONE]))[0]
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority().issued.certificate.subject)
        .last_update(NOW - dt.timedelta(days=9))
        .next_update(NOW - dt.timedelta(days=2))
        .add_revoked_certificate(entry)
    )
    pem = builder.sign(authority().issued.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    revocations = Revocations.load(with_crl(tls, tmp_path, pem), FILE)
    assert reason(revocations, PHONE) == "revoked"
    assert len(revocations.warnings) == 1
    assert "tls.crl" in revocations.warnings[0]


def test_list_of_an_unknown_issuer_is_refused(tls: TlsConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls\.crl"):
        Revocations.load(with_crl(tls, tmp_path, authority("another CA").revoke([])), FILE)


def test_list_with_a_forged_signature_is_refused(tls: TlsConfig, tmp_path: Path) -> None:
    name = authority().issued.certificate.subject
    forged = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOW).next_update(NOW + dt.timedelta(days=1))
    pem = forged.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(ConfigError, match="not signed by"):
        Revocations.load(with_crl(tls, tmp_path, pem), FILE)


def test_delta_list_is_refused(tls: TlsConfig, tmp_path: Path) -> None:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority().issued.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + dt.timedelta(days=1))
        .add_extension(x509.DeltaCRLIndicator(1), critical=True)
    )
    pem = builder.sign(authority().issued.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(ConfigError, match="delta"):
        Revocations.load(with_crl(tls, tmp_path, pem), FILE)


def test_file_without_a_list_is_refused(tls: TlsConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls\.crl"):
        Revocations.load(with_crl(tls, tmp_path, b"nothing"), FILE)


@pytest.mark.parametrize(
    "entry",
    [
        "phone-1",
        "device:phone-1",
        "  phone-1   # stolen",
        fingerprint_of(PHONE),
        fingerprint_of(PHONE).upper(),
        PHONE.fingerprint(hashes.SHA256()).hex(":").upper(),
    ],
    ids=["name", "device and name", "name with a comment", "fingerprint", "FINGERPRINT", "FINGER:PRINT"],
)
def test_denied_device(tls: TlsConfig, tmp_path: Path, entry: str) -> None:
    revocations = Revocations.load(with_deny_list(tls, tmp_path, f"# denied\n\n{entry}\n"), FILE)
    assert (reason(revocations, PHONE), reason(revocations, TABLET), reason(revocations, BACKEND)) == ("denied", None, None)


@pytest.mark.parametrize(
    "entry", ["backend", "publisher:backend", fingerprint_of(BACKEND)], ids=["name", "kind and name", "fingerprint"]
)
def test_denied_publisher(tls: TlsConfig, tmp_path: Path, entry: str) -> None:
    revocations = Revocations.load(with_deny_list(tls, tmp_path, entry), FILE)
    assert (reason(revocations, PHONE), reason(revocations, BACKEND)) == (None, "denied")


@pytest.mark.parametrize("entry", ["publisher:phone-1", "device:backend", "phone", "phone-10", "#phone-1"])
def test_entry_for_somebody_else_denies_nobody(tls: TlsConfig, tmp_path: Path, entry: str) -> None:
    revocations = Revocations.load(with_deny_list(tls, tmp_path, entry), FILE)
    assert (reason(revocations, PHONE), reason(revocations, BACKEND)) == (None, None)


def test_line_that_denies_nobody_is_an_error_and_not_skipped(tls: TlsConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2") as caught:
        Revocations.load(with_deny_list(tls, tmp_path, "phone-1\nphone 2\n"), FILE)
    assert caught.value.key == "tls.deny_list"


@pytest.mark.parametrize("key", ["crl", "deny_list"])
def test_list_that_is_not_there_is_named(tls: TlsConfig, key: str) -> None:
    with pytest.raises(ConfigError, match="/nowhere/list") as caught:
        Revocations.load(replace(tls, **{key: "/nowhere/list"}), FILE)
    assert caught.value.key == f"tls.{key}"
