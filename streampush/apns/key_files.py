"""Private files, read with every fault said in one line that names the file and quotes nothing of it."""

from __future__ import annotations

import re
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from streampush.bounded_files import TooLong, UnusableFile, read_bounded
from streampush.errors import ConfigError

MAX_KEY_FILE = 64 * 1024
"""Bytes. A .p8 file has about 260, a certificate with its chain and key some thousands; a longer one is something else, a log or
a disk."""

MAX_TRUST_FILE = 4 * 1024 * 1024
"""Bytes. The CAs of a whole system have a tenth of it."""

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


def read_file(path: str, *, private: bool, limit: int = MAX_KEY_FILE) -> bytes:
    """The bytes of a regular file, at most `limit`. `private`: nobody but its owner may use it. Raises ConfigError."""
    try:
        return read_bounded(path, limit, private=private)
    except TooLong as error:
        raise bad_file(path, f"{error}: it is no key file") from None
    except UnusableFile as error:
        raise bad_file(path, str(error)) from None


def parse_private_key(pem: bytes, source: str) -> PrivateKeyTypes:
    """The first private key in a PEM text. Raises ConfigError."""
    try:
        return serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise bad_file(source, "is encrypted, and a server has nobody to ask for the passphrase") from None
    except (ValueError, UnsupportedAlgorithm):  # its text may quote the file
        _explain(pem, source)


def bad_file(source: str, problem: str) -> ConfigError:
    """The error about a file."""
    return ConfigError(source, "", problem)


def _explain(pem: bytes, source: str) -> NoReturn:
    blocks = _PEM.findall(pem)
    if not pem.strip():
        raise bad_file(source, "is empty") from None
    if not blocks:
        raise bad_file(source, "is no PEM file: a key begins with -----BEGIN PRIVATE KEY-----") from None
    if not any(block.endswith(b"PRIVATE KEY") for block in blocks):
        raise bad_file(source, f"holds a {blocks[0].decode().lower()} and no private key") from None
    raise bad_file(source, "holds a private key that cannot be read: it is cut short or changed") from None
