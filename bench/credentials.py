"""Certificates for a run: one CA, one server, one publisher, and a certificate for each device. ECDSA P-256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streampush.cli.pki import CertificateAuthority, write_secret

PUBLISHER = "bench"


def device_name(index: int) -> str:
    return f"device-{index:05d}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The files below `root`. Clients' certificate and key are in one file each."""

    root: Path

    @property
    def ca(self) -> Path:
        return self.root / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        return self.root / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.root / "server.key"

    @property
    def publisher(self) -> Path:
        return self.root / "publisher.pem"

    def device(self, index: int) -> Path:
        return self.root / f"{device_name(index)}.pem"


def mint(root: Path, devices: int) -> Credentials:
    """Mints everything for so many devices, about half a millisecond each. A streampush device has one connection, so each
    connection needs a certificate of its own."""
    root.mkdir(parents=True, exist_ok=True)
    credentials = Credentials(root)
    authority = CertificateAuthority.create("streampush bench CA")
    credentials.ca.write_bytes(authority.issued.certificate_pem)
    authority.issue_server(["localhost", "127.0.0.1"]).write(credentials.server_certificate, credentials.server_key)
    publisher = authority.issue_publisher(PUBLISHER)
    write_secret(credentials.publisher, publisher.certificate_pem + publisher.key_pem)
    for index in range(devices):
        device = authority.issue_device(device_name(index))
        write_secret(credentials.device(index), device.certificate_pem + device.key_pem)
    return credentials
