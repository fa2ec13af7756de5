"""Keys and certificates of Apple's kinds, made at run time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID, ObjectIdentifier

from streampush.apns.push_certificate import PRODUCTION, SANDBOX

BUNDLE = "com.example.app"
NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
BOTH = {SANDBOX: b"\x05\x00", PRODUCTION: b"\x05\x00"}


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def topic_list(*topics: str) -> bytes:
    """As Apple writes it: each topic, and behind it a sequence that says of what kind it is."""
    return element(0x30, b"".join(element(0x0C, topic.encode()) + element(0x30, element(0x0C, b"app")) for topic in topics))


def certificate(
    extensions: dict[ObjectIdentifier, bytes], *, key: PrivateKeyTypes = KEY, uid: str = BUNDLE, days: tuple[int, int] = (-30, 30)
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.USER_ID, uid)] if uid else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=days[0]))
        .not_valid_after(NOW + dt.timedelta(days=days[1]))
    )
    for oid, value in extensions.items():
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_private(path: Path, content: bytes, mode: int = 0o600) -> str:
    """A file for its owner only, unless `mode` says otherwise."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)
