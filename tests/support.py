"""What tests of several rooms need: certificates minted at run time, laid out as `streampush init` does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from streampush.cli.directory import Credentials, DevelopmentDirectory, write_credentials
from streampush.cli.pki import CertificateAuthority, Issued

SERVER_NAMES = ("localhost", "127.0.0.1", "::1")
DEVICES = ("phone-1:alice", "tablet-1:alice", "sensor-1")


@cache
def authority(name: str = "streampush test CA") -> CertificateAuthority:
    """One certificate authority a test run; another name gives another one."""
    return CertificateAuthority.create(name)


@cache
def server_issued() -> Issued:
    """A certificate of `authority()` for localhost, minted once a test run."""
    return authority().issue_server(SERVER_NAMES)


@cache
def device_issued(device_id: str, user_id: str = "") -> Issued:
    """A device certificate of `authority()`, minted once a test run."""
    return authority().issue_device(device_id, user_id)


@cache
def publisher_issued(name: str = "backend") -> Issued:
    """A publisher certificate of `authority()`, minted once a test run."""
    return authority().issue_publisher(name)


def signed(
    subject: Iterable[x509.NameAttribute],
    key: CertificatePublicKeyTypes,
    *,
    hours: tuple[float, float] = (-1.0, 1.0),
    names: Iterable[str] = (),
) -> x509.Certificate:
    """A certificate of `authority()` such as it does not issue by itself, good from and until so many hours from now.

    `names`: hosts in its subjectAltName, which it lacks if there are none.
    """
    ca = authority().issued
    begins, ends = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=each) for each in hours)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(ca.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    found = [x509.DNSName(name) for name in names]
    if found:
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(ca.key, hashes.SHA256())


@dataclass(frozen=True, slots=True)
class DevelopmentFiles:
    """Certificates and keys on disk; `ca`, `server`, `device(id)`, `publisher(name)` are pairs of paths."""

    directory: DevelopmentDirectory

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.directory.ca.certificate

    @property
    def server(self) -> Credentials:
        return self.directory.server

    def device(self, device_id: str, user_id: str = "") -> Credentials:
        """The device's files, written now if they are not there."""
        paths = self.directory.device(device_id)
        if not paths.certificate.exists():
            write_credentials(device_issued(device_id, user_id), paths)
        return paths

    def publisher(self, name: str = "backend") -> Credentials:
        """The publisher's files, written now if they are not there."""
        paths = self.directory.publisher(name)
        if not paths.certificate.exists():
            write_credentials(publisher_issued(name), paths)
        return paths

    def write(self, stem: str, issued: Issued) -> Credentials:
        """Files for a certificate of the test's own, such as an expired one."""
        paths = Credentials(self.directory.secrets / f"{stem}.crt", self.directory.secrets / f"{stem}.key")
        write_credentials(issued, paths)
        return paths


def make_files(root: Path | str, devices: Iterable[str] = DEVICES, publishers: Iterable[str] = ("backend",)) -> DevelopmentFiles:
    """CA, server, device ("ID" or "ID:USER") and publisher files below `root`, as from `streampush init`, without its TOML file."""
    directory = DevelopmentDirectory(Path(root))
    directory.make()
    write_credentials(authority().issued, directory.ca)
    write_credentials(server_issued(), directory.server)
    files = DevelopmentFiles(directory)
    for device in devices:
        device_id, _, user_id = device.partition(":")
        files.device(device_id, user_id)
    for name in publishers:
        files.publisher(name)
    return files
