"""What the simulated Apple knows before any request: developer accounts with their keys and topics, and devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Environment(Enum):
    """Apple's two worlds. A device token and a signing key belong to one, or (a key) to both."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The public half of a provider's signing key.

    `topics`: bundle ids it may push to; none: every topic of the simulator. `environments`: where it may be used.
    """

    key_id: str
    team_id: str
    public_key: ec.EllipticCurvePublicKey = field(repr=False)
    topics: frozenset[str] = frozenset()
    environments: frozenset[Environment] = frozenset(Environment)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new signing key: `p8` is what Apple lets a developer download once, PKCS #8 in PEM, and is secret."""

    key: SigningKey
    p8: bytes = field(repr=False)


def mint_key(key_id: str = "SIMKEY0001", team_id: str = "SIMTEAM001", topics: Iterable[str] = ()) -> MintedKey:
    """A new P-256 key for provider tokens, as a developer gets it from Apple."""
    private = ec.generate_private_key(ec.SECP256R1())
    p8 = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return MintedKey(SigningKey(key_id, team_id, private.public_key(), frozenset(topics)), p8)


def read_key(p8: bytes, key_id: str, team_id: str, topics: Iterable[str] = ()) -> SigningKey:
    """The signing key of a `.p8` file. Raises ValueError if it is no unencrypted P-256 private key in PEM."""
    try:
        private = serialization.load_pem_private_key(p8, None)
    except (TypeError, ValueError) as error:
        raise ValueError("not a private key in PEM, or an encrypted one") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("not a key of the curve P-256")
    return SigningKey(key_id, team_id, private.public_key(), frozenset(topics))


def token_hash(device_token: str) -> str:
    """A device token as records and log lines may show it: the first 8 hex digits of the SHA-256 of its lowercase form."""
    return sha256(device_token.lower().encode("ascii", "replace")).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What Apple knows of a device token; the default is a token that is good for every topic.

    `topic`: the only bundle id it is good for; empty: any. `inactive_since`: wall time in seconds since when pushes are answered
    with 410; None: active. `expired`: that 410 says ExpiredToken, else Unregistered.
    """

    topic: str = ""
    inactive_since: float | None = None
    expired: bool = False
    environment: Environment | None = None


class Devices:
    """The device tokens that the simulated Apple knows more of than that they are well formed.

    `only_known`: a token that was not registered here is BadDeviceToken; else every well-formed token is good.
    """

    __slots__ = ("_states", "only_known")

    def __init__(self, *, only_known: bool = False) -> None:
        self.only_known = only_known
        self._states: dict[str, DeviceState] = {}

    def register(self, device_token: str, topic: str = "", environment: Environment | None = None) -> None:
        """Makes the token good, also one that was inactive: the app was installed again."""
        self._states[device_token.lower()] = DeviceState(topic, environment=environment)

    def unregister(self, device_token: str, at: float, *, expired: bool = False) -> None:
        """From now on pushes are answered with 410 and the timestamp `at`, a wall time in seconds."""
        known = self._states.get(device_token.lower(), DeviceState())
        self._states[device_token.lower()] = DeviceState(known.topic, at, expired, known.environment)

    def state(self, device_token: str) -> DeviceState | None:
        """None: Apple does not know the token."""
        known = self._states.get(device_token.lower())
        return known if known is not None or self.only_known else DeviceState()
