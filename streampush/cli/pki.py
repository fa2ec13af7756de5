"""A small certificate authority for development and for the tests: ECDSA P-256, one intermediate-free level.

`streampush init` uses it. A production site signs with its own CA; docs/operations.md says what streampush asks of a
certificate.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BACKDATE = dt.timedelta(minutes=5)  # clocks of devices lag


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key. `key_pem` is secret."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def write(self, certificate_path: Path, key_path: Path) -> None:
        """Writes both; the key is readable by its owner only from the first byte on. Existing files are replaced."""
        certificate_path.write_bytes(self.certificate_pem)
        write_secret(key_path, self.key_pem)


def write_secret(path: Path, data: bytes) -> None:
    """Writes a file that only its owner may read, also when it replaces one that more could read."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


class CertificateAuthority:
    """Signs server, device and publisher certificates, and revocation lists."""

    def __init__(self, issued: Issued) -> None:
        self.issued = issued

    @classmethod
    def create(cls, name: str = "streampush development CA", days: int = 3650) -> CertificateAuthority:
        """A new self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = (
            _builder(subject, subject, key, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
        )
        return cls(Issued(builder.sign(key, hashes.SHA256()), key))

    @classmethod
    def load(cls, certificate_path: Path, key_path: Path) -> CertificateAuthority:
        """An authority that `Issued.write` wrote. Raises OSError or ValueError."""
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_path}: not an elliptic curve key")
        return cls(Issued(certificate, key))

    def issue_server(self, names: Iterable[str], days: int = 825) -> Issued:
        """For DNS names and IP addresses; the first one is the common name."""
        names = list(names)
        alternatives = [_general_name(name) for name in names]
        return self._issue(names[0], alternatives, ExtendedKeyUsageOID.SERVER_AUTH, days)

    def issue_device(self, device_id: str, user_id: str = "", *, days: float = 825, start: dt.datetime | None = None) -> Issued:
        """For a device, bound to a user if `user_id` is given."""
        uris = [f"urn:streampush:device:{device_id}"]
        if user_id:
            uris.append(f"urn:streampush:user:{user_id}")
        return self._issue(device_id, _uris(uris), ExtendedKeyUsageOID.CLIENT_AUTH, days, start)

    def issue_publisher(self, name: str, days: float = 825) -> Issued:
        """For a backend that publishes over the framed protocol."""
        return self._issue(name, _uris([f"urn:streampush:publisher:{name}"]), ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def revoke(self, certificates: Iterable[x509.Certificate], days: float = 7) -> bytes:
        """A revocation list, PEM, of exactly these certificates."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.issued.certificate.subject)
            .last_update(now - _BACKDATE)
            .next_update(now + dt.timedelta(days=days))
        )
        for certificate in certificates:
            revoked = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now - _BACKDATE)
            builder = builder.add_revoked_certificate(revoked.build())
        return builder.sign(self.issued.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        common_name: str,
        alternatives: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        days: float,
        start: dt.datetime | None = None,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = self.issued.certificate
        builder = (
            _builder(_name(common_name[:64]), authority.subject, key, days, start)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.issued.key.public_key()), critical=False)
        )
        return Issued(builder.sign(self.issued.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: float,
    start: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    start = start or dt.datetime.now(dt.UTC) - _BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _BACKDATE + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _uris(uris: list[str]) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(uri) for uri in uris]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
