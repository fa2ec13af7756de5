"""Provider tokens as Apple checks them: Apple, "Establishing a token-based connection to APNs"; RFC 7515, RFC 7518 section 3.4.

`authorization: bearer <jwt>`, ES256, header `kid`, claims `iss` (the team) and `iat`. A token is good from its `iat` for one hour.
A provider may begin to use a new one at most every 20 minutes.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from streampush.apns.simulator.accounts import SigningKey
from streampush.apns.simulator.reasons import Reason

TOKEN_LIFETIME: Final = 3600.0
"""Seconds from `iat`; Apple: a token older than one hour is refused."""

MIN_TOKEN_INTERVAL: Final = 1200.0
"""Seconds between two new tokens; Apple: no more than once every 20 minutes."""

CLOCK_LEEWAY: Final = 5.0
"""Seconds that `iat` may lie in the future. Ours: Apple does not say how much it forgives."""

MAX_TOKEN_BYTES: Final = 4096
"""A longer `authorization` is not looked at; a real one has some 200 bytes."""

_LAST_MOMENT: Final = 2.0**53  # seconds; beyond it, and for a NaN, `iat` is no time
_CACHED: Final = 256
_RAW_SIGNATURE: Final = 64  # RFC 7518 section 3.4: r and s of 32 bytes each


@dataclass(frozen=True, slots=True)
class ProviderToken:
    """A token whose signature is good. `issued_at` in seconds of wall time."""

    key: SigningKey
    issued_at: float
    jwt: bytes = field(repr=False)


class TokenCheck:
    """Checks `authorization` values against the keys of all accounts. Pure but for a bounded cache of good signatures."""

    __slots__ = ("_good", "_keys", "_leeway")

    def __init__(self, keys: Iterable[SigningKey], *, leeway: float = CLOCK_LEEWAY) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._leeway = leeway
        self._good: OrderedDict[bytes, ProviderToken] = OrderedDict()

    def check(self, authorization: bytes | None, wall: float) -> ProviderToken | Reason:
        """The token, or why it is refused. `wall` is the wall time in seconds."""
        if not authorization:
            return Reason.MISSING_PROVIDER_TOKEN
        scheme, _, jwt = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not jwt.strip():
            return Reason.MISSING_PROVIDER_TOKEN
        token = self._signed(jwt.strip())
        if token is None or token.issued_at > wall + self._leeway:
            return Reason.INVALID_PROVIDER_TOKEN
        if wall - token.issued_at > TOKEN_LIFETIME:
            return Reason.EXPIRED_PROVIDER_TOKEN
        return token

    def _signed(self, jwt: bytes) -> ProviderToken | None:
        known = self._good.get(jwt)
        if known is not None:
            self._good.move_to_end(jwt)
            return known
        token = _verify(jwt, self._keys) if len(jwt) <= MAX_TOKEN_BYTES else None
        if token is not None:
            self._good[jwt] = token
            if len(self._good) > _CACHED:
                self._good.popitem(last=False)
        return token


def _verify(jwt: bytes, keys: dict[str, SigningKey]) -> ProviderToken | None:
    signed, _, signature_part = jwt.rpartition(b".")
    header_part, _, claims_part = signed.partition(b".")
    header, claims, signature = _object(header_part), _object(claims_part), _decode(signature_part)
    if header is None or claims is None or signature is None or len(signature) != _RAW_SIGNATURE:
        return None
    kid, issued_at = header.get("kid"), claims.get("iat")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or header.get("alg") != "ES256" or claims.get("iss") != key.team_id:
        return None
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float) or not 0 <= issued_at <= _LAST_MOMENT:
        return None
    middle = _RAW_SIGNATURE // 2
    der = encode_dss_signature(int.from_bytes(signature[:middle], "big"), int.from_bytes(signature[middle:], "big"))
    try:
        key.public_key.verify(der, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return None
    return ProviderToken(key, float(issued_at), jwt)


def _decode(part: bytes) -> bytes | None:
    if not part or b"=" in part:  # RFC 7515 section 2: without padding
        return None
    try:
        raw = b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return raw if urlsafe_b64encode(raw).rstrip(b"=") == part else None  # the same bytes have one form only


def _object(part: bytes) -> dict[str, object] | None:
    raw = _decode(part)
    try:
        value = json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class TokenUpdates:
    """Notices a provider that renews too often: one for each connection, or one for all (`UpdateScope`).

    The first token of a (team, key) is always taken. Another one counts as an update, and is refused within `interval` seconds of
    the last; refused ones do not count. One that was taken before may be used on, from another server of the provider, say.
    """

    __slots__ = ("_interval", "_taken")

    def __init__(self, interval: float = MIN_TOKEN_INTERVAL) -> None:
        self._interval = interval
        self._taken: dict[tuple[str, str], _Taken] = {}

    def admit(self, token: ProviderToken, now: float) -> bool:
        """Whether the token may be used. `now` in seconds, of any clock."""
        account = (token.key.team_id, token.key.key_id)
        taken = self._taken.get(account)
        if taken is None:
            self._taken[account] = _Taken(now, OrderedDict({token.jwt: None}))
            return True
        if token.jwt in taken.tokens:
            return True
        if now - taken.at < self._interval:
            return False
        taken.at = now
        taken.tokens[token.jwt] = None
        if len(taken.tokens) > _CACHED:
            taken.tokens.popitem(last=False)
        return True


@dataclass(slots=True)
class _Taken:
    at: float
    tokens: OrderedDict[bytes, None]
