"""Where `streampush init` puts things, for the commands that use them afterwards.

streampush.toml            the server's configuration
ca.crt  server.crt         certificates, public
secrets/                   only its owner may enter
    ca.key  server.key  rest.key
    device-ID.crt  device-ID.key
    publisher-NAME.crt  publisher-NAME.key
appointments/              when a server wants a device back, see client.appointments
    device-ID.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streampush.cli.pki import CertificateAuthority, Issued


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths of a certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class DevelopmentDirectory:
    """The paths below `root`; nothing is read or written but by the methods that say so."""

    root: Path

    @property
    def toml(self) -> Path:
        return self.root / "streampush.toml"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def ca(self) -> Credentials:
        return Credentials(self.root / "ca.crt", self.secrets / "ca.key")

    @property
    def server(self) -> Credentials:
        return Credentials(self.root / "server.crt", self.secrets / "server.key")

    @property
    def rest_key(self) -> Path:
        return self.secrets / "rest.key"

    def device(self, device_id: str) -> Credentials:
        return self._client(f"device-{device_id}")

    def publisher(self, name: str) -> Credentials:
        return self._client(f"publisher-{name}")

    def appointment(self, device_id: str) -> Path:
        """When the server wants the device back, if it has said so."""
        return self.root / "appointments" / f"device-{device_id}.json"

    def _client(self, stem: str) -> Credentials:
        return Credentials(self.secrets / f"{stem}.crt", self.secrets / f"{stem}.key")

    def make(self) -> None:
        """Creates the directories; the secrets' one, also an old one, for its owner only. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.secrets.mkdir(exist_ok=True)
        self.secrets.chmod(0o700)

    def load_authority(self) -> CertificateAuthority:
        """The CA of this directory. Raises OSError or ValueError."""
        return CertificateAuthority.load(self.ca.certificate, self.ca.key)


def write_credentials(issued: Issued, paths: Credentials) -> None:
    """Writes a certificate and its key; the key is readable by its owner only."""
    issued.write(paths.certificate, paths.key)
