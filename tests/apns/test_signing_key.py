from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from streampush.apns.key_files import MAX_KEY_FILE
from streampush.apns.signing_key import SigningKey, load_signing_key, parse_signing_key
from streampush.errors import ConfigError

TEAM, KEY_ID = "TEAM123456", "KEY1234567"


def pem(
    key: PrivateKeyTypes, passphrase: bytes = b"", form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def written(directory: Path, content: bytes, mode: int = 0o600) -> str:
    path = directory / "AuthKey_KEY1234567.p8"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def refused(content: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_signing_key(content, TEAM, KEY_ID, source="key.p8")
    assert caught.value.file == "key.p8"
    return caught.value.problem


def test_a_p8_file_is_read(tmp_path: Path) -> None:
    key = p256()
    loaded = load_signing_key(written(tmp_path, pem(key)), TEAM, KEY_ID)
    assert loaded.key.private_numbers() == key.private_numbers()
    assert (loaded.team_id, loaded.key_id) == (TEAM, KEY_ID)


def test_the_older_form_of_an_ec_key_is_read_too() -> None:
    assert isinstance(parse_signing_key(pem(p256(), form=serialization.PrivateFormat.TraditionalOpenSSL), TEAM, KEY_ID), SigningKey)


def test_the_same_key_is_equal_and_another_is_not() -> None:
    text, other = pem(p256()), pem(p256())
    assert parse_signing_key(text, TEAM, KEY_ID) == parse_signing_key(text, TEAM, KEY_ID)
    assert parse_signing_key(text, TEAM, KEY_ID) != parse_signing_key(other, TEAM, KEY_ID)
    assert parse_signing_key(text, TEAM, KEY_ID) != parse_signing_key(text, TEAM, "KEY7654321")


def test_an_encrypted_key_is_refused() -> None:
    assert "is encrypted" in refused(pem(p256(), b"secret"))


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()])
def test_a_key_that_is_no_ec_key_is_refused(key: PrivateKeyTypes) -> None:
    assert "no elliptic curve key" in refused(pem(key))


def test_a_key_on_another_curve_is_refused_by_name() -> None:
    assert "curve secp384r1" in refused(pem(ec.generate_private_key(ec.SECP384R1())))


def test_a_public_key_is_refused() -> None:
    public = p256().public_key()
    text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert "holds a public key and no private key" in refused(text)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "is empty"), (b" \n", "is empty"), (b"\x30\x81\x87", "no PEM file"), (b"{}", "no PEM")]
)
def test_what_is_no_pem_is_refused(content: bytes, problem: str) -> None:
    assert problem in refused(content)


def test_a_key_that_is_cut_short_is_refused_and_not_quoted() -> None:
    lines = pem(p256()).splitlines(keepends=True)
    problem = refused(lines[0] + lines[1] + lines[-1])
    assert "cannot be read" in problem
    assert lines[1].decode().strip() not in problem


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_use_is_refused_with_what_to_type(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, pem(p256()), mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*type: chmod 600 {path}"):
        load_signing_key(path, TEAM, KEY_ID)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.p8: cannot be read: No such file"):
        load_signing_key(str(tmp_path / "none.p8"), TEAM, KEY_ID)


def test_a_directory_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_signing_key(str(tmp_path), TEAM, KEY_ID)
    with pytest.raises(ConfigError, match="is longer than"):
        load_signing_key(written(tmp_path, b"x" * (MAX_KEY_FILE + 1)), TEAM, KEY_ID)


def test_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        load_signing_key(os.devnull, TEAM, KEY_ID)


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_signing_key(str(path), TEAM, KEY_ID)


@pytest.mark.parametrize("bad", ["", "TEAM12345", "TEAM1234567", "team123456", "TEAM-12345", "TEAM12345\n", "TEAM\u00c412345"])
def test_ids_that_apple_does_not_give_are_refused(bad: str) -> None:
    text = pem(p256())
    for team, key_id, key in ((bad, KEY_ID, "team_id"), (TEAM, bad, "key_id")):
        with pytest.raises(ConfigError) as caught:
            parse_signing_key(text, team, key_id)
        assert caught.value.key == key
        assert ("is missing" in caught.value.problem) is (not bad)


def test_no_part_of_the_key_is_in_the_repr() -> None:
    key = parse_signing_key(pem(p256()), TEAM, KEY_ID)
    assert repr(key) == "SigningKey(team_id='TEAM123456', key_id='KEY1234567')"
