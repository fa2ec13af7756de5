"""The key that an app's team got from Apple (a .p8 file), read with every fault said in one line."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from streampush.apns.key_files import bad_file, parse_private_key, read_file
from streampush.config_apps import is_apple_id
from streampush.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key on curve P-256 and the two ids that Apple knows it by. Equal if all three are."""

    team_id: str
    key_id: str
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    public: bytes = field(repr=False)
    """The public half, in DER: what tells one key from another."""


def load_signing_key(path: str, team_id: str, key_id: str) -> SigningKey:
    """Reads a .p8 file. Raises ConfigError that names the file and what to do: not there, readable by others, encrypted, no EC
    key, wrong curve ..."""
    return parse_signing_key(read_file(path, private=True), team_id, key_id, source=path)


def parse_signing_key(pem: bytes, team_id: str, key_id: str, *, source: str = "key") -> SigningKey:
    """The key in this text, PEM. `source` names it in errors; neither they nor the repr ever hold a part of it."""
    _check_id(source, "team_id", team_id, "the Team ID, in the membership details of Apple's developer account")
    _check_id(source, "key_id", key_id, "the Key ID, which is in the name of the file: AuthKey_KEYID.p8")
    key = parse_private_key(pem, source)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise bad_file(source, "is no elliptic curve key: Apple's .p8 is needed, not the key of a certificate")
    if not isinstance(key.curve, ec.SECP256R1):
        raise bad_file(source, f"is a key on the curve {key.curve.name}, Apple needs P-256 (secp256r1)")
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return SigningKey(team_id, key_id, key, key.public_key().public_bytes(serialization.Encoding.DER, spki))


def _check_id(source: str, name: str, value: str, hint: str) -> None:
    if not is_apple_id(value):
        said = "is missing" if not value else "is not 10 capital letters and digits"
        raise ConfigError(source, name, f"{said}: {hint}")
