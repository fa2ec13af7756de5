"""The files that settings name: whether they can be used, before the server starts or reloads."""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from streampush.bounded_files import UnusableFile, read_bounded
from streampush.config import Config, Problem
from streampush.protocol.terms import ID_PATTERN

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A revocation list of a large site; anything longer is the wrong file."""

MAX_PASSWORD = 1024
"""Characters; a longer file is not one with a password."""

EXPIRY_WARNING = dt.timedelta(days=30)

_DENY_NAME = re.compile(r"((device|publisher):)?" + ID_PATTERN)
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}|([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def check_files(config: Config, now: dt.datetime | None = None) -> list[Problem]:
    """Everything wrong or soon wrong with the files of the configuration. Settings that are empty are left out.

    `now` is aware, default: the present. Blocks on the disk, so call it before the reactor runs or in a thread.
    """
    return list(_Checker(config, now or dt.datetime.now(dt.UTC)).run())


def check_authorities(config: Config, key: str, path: str, now: dt.datetime) -> list[Problem]:
    """Everything wrong or soon wrong with a file of CA certificates that the setting `key` names."""
    return list(_Checker(config, now).authorities(key, path, []))


def earliest_expiry(path: str) -> dt.datetime:
    """When the first certificate of a PEM file expires. Raises OSError or ValueError."""
    with open(path, "rb") as file:
        return min(certificate.not_valid_after_utc for certificate in x509.load_pem_x509_certificates(file.read()))


def revocation_lists(pem: bytes) -> list[x509.CertificateRevocationList]:
    """All that are in a PEM file, one behind the other. Raises ValueError."""
    return [x509.load_pem_x509_crl(block) for block in _CRL.findall(pem)]


def read_password(path: str) -> str:
    """The one line of a file that only its owner can use. Raises ValueError, without a word of what is in it."""
    try:
        data = _read(path, private=True)
    except _Unusable as error:
        raise ValueError(str(error)) from None
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not 1 <= len(text) <= MAX_PASSWORD:
        raise ValueError(f"{path} does not hold one line of 1 to {MAX_PASSWORD} printable characters")
    return text


class _Unusable(Exception):
    """A file that cannot be used, in words."""


class _Checker:
    def __init__(self, config: Config, now: dt.datetime) -> None:
        self._config = config
        self._now = now

    def run(self) -> Iterator[Problem]:
        tls, rest = self._config.tls, self._config.rest
        yield from self._pair("tls", tls.certificate, tls.key)
        authorities: list[x509.Certificate] = []
        if tls.client_ca:
            yield from self.authorities("tls.client_ca", tls.client_ca, authorities)
        if tls.crl:
            yield from self._revocations(tls.crl, authorities)
        if tls.deny_list:
            yield from self._deny_list(tls.deny_list)
        if rest.enabled:
            yield from self._pair("rest", rest.certificate, rest.key)
        if self._config.store.backend == "sqlite":
            yield from self._store(self._config.store.path)
        if self._config.store.backend == "redis":
            yield from self._redis()
        if self._config.node.handover:
            yield from self._folder("node.handover", self._config.node.handover)
        if self._config.apns.proxy_password_file:
            yield from self._password("apns.proxy_password_file", self._config.apns.proxy_password_file)

    def _problem(self, key: str, text: str, severity: Literal["error", "warning"] = "error") -> Problem:
        return Problem(severity, self._config.file, key, text)

    def _redis(self) -> Iterator[Problem]:
        store = self._config.store
        if store.password_file:
            yield from self._password("store.password_file", store.password_file)
        if store.ca:
            yield from self.authorities("store.ca", store.ca, [])
        yield from self._pair("store", store.certificate, store.key)

    def _store(self, path: str) -> Iterator[Problem]:
        """Where the store's file is, or will be. What is in it is for the store to say, which opens it."""
        found = list(self._folder("store.path", path))
        yield from found
        if any(problem.severity == "error" for problem in found):
            return
        if os.path.isfile(path) and os.stat(path).st_mode & 0o077:
            text = f"{path} holds messages and push tokens, and others can use it, type: chmod 600 {path}"
            yield self._problem("store.path", text, "warning")

    def _folder(self, key: str, path: str) -> Iterator[Problem]:
        """Of a file that is ours: it must be there, and others must not be able to put another file in its place."""
        folder = os.path.dirname(os.path.abspath(path))
        try:
            mode = os.stat(folder).st_mode
        except OSError as error:
            yield self._problem(key, f"the folder {folder} cannot be used: {error.strerror}")
            return
        if not stat.S_ISDIR(mode):
            yield self._problem(key, f"{folder} is not a folder")
            return
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            text = f"anybody can replace files in {folder} (mode {stat.S_IMODE(mode):04o}), type: chmod o-w {folder}"
            yield self._problem(key, text, "warning")

    def _pair(self, section: str, certificate_path: str, key_path: str) -> Iterator[Problem]:
        """A server certificate and its private key."""
        chain: list[x509.Certificate] = []
        if certificate_path:
            try:
                chain = _certificates(certificate_path)
            except _Unusable as error:
                yield self._problem(f"{section}.certificate", str(error))
            else:
                yield from self._chain(f"{section}.certificate", certificate_path, chain)
        if key_path:
            try:
                public = _public_half(key_path)
            except _Unusable as error:
                yield self._problem(f"{section}.key", str(error))
            else:
                if chain and _spki(chain[0].public_key()) != public:
                    text = f"{key_path} is not the private key of {certificate_path}"
                    yield self._problem(f"{section}.key", text)

    def _chain(self, key: str, path: str, chain: list[x509.Certificate]) -> Iterator[Problem]:
        for certificate in chain:
            yield from self._validity(key, path, certificate)
        try:
            usage = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            usage = None
        if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
            yield self._problem(key, f"{path} is not for servers: its extended key usage lacks serverAuth")
        try:
            chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            text = f"{path} names no host as subject alternative name, clients will refuse it"
            yield self._problem(key, text, "warning")

    def _validity(self, key: str, path: str, certificate: x509.Certificate) -> Iterator[Problem]:
        who = f"{path} ({certificate.subject.rfc4514_string()})"
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if end <= self._now:
            yield self._problem(key, f"{who} expired on {_date(end)}")
        elif start > self._now:
            yield self._problem(key, f"{who} is not valid before {_date(start)}")
        elif end - self._now <= EXPIRY_WARNING:
            days = (end - self._now).days
            yield self._problem(key, f"{who} expires on {_date(end)}, in {days} days", "warning")

    def authorities(self, key: str, path: str, authorities: list[x509.Certificate]) -> Iterator[Problem]:
        try:
            found = _certificates(path)
        except _Unusable as error:
            yield self._problem(key, str(error))
            return
        authorities.extend(found)
        for certificate in found:
            if not _is_authority(certificate):
                who = certificate.subject.rfc4514_string()
                yield self._problem(key, f"{path} ({who}) is not a CA certificate")
        faults = [problem for certificate in found for problem in self._validity(key, path, certificate)]
        # An old CA may stay in the bundle while a new one takes over.
        any_good = len([problem for problem in faults if problem.severity == "error"]) < len(found)
        for problem in faults:
            yield self._problem(problem.key, problem.text, "warning" if any_good else problem.severity)

    def _password(self, key: str, path: str) -> Iterator[Problem]:
        try:
            read_password(path)
        except ValueError as error:
            yield self._problem(key, str(error))

    def _revocations(self, path: str, authorities: Iterable[x509.Certificate]) -> Iterator[Problem]:
        try:
            lists = revocation_lists(_read(path))
        except (_Unusable, ValueError) as error:
            text = str(error) if isinstance(error, _Unusable) else f"{path} holds a revocation list that cannot be read"
            yield self._problem("tls.crl", text)
            return
        if not lists:
            yield self._problem("tls.crl", f"{path} holds no PEM revocation list")
        for revoked in lists:
            issuer = revoked.issuer.rfc4514_string()
            if not any(_signed(revoked, certificate) for certificate in authorities):
                yield self._problem("tls.crl", f"{path}: the list of {issuer} is not signed by a certificate in tls.client_ca")
            if revoked.next_update_utc is not None and revoked.next_update_utc <= self._now:
                text = f"{path}: the list of {issuer} was to be renewed by {_date(revoked.next_update_utc)}, it stays in force"
                yield self._problem("tls.crl", text, "warning")

    def _deny_list(self, path: str) -> Iterator[Problem]:
        try:
            lines = _read(path).decode().splitlines()
        except UnicodeDecodeError:
            yield self._problem("tls.deny_list", f"{path} is not UTF-8 text")
            return
        except _Unusable as error:
            yield self._problem("tls.deny_list", str(error))
            return
        for number, line in enumerate(lines, 1):
            entry = line.partition("#")[0].strip()
            if entry and not _DENY_NAME.fullmatch(entry) and not _FINGERPRINT.fullmatch(entry):
                text = f"{path} line {number}: neither a device id, device:ID, publisher:NAME nor a SHA-256 fingerprint"
                yield self._problem("tls.deny_list", text)


def _read(path: str, *, private: bool = False) -> bytes:
    """The file's bytes. Raises _Unusable."""
    try:
        return read_bounded(path, MAX_FILE_BYTES, private=private)
    except UnusableFile as error:
        raise _Unusable(f"{path} {error}") from error


def _certificates(path: str) -> list[x509.Certificate]:
    data = _read(path)
    try:
        found = x509.load_pem_x509_certificates(data)
        for certificate in found:  # what is read lazily is read here, where a fault has its place
            _spki(certificate.public_key())
            len(certificate.extensions)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _Unusable(f"{path} holds no PEM certificate that can be read") from error
    return found


def _public_half(path: str) -> bytes:
    data = _read(path, private=True)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise _Unusable(f"{path} is encrypted, and a server has nobody to ask for the passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:  # its text may quote the file
        raise _Unusable(f"{path} holds no PEM private key that can be read") from error
    return _spki(key.public_key())


def _spki(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _signed(revoked: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    if revoked.issuer != certificate.subject:
        return False
    try:
        return revoked.is_signature_valid(certificate.public_key())  # type: ignore[arg-type]  # others give TypeError
    except (TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False


def _date(when: dt.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
