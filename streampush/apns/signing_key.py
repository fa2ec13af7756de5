"""The key that an app's team got from Apple (a .p8 file), read with every fault said in one line."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from streampush.errors import ConfigError

MAX_KEY_FILE = 16 * 1024
"""Bytes. Apple's files have about 260; a longer one is something else, a log or a disk."""

_ID = re.compile(r"[A-Z0-9]{10}")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


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
    return parse_signing_key(_read_private(path), team_id, key_id, source=path)


def parse_signing_key(pem: bytes, team_id: str, key_id: str, *, source: str = "key") -> SigningKey:
    """The key in this text, PEM. `source` names it in errors; neither they nor the repr ever hold a part of it."""
    _check_id(source, "team_id", team_id, "the Team ID, in the membership details of Apple's developer account")
    _check_id(source, "key_id", key_id, "the Key ID, which is in the name of the file: AuthKey_KEYID.p8")
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise _bad(source, "is encrypted, and a server has nobody to ask for the passphrase") from None
    except (ValueError, UnsupportedAlgorithm):  # its text may quote the file
        _explain(pem, source)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _bad(source, "is no elliptic curve key: Apple's .p8 is needed, not the key of a certificate")
    if not isinstance(key.curve, ec.SECP256R1):
        raise _bad(source, f"is a key on the curve {key.curve.name}, Apple needs P-256 (secp256r1)")
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return SigningKey(team_id, key_id, key, key.public_key().public_bytes(serialization.Encoding.DER, spki))


def _read_private(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _bad(path, "is not a regular file")
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise _bad(path, f"can be used by others (mode {mode:04o}), type: chmod 600 {path}")
            pem = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}") from None
    if len(pem) > MAX_KEY_FILE:
        raise _bad(path, f"is longer than {MAX_KEY_FILE} bytes: it is no .p8 file")
    return pem


def _explain(pem: bytes, source: str) -> NoReturn:
    block = _PEM.search(pem)
    if not pem.strip():
        raise _bad(source, "is empty") from None
    if block is None:
        raise _bad(source, "is no PEM file: Apple's .p8 begins with -----BEGIN PRIVATE KEY-----") from None
    if not block[1].endswith(b"PRIVATE KEY"):
        raise _bad(source, f"holds a {block[1].decode().lower()} and no private key") from None
    raise _bad(source, "holds a private key that cannot be read: it is cut short or changed") from None


def _check_id(source: str, name: str, value: str, hint: str) -> None:
    if not _ID.fullmatch(value):
        said = "is missing" if not value else "is not 10 capital letters and digits"
        raise ConfigError(source, name, f"{said}: {hint}")


def _bad(source: str, problem: str) -> ConfigError:
    return ConfigError(source, "", problem)
