"""Who may begin a TLS handshake: asked before a TLS object exists, because the handshake is what costs.

Sans-IO, time is an input. A connection that is not admitted is refused at once: nobody waits in a queue of ours, the client's
own backoff is the queue. docs/protocol.md section 8 (1003, 1004, 1007) says what clients make of a refusal.

A few of those who are refused are let in only to be told so, behind TLS, with the moment at which they may come back: a handshake
now spares those of all their tries until then. How many has bounds of its own, or refusing would cost what it is to save.
"""

from __future__ import annotations

import ipaddress

from streampush.config import AdmissionConfig
from streampush.protocol.codes import Code

CONNECTION_LIMIT = "connection_limit"
ADDRESS_LIMIT = "address_limit"
ACCEPT_RATE = "accept_rate"
HANDSHAKE_LIMIT = "handshake_limit"
DRAINING = "draining"

CODE_OF = {CONNECTION_LIMIT: Code.CONNECTION_LIMIT, ACCEPT_RATE: Code.ACCEPT_RATE_LIMIT, DRAINING: Code.DRAINING}
"""What those who are let in to be told are told, by the reason of the refusal. The other reasons are the fault of one address, or
that there are too many handshakes already."""

TELL_SHARE = 0.25
"""Of the accept rate, for those who are only told."""

_IPV6_PREFIX = 64  # what a site or a subscriber gets: an attacker has all of it


def address_key(address: str) -> str:
    """What counts as one address: an IPv4 address, also one mapped into IPv6, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ipaddress.AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))


class Admission:
    """Counts connections and handshakes against their limits.

    `cap` is the number of connections that the process can really carry, at most `config.max_connections`. Every admitted
    connection owes exactly one `handshake_done` and, after it, exactly one `released`; so does one that is let in to be told.
    """

    def __init__(self, config: AdmissionConfig, cap: int) -> None:
        self.draining = False
        self.connections = 0
        self.told = 0
        self.handshakes = 0
        self._config = config
        self._cap = min(cap, config.max_connections)
        self._addresses: dict[str, int] = {}
        self._shaking: dict[str, int] = {}  # handshakes under way, by address
        self._tokens = _Bucket(config.accept_rate, config.accept_burst)
        self._tell_tokens = _Bucket(config.accept_rate * TELL_SHARE, config.max_told)

    @property
    def cap(self) -> int:
        """How many connections are let in at most."""
        return self._cap

    @property
    def addresses(self) -> int:
        """How many addresses have a connection now."""
        return len(self._addresses)

    def admit(self, address: str, now: float) -> str | None:
        """None, and the connection is counted; or the reason of the refusal, and nothing is. `now` in monotonic seconds."""
        if self.draining:
            return DRAINING
        if self.connections >= self._cap:
            return CONNECTION_LIMIT
        key = address_key(address)
        held = self._addresses.get(key, 0)
        if held >= self._config.max_per_address:
            return ADDRESS_LIMIT
        shaking = self._shaking.get(key, 0)
        if self.handshakes >= self._config.max_handshakes or shaking >= self._config.max_handshakes_per_address:
            return HANDSHAKE_LIMIT
        if not self._tokens.take(now):
            return ACCEPT_RATE
        self._count(key)
        self.connections += 1
        return None

    def admit_to_tell(self, reason: str, address: str, now: float) -> bool:
        """Whether a connection that was refused for this reason is let in, to be told so; it is counted then."""
        key = address_key(address)
        if reason not in CODE_OF or self.told >= self._config.max_told:
            return False
        if self._addresses.get(key, 0) >= self._config.max_per_address:
            return False
        shaking = self._shaking.get(key, 0)
        if self.handshakes >= self._config.max_handshakes or shaking >= self._config.max_handshakes_per_address:
            return False
        if not self._tell_tokens.take(now):
            return False
        self._count(key)
        self.told += 1
        return True

    def _count(self, key: str) -> None:
        self._addresses[key] = self._addresses.get(key, 0) + 1
        self._shaking[key] = self._shaking.get(key, 0) + 1
        self.handshakes += 1

    def handshake_done(self, address: str) -> None:
        """The handshake of an admitted connection succeeded or failed."""
        if not _one_less(self._shaking, address_key(address)):
            raise ValueError(f"{address}: a handshake ended that was not admitted")
        self.handshakes -= 1

    def released(self, address: str, *, told: bool = False) -> None:
        """An admitted connection is gone; `told`: it was let in to be told."""
        if not _one_less(self._addresses, address_key(address)):
            raise ValueError(f"{address}: a connection ended that was not admitted")
        if told:
            self.told -= 1
        else:
            self.connections -= 1


class _Bucket:
    """Full at first, and refilled at `rate` tokens a second up to `burst`."""

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = self._burst
        self._refilled_at: float | None = None

    def take(self, now: float) -> bool:
        """Takes a token, if there is one."""
        elapsed = 0.0 if self._refilled_at is None else max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def _one_less(counts: dict[str, int], key: str) -> bool:
    """Takes one from a count, and drops it at zero; False if there is none."""
    held = counts.get(key, 0)
    if held > 1:
        counts[key] = held - 1
    elif held:
        del counts[key]
    return held > 0
