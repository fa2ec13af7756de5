"""A provider certificate of Apple's, the other way to say who pushes: for which topics, which environment, and until when.

Source: Apple, "Establishing a certificate-based connection to APNs". What a certificate is good for is in extensions of Apple's
own: one for each environment, and one with the list of topics (an ASN.1 sequence of texts, each with a sequence that says what
kind it is).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from streampush.apns.key_files import bad_file, parse_private_key, read_file

SANDBOX = ObjectIdentifier("1.2.840.113635.100.6.3.1")
PRODUCTION = ObjectIdentifier("1.2.840.113635.100.6.3.2")
TOPICS = ObjectIdentifier("1.2.840.113635.100.6.3.6")

MAX_TOPICS = 1000
"""Topics of one certificate. Apple's have below ten; a universal one gets some for each kind of push."""

_SEQUENCE, _UTF8 = 0x30, 0x0C


@dataclass(frozen=True, slots=True)
class PushCertificate:
    """A certificate, what it needs beside it to authenticate, and what Apple says in it.

    `chain`: the certificate and those that come with it, the own one first. `topics`: bundle ids with their suffixes.
    `expires_at`: Unix seconds.
    """

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    topics: frozenset[str]
    sandbox: bool
    production: bool
    begins_at: float
    expires_at: float

    def days_left(self, wall: float) -> float:
        """Days until it expires, below 0 when it has."""
        return (self.expires_at - wall) / 86_400

    def problem(self, topic: str, *, sandbox: bool, wall: float) -> str:
        """Why Apple would not take a push to this topic with it, as a sentence for an operator; "" if nothing speaks against it."""
        if wall >= self.expires_at:
            return f"the certificate has expired {int(-self.days_left(wall))} days ago: renew it in Apple's developer account"
        if wall < self.begins_at:
            return "the certificate is not valid yet: is the clock of this machine right?"
        if not (self.sandbox if sandbox else self.production):
            this, other = ("sandbox", "production") if sandbox else ("production", "sandbox")
            return f"the certificate is not for {this}" + (f" but for {other}" if self.sandbox or self.production else "")
        if topic not in self.topics:
            return f"the certificate is not for {topic} but for {', '.join(sorted(self.topics)[:5]) or 'no topic at all'}"
        return ""


def load_push_certificate(certificate_path: str, key_path: str = "") -> PushCertificate:
    """Reads PEM files; without `key_path` the key is in the certificate's file. Raises ConfigError that names the file and what
    is wrong."""
    pem = read_file(certificate_path, private=not key_path)
    key_pem = read_file(key_path, private=True) if key_path else pem
    return parse_push_certificate(pem, key_pem, source=certificate_path, key_source=key_path or certificate_path)


def parse_push_certificate(pem: bytes, key_pem: bytes, *, source: str = "certificate", key_source: str = "key") -> PushCertificate:
    """As `load_push_certificate`, from texts. `source` and `key_source` name them in errors."""
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
        extensions = {each.oid: each.value for each in chain[0].extensions}
        ours = chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        hint = "turn a .p12 file into PEM with: openssl pkcs12 -in FILE.p12 -out FILE.pem -nodes"
        raise bad_file(source, f"holds no PEM certificate that can be read; {hint}") from None
    key = parse_private_key(key_pem, key_source)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise bad_file(key_source, "is neither an RSA nor an elliptic curve key")
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != ours.public_bytes(*form):
        raise bad_file(key_source, f"is not the key of the certificate in {source}")
    topics = _topics(chain[0], extensions.get(TOPICS), source)
    sandbox, production = SANDBOX in extensions, PRODUCTION in extensions
    if not topics and not sandbox and not production:
        raise bad_file(source, "is no certificate for pushes: it names neither a topic nor an environment of Apple's")
    begins, ends = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    return PushCertificate(chain, key, topics, sandbox, production, begins.timestamp(), ends.timestamp())


def _topics(certificate: x509.Certificate, extension: x509.ExtensionType | None, source: str) -> frozenset[str]:
    """The topics of Apple's extension, or the one of the subject that certificates for a single topic have."""
    if isinstance(extension, x509.UnrecognizedExtension):
        try:
            return frozenset(_texts(extension.value))
        except (ValueError, IndexError):
            raise bad_file(source, "holds a list of topics that cannot be read") from None
    return frozenset(str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.USER_ID))


def _texts(der: bytes) -> Iterator[str]:
    """The UTF8String elements of the outermost SEQUENCE. Raises ValueError or IndexError for what is none."""
    tag, content, rest = _element(der)
    if tag != _SEQUENCE or rest:
        raise ValueError("not one sequence")
    for _ in range(2 * MAX_TOPICS):
        if not content:
            return
        tag, value, content = _element(content)
        if tag == _UTF8:
            yield value.decode()
    raise ValueError("too many topics")


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content, and what comes behind: ITU-T X.690 section 8.1, definite lengths up to 64 KiB."""
    tag, length, start = der[0], der[1], 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 2:
            raise ValueError("a length that is not allowed here")
        start = 2 + size
        length = int.from_bytes(der[2:start], "big")
    end = start + length
    if end > len(der):
        raise ValueError("cut short")
    return tag, der[start:end], der[end:]
