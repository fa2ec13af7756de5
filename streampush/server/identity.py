"""Who is at the other end: a device or a publisher, read from the client certificate, and whether it still may be.

The chain and the signature are OpenSSL's business. What is here is asked after *every* handshake: a resumed TLS session skips
the verification of the chain, so a certificate that was revoked, denied or has expired since must be met here.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import CRLEntryExtensionOID, NameOID

from streampush.config import Config, RestConfig, TlsConfig
from streampush.config_files import check_files, revocation_lists
from streampush.errors import ConfigError
from streampush.protocol.terms import is_id

Kind = Literal["device", "publisher"]

_PREFIX = "urn:streampush:"
_PUBLISHER_PREFIX = "publisher:"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)


class IdentityError(Exception):
    """The certificate is genuine and does not say who its owner is. `reason` is English, safe to log and to send."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Identity:
    """The owner of a client certificate.

    `name` is the device id or the publisher's name, `user_id` is empty for a device without a user. `fingerprint` is the SHA-256
    of the certificate in lower-case hex; `not_after` is aware, UTC.
    """

    kind: Kind
    name: str
    user_id: str
    fingerprint: str
    serial: int
    not_after: dt.datetime


def identify(certificate: x509.Certificate, mode: str) -> Identity:
    """Reads the identity, from SAN URIs (mode "san_uri") or from the common name (mode "common_name").

    SAN URIs: exactly one `urn:streampush:device:ID` or `urn:streampush:publisher:NAME`; a device may have one
    `urn:streampush:user:ID`. Common name: the device id, or `publisher:NAME`. Ids and names: 1 to 128 of A-Z a-z 0-9 . _ ~ @ -.
    Raises IdentityError.
    """
    try:
        kind, name, user_id = _from_common_name(certificate) if mode == "common_name" else _from_uris(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # the text of these would quote the certificate
        raise IdentityError("the certificate's names cannot be read") from None
    return Identity(
        kind=kind,
        name=name,
        user_id=user_id,
        fingerprint=fingerprint_of(certificate),
        serial=certificate.serial_number,
        not_after=certificate.not_valid_after_utc,
    )


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate in lower-case hex without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def valid_now(certificate: x509.Certificate, wall_now: dt.datetime) -> bool:
    """Whether the certificate's own dates include `wall_now` (aware). The issuer's dates are OpenSSL's business."""
    return certificate.not_valid_before_utc <= wall_now <= certificate.not_valid_after_utc


def _from_common_name(certificate: x509.Certificate) -> tuple[Kind, str, str]:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise IdentityError(f"the certificate has {len(names)} common names, not one")
    value = names[0].value
    text = value if isinstance(value, str) else ""
    if text.startswith(_PUBLISHER_PREFIX):
        return "publisher", _checked("publisher", text.removeprefix(_PUBLISHER_PREFIX)), ""
    return "device", _checked("device", text), ""


def _from_uris(certificate: x509.Certificate) -> tuple[Kind, str, str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate has no subject alternative name") from None
    owners: list[tuple[Kind, str]] = []
    users: list[str] = []
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        # RFC 8141: "urn" and the namespace are matched without regard to case, what follows is not
        if uri[: len(_PREFIX)].lower() != _PREFIX:
            continue
        kind, _, name = uri[len(_PREFIX) :].partition(":")
        if kind == "device":
            owners.append(("device", _checked("device", name)))
        elif kind == "publisher":
            owners.append(("publisher", _checked("publisher", name)))
        elif kind == "user":
            users.append(_checked("user", name))
        else:
            # a mistyped "user" must not give a device without a user
            raise IdentityError("the certificate has a urn:streampush name of unknown kind")
    if len(owners) != 1:
        raise IdentityError(f"the certificate names {len(owners)} devices or publishers, not one")
    kind, name = owners[0]
    if len(users) > (1 if kind == "device" else 0):
        raise IdentityError(f"the certificate of a {kind} names {len(users)} users")
    return kind, name, users[0] if users else ""


def _checked(kind: str, name: str) -> str:
    if not is_id(name):
        raise IdentityError(f"the certificate's {kind} name is not 1 to 128 of A-Z a-z 0-9 . _ ~ @ -")
    return name


class Revocations:
    """What is revoked by the CAs and denied by the site, answered in constant time. Never changes; a reload makes a new one.

    Only the client's own certificate is looked up, not that of an intermediate CA: take that one out of `tls.client_ca`.
    `warnings` are sentences for the log, such as a revocation list past its date (it stays in force).
    """

    __slots__ = ("_fingerprints", "_names", "_revoked", "warnings")

    def __init__(
        self, revoked: frozenset[tuple[bytes, int]], names: frozenset[str], fingerprints: frozenset[str], warnings: tuple[str, ...]
    ) -> None:
        """`revoked`: DER of the issuer's name and serial number; `names`: `device:ID`, `publisher:NAME`, or bare for both kinds."""
        self._revoked = revoked
        self._names = names
        self._fingerprints = fingerprints
        self.warnings = warnings

    @classmethod
    def load(cls, tls: TlsConfig, file: str) -> Revocations:
        """Reads `tls.crl` and `tls.deny_list`, if they are set; blocks on the disk. Raises ConfigError; `file` is named in it."""
        only_these = replace(tls, certificate="", key="")
        problems = check_files(Config(file=file, tls=only_these, rest=RestConfig(enabled=False)))
        ours = [problem for problem in problems if problem.key in ("tls.crl", "tls.deny_list")]
        for problem in ours:
            if problem.severity == "error":
                raise ConfigError(file, problem.key, problem.text)
        revoked = _revoked_serials(tls.crl, file) if tls.crl else frozenset()
        names, fingerprints = _denied(tls.deny_list, file) if tls.deny_list else (frozenset[str](), frozenset[str]())
        return cls(revoked, names, fingerprints, tuple(f"{problem.key}: {problem.text}" for problem in ours))

    def reason(self, certificate: x509.Certificate, identity: Identity) -> Literal["revoked", "denied"] | None:
        """Why the owner of this certificate must not be served, or None."""
        if self._revoked and (certificate.issuer.public_bytes(), identity.serial) in self._revoked:
            return "revoked"
        names = self._names
        if names and (identity.name in names or f"{identity.kind}:{identity.name}" in names):
            return "denied"
        return "denied" if identity.fingerprint in self._fingerprints else None


def _revoked_serials(path: str, file: str) -> frozenset[tuple[bytes, int]]:
    found: set[tuple[bytes, int]] = set()
    try:
        for revocations in revocation_lists(Path(path).read_bytes()):
            _refuse_foreign(revocations, path, file)
            issuer = revocations.issuer.public_bytes()
            found.update((issuer, entry.serial_number) for entry in revocations)
    except (OSError, ValueError) as error:  # it changed since it was checked
        raise ConfigError(file, "tls.crl", f"{path} holds a revocation list that cannot be read") from error
    return frozenset(found)


def _refuse_foreign(revocations: x509.CertificateRevocationList, path: str, file: str) -> None:
    """Delta lists, which take back entries, and indirect ones, whose entries have issuers of their own."""
    for entry in revocations:
        for extension in entry.extensions:
            if extension.oid == CRLEntryExtensionOID.CERTIFICATE_ISSUER:
                raise ConfigError(file, "tls.crl", f"{path} holds an indirect revocation list, which is not supported")
    for listed in revocations.extensions:
        if isinstance(listed.value, x509.DeltaCRLIndicator):
            raise ConfigError(file, "tls.crl", f"{path} holds a delta revocation list, give the full one")


def _denied(path: str, file: str) -> tuple[frozenset[str], frozenset[str]]:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(file, "tls.deny_list", f"{path} cannot be read") from error
    entries = {entry for line in lines if (entry := line.partition("#")[0].strip())}
    # 64 hex digits may also be the id of a device: the entry denies both
    plain = {entry.replace(":", "").lower() for entry in entries}
    return frozenset(entries), frozenset(entry for entry in plain if _FINGERPRINT.fullmatch(entry))
