from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.push_certificate import (
    MAX_TOPICS,
    PRODUCTION,
    SANDBOX,
    TOPICS,
    PushCertificate,
    load_push_certificate,
    parse_push_certificate,
)
from streampush.errors import ConfigError
from tests.apns.minting import BOTH, BUNDLE, KEY, NOW, certificate, element, pem, topic_list

WALL = NOW.timestamp()


def parsed(extensions: dict[ObjectIdentifier, bytes], uid: str = BUNDLE, days: tuple[int, int] = (-30, 30)) -> PushCertificate:
    return parse_push_certificate(certificate(extensions, uid=uid, days=days), pem(KEY))


def refused(certificate_pem: bytes, key_pem: bytes = pem(KEY)) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_push_certificate(certificate_pem, key_pem, source="push.pem", key_source="push.key")
    return str(caught.value)


def test_topics_and_environments_are_read() -> None:
    read = parsed({**BOTH, TOPICS: topic_list(BUNDLE, BUNDLE + ".voip", BUNDLE + ".complication")})
    assert read.topics == {BUNDLE, BUNDLE + ".voip", BUNDLE + ".complication"}
    assert (read.sandbox, read.production) == (True, True)


def test_a_certificate_for_one_topic_has_it_in_its_subject() -> None:
    read = parsed({SANDBOX: b"\x05\x00"})
    assert read.topics == {BUNDLE}
    assert (read.sandbox, read.production) == (True, False)


def test_a_long_list_of_topics_is_read() -> None:
    topics = [f"com.example.app{n}" for n in range(300)]
    assert parsed({**BOTH, TOPICS: topic_list(*topics)}).topics == set(topics)


def test_the_days_that_are_left_are_counted() -> None:
    assert parsed(BOTH).days_left(WALL) == 30
    assert parsed(BOTH).days_left(WALL + 40 * 86_400) == -10


@pytest.mark.parametrize(
    ("extensions", "topic", "sandbox", "days", "problem"),
    [
        (BOTH, BUNDLE, True, (-30, 30), ""),
        (BOTH, BUNDLE, False, (-30, 30), ""),
        (BOTH, BUNDLE + ".voip", True, (-30, 30), f"is not for {BUNDLE}.voip but for {BUNDLE}"),
        ({PRODUCTION: b"\x05\x00"}, BUNDLE, True, (-30, 30), "is not for sandbox but for production"),
        ({SANDBOX: b"\x05\x00"}, BUNDLE, False, (-30, 30), "is not for production but for sandbox"),
        ({TOPICS: topic_list(BUNDLE)}, BUNDLE, False, (-30, 30), "is not for production"),
        (BOTH, BUNDLE, True, (-30, -3), "has expired 3 days ago"),
        (BOTH, BUNDLE, True, (3, 30), "not valid yet"),
    ],
)
def test_what_speaks_against_it_is_said_before_apple_says_it(
    extensions: dict[ObjectIdentifier, bytes], topic: str, sandbox: bool, days: tuple[int, int], problem: str
) -> None:
    said = parsed(extensions, days=days).problem(topic, sandbox=sandbox, wall=WALL)
    assert problem in said
    assert bool(said) is bool(problem)


def test_a_certificate_of_somebody_else_is_refused() -> None:
    assert "no certificate for pushes" in refused(certificate({}, uid=""))


def test_a_key_of_another_certificate_is_refused() -> None:
    assert refused(certificate(BOTH), pem(ec.generate_private_key(ec.SECP256R1()))).startswith("push.key: is not the key of")


def test_a_key_of_a_kind_that_tls_to_apple_cannot_use_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    assert "neither an RSA nor" in refused(certificate(BOTH, key=key), pem(key))


def test_an_rsa_key_is_as_good() -> None:
    key = rsa.generate_private_key(65537, 2048)
    assert parse_push_certificate(certificate(BOTH, key=key), pem(key)).topics == {BUNDLE}


@pytest.mark.parametrize("content", [b"", b"\x30\x82", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pem(KEY)])
def test_what_is_no_certificate_is_refused_with_what_to_type(content: bytes) -> None:
    assert "openssl pkcs12" in refused(content)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x30",
        b"\x30\x05\x0c\x01",
        b"\x31\x00",
        b"\x30\x00\x00",
        b"\x30\x80\x00\x00",
        b"\x30\x84\x00\x00\x00\x00",
        element(0x30, element(0x0C, b"\xff")),
        element(0x30, b"\x05\x00" * (2 * MAX_TOPICS + 1)),
    ],
)
def test_a_list_of_topics_that_is_none_is_refused(value: bytes) -> None:
    assert "list of topics that cannot be read" in refused(certificate({**BOTH, TOPICS: value}))


@given(st.binary(max_size=60))
def test_no_extension_makes_it_fail_otherwise(value: bytes) -> None:
    try:
        parse_push_certificate(certificate({**BOTH, TOPICS: value}), pem(KEY))
    except ConfigError as error:
        assert "list of topics" in error.problem


def test_certificate_and_key_may_be_one_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "push.pem"
    path.write_bytes(certificate(BOTH) + pem(KEY))
    path.chmod(0o600)
    assert load_push_certificate(str(path)).topics == {BUNDLE}
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_push_certificate(str(path))


def test_with_a_key_file_the_certificate_may_be_public_and_the_key_may_not(tmp_path: Path) -> None:
    public, private = tmp_path / "push.pem", tmp_path / "push.key"
    public.write_bytes(certificate(BOTH))
    private.write_bytes(pem(KEY))
    public.chmod(0o644)
    private.chmod(0o600)
    assert load_push_certificate(str(public), str(private)).production
    private.chmod(0o640)
    with pytest.raises(ConfigError, match=r"push\.key: can be used by others"):
        load_push_certificate(str(public), str(private))


def test_no_part_of_the_key_is_in_the_repr() -> None:
    assert "key" not in repr(parsed(BOTH)).lower()
