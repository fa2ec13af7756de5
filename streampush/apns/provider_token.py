"""The provider token: a JWT that tells Apple which team pushes. One per key, shared by all connections.

Source: Apple, "Establishing a token-based connection to APNs". Apple rejects a token that is older than an hour, by Apple's
clock, and a new one that comes less than 20 minutes after the last. So it is minted when somebody needs it and the last is 50
minutes old, and never twice within 20.

Minting is synchronous and takes some 50 microseconds, once in 50 minutes: two pushes cannot be minting at the same time, there is
nothing to wait for and so no single flight to arrange.

Two clocks are inputs. `now`, monotonic, measures what lies between two tokens of ours. `wall` is what Apple reads in the token;
if it is set while the token lives, the token's age by it counts as well, since one that is dated wrongly is rejected.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from streampush.apns.signing_key import SigningKey

RENEW_AFTER = 50 * 60.0
"""Seconds. Ten minutes before Apple calls it expired, for clocks that differ and pushes that wait."""

MIN_INTERVAL = 20 * 60.0
"""Seconds between two tokens of a key. Apple's rule; more often is answered TooManyProviderTokenUpdates."""

MAX_AGE = 60 * 60.0
"""Seconds, by Apple's clock. Apple's rule; older is answered ExpiredProviderToken."""

SKEW_TOLERANCE = 60.0
"""Seconds that our clock may differ from Apple's before it is reported. Far more than NTP leaves, far less than what rejects a
token."""

MAX_GONE = 16
"""Keys that are no longer configured and whose tokens are remembered. Nobody tries more of them within 20 minutes."""

MAX_DATE = 64
"""Characters of a Date header that are looked at; it has 29."""

_DATE = re.compile(r"[A-Za-z0-9 ,:+-]+")


def mint(key: SigningKey, issued_at: int) -> str:
    """A provider token, dated `issued_at` (Unix seconds): header, claims and signature of RFC 7515, ES256 of RFC 7518 section
    3.4."""
    head = _encoded({"alg": "ES256", "kid": key.key_id}) + b"." + _encoded({"iss": key.team_id, "iat": issued_at})
    r, s = decode_dss_signature(key.key.sign(head, ec.ECDSA(hashes.SHA256())))
    return (head + b"." + _base64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _encoded(document: dict[str, object]) -> bytes:
    return _base64(json.dumps(document, separators=(",", ":")).encode())


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


class ProviderToken:
    """The token of one key, as it is now.

    `epoch` grows by one with each token: what is encoded with a token (the prefix of a request) is right as long as its epoch is
    this one, over reloads too.
    """

    __slots__ = ("_bearer", "_epoch", "_issued_at", "_key", "_min_interval", "_minted_at", "_renew_after", "refused", "rejected")

    def __init__(
        self, key: SigningKey, *, renew_after: float = RENEW_AFTER, min_interval: float = MIN_INTERVAL, epoch: int = 0
    ) -> None:
        if not 0 < min_interval <= renew_after < MAX_AGE:
            raise ValueError(f"renew_after must be from min_interval to below {MAX_AGE:.0f} s")
        self._key = key
        self._renew_after = renew_after
        self._min_interval = min_interval
        self._bearer = b""
        self._epoch = epoch
        self._minted_at = 0.0
        self._issued_at = 0.0
        self.rejected = 0
        """Answers ExpiredProviderToken that concerned the token in use."""
        self.refused = 0
        """How many of those could not be helped by a new token, because the last was too young."""

    def __repr__(self) -> str:
        return f"<ProviderToken of {self._key.team_id}/{self._key.key_id}, epoch {self._epoch}>"

    @property
    def key(self) -> SigningKey:
        """The key that signs it."""
        return self._key

    @property
    def epoch(self) -> int:
        """Which token it is; 0, or what was given, before the first."""
        return self._epoch

    def bearer(self, now: float, wall: float) -> bytes:
        """The value of the `authorization` header for a push that goes out now; a new token if it is time for one."""
        if not self._bearer:
            self._mint(now, wall)
        elif now - self._minted_at >= self._renew_after or not -SKEW_TOLERANCE <= wall - self._issued_at < self._renew_after:
            self._renew(now, wall)
        return self._bearer

    def age(self, now: float) -> float:
        """Seconds since it was minted, 0.0 before the first."""
        return now - self._minted_at if self._bearer else 0.0

    def expired(self, epoch: int, now: float, wall: float) -> float:
        """Apple answered ExpiredProviderToken to a push that carried the token of `epoch`.

        Gives 0.0: send the push again, `bearer` is another one. Or the seconds until there may be a new one; the clock of this
        machine is the likely cause then, since Apple calls a token expired that is younger than 20 minutes here.
        """
        if epoch != self._epoch or not self._bearer:
            return 0.0  # one of the many that were under way when the first came back
        self.rejected += 1
        if self._renew(now, wall):
            return 0.0
        self.refused += 1
        return self._min_interval - (now - self._minted_at)

    def _renew(self, now: float, wall: float) -> bool:
        if now - self._minted_at < self._min_interval:
            return False
        self._mint(now, wall)
        return True

    def _mint(self, now: float, wall: float) -> None:
        issued_at = int(wall)
        self._bearer = b"bearer " + mint(self._key, issued_at).encode()
        self._minted_at = now
        self._issued_at = issued_at
        self._epoch += 1


class ProviderTokens:
    """The tokens of all keys of the configuration. Those of the last keys that are gone are remembered: one that comes back within
    20 minutes, because its successor was not the right one, must not have a new token."""

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self._tokens: dict[SigningKey, ProviderToken] = {}
        self._gone: dict[SigningKey, ProviderToken] = {}  # the latest at the end
        self.reload(keys)

    def of(self, key: SigningKey) -> ProviderToken:
        """The token of this key. Raises KeyError for one that is not configured."""
        return self._tokens[key]

    def reload(self, keys: Iterable[SigningKey]) -> None:
        """The keys are these from now on. One that stays the same keeps its token, so that a reload costs no update at Apple's;
        what has a ProviderToken of a key that is gone may finish with it. Another key under the ids of one that was there goes on
        with its epochs."""
        known = self._gone | self._tokens
        epochs: dict[tuple[str, str], int] = {}
        for token in known.values():
            name = (token.key.team_id, token.key.key_id)
            epochs[name] = max(token.epoch, epochs.get(name, 0))
        self._tokens = {key: known.get(key) or ProviderToken(key, epoch=epochs.get((key.team_id, key.key_id), 0)) for key in keys}
        gone = [(key, token) for key, token in known.items() if key not in self._tokens]
        self._gone = dict(gone[-MAX_GONE:])


@dataclass(frozen=True, slots=True)
class Skew:
    """How far our clock is from Apple's: `seconds` above 0 when ours is behind. As a text it is a line for the log."""

    seconds: float

    def __str__(self) -> str:
        word = "behind" if self.seconds > 0 else "ahead of"
        return f"the clock of this machine is {abs(self.seconds):.0f} s {word} Apple's"


class ClockWatch:
    """Notices that our clock and Apple's differ, from the Date headers of answers. Tells it once, and again when it has changed
    much or is over."""

    __slots__ = ("_told", "offset", "tolerance")

    def __init__(self, tolerance: float = SKEW_TOLERANCE) -> None:
        self.tolerance = tolerance
        self.offset = 0.0
        """Seconds to add to our clock to get Apple's, as last seen."""
        self._told = 0.0

    def saw(self, date: str, wall: float) -> Skew | None:
        """A Date header came at `wall`. Gives what is to be reported, None for nothing new; a header that is no date is nothing."""
        theirs = read_date(date)
        if theirs is None:
            return None
        self.offset = theirs - wall
        seen = self.offset if abs(self.offset) > self.tolerance else 0.0
        if abs(seen - self._told) <= self.tolerance:
            return None
        self._told = seen
        return Skew(self.offset)

    @property
    def is_off(self) -> bool:
        """Whether the clocks differ by more than is tolerated."""
        return abs(self.offset) > self.tolerance


def read_date(text: str) -> float | None:
    """Unix seconds of an HTTP date (RFC 9110 section 5.6.7), None for what is none."""
    if len(text) > MAX_DATE or not _DATE.fullmatch(text):
        return None
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
