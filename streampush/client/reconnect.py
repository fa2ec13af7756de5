"""When to try again, where, and when not to: docs/protocol.md section 12.

A state machine without clock or socket: it is told how a connection ended and decides about the next one.

- Never connected yet: `FIRST_TRIES` more tries, `FIRST_TRY_DELAY` apart, then the backoff.
- Connection lost: the first try at a random point of the announced `first_jitter`, then the backoff: at random below 1, 2, 4 ...
  times `backoff_initial`, at most `backoff_max`.
- `degraded_after` failed tries later: short connections that only collect the backlog, at intervals that double from
  `backoff_max` on, half fixed and half random, until two in a row have succeeded.
- What the server advised in GoAway overrides the delays, and some advice ends it. A code that is not known counts by its advice
  alone. Before Welcome a GoAway is a failed try as well, and the longer of the two waits counts.
- A GoAway that names a time is an appointment: it is kept to the moment, counted from when it was named, and is no failed try.
- A connection that lived less than `STABLE_AFTER` did not end the trouble: the count of tries goes on, or a server that
  greets and drops would be hammered for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from streampush.backoff import doubled
from streampush.client.events import StopReason
from streampush.protocol.codes import Advice, Code
from streampush.protocol.messages import ReconnectPolicy

FIRST_TRIES = 3
FIRST_TRY_DELAY = 0.5
STABLE_AFTER = 10.0
SHORT_SUCCESSES = 2
SHORT_DOUBLINGS = 4  # of the interval between short connections
LEAST_APPOINTMENT = 0.5  # seconds; before Welcome a shorter one is only advice, or a server could make us hammer it
LONGEST_APPOINTMENT = 3600.0

STOPPING: dict[Advice, StopReason] = {
    Advice.DO_NOT_RECONNECT: StopReason.TOLD,
    Advice.REAUTHENTICATE: StopReason.REAUTHENTICATE,
    Advice.RENEW_CERTIFICATE: StopReason.RENEW_CERTIFICATE,
    Advice.UPGRADE: StopReason.UPGRADE,
}


@dataclass(frozen=True, slots=True)
class Loss:
    """How a connection ended, or that it was never made.

    `by_peer`: code, advice and times are the server's; otherwise they are only for people. `credentials`: a certificate was
    refused, ours or theirs. `lived`: seconds since Welcome, None if there was none. `since_told`: seconds since the server named
    these times.
    """

    code: Code | int = 0
    advice: Advice = Advice.UNSPECIFIED
    detail: str = ""
    retry_after_ms: int = 0
    jitter_ms: int = 0
    by_peer: bool = False
    credentials: bool = False
    lived: float | None = None
    since_told: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Connect in `delay` seconds to the address of this index; `degraded`: a short connection. `appointed`: the server wants it
    then, and the application should keep that over a restart."""

    delay: float
    address: int
    degraded: bool = False
    appointed: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not connect again."""

    reason: StopReason
    code: Code | int
    detail: str


Decision: TypeAlias = Attempt | Stop


class Reconnect:
    """Decides about the next connection. `addresses`: how many there are, at least 1."""

    def __init__(self, addresses: int, random: Random, policy: ReconnectPolicy | None = None) -> None:
        if addresses < 1:
            raise ValueError("a client needs at least one address")
        self._addresses = addresses
        self._random = random
        self._policy = policy or ReconnectPolicy()
        self._address = 0
        self._first_tries = 0
        self._ever_connected = False
        self._away = False  # a connection was lost and no stable one has come since
        self._short = False  # what the last Attempt asked for
        self._shorts = 0  # short connections since the last stable one
        self._successes = 0  # of them, in a row
        self.tries = 0  # failed ones since the last stable connection

    @property
    def degraded(self) -> bool:
        """Whether the last Attempt asked for a short connection, and trouble is not over since."""
        return self._short

    def begin(self, appointed_in: float = 0.0, address: int = 0) -> Attempt:
        """The first connection of all; `appointed_in`: the server wants it in so many seconds at that address, as it once said."""
        if not 0.0 < appointed_in <= LONGEST_APPOINTMENT:
            return self._attempt(0.0)
        self._address = address
        return replace(self._attempt(appointed_in), appointed=True)

    def welcomed(self, policy: ReconnectPolicy) -> None:
        """The server has greeted and announced its policy, which is used from now on; what makes no sense in it is not."""
        self._policy = _sane(policy)
        self._ever_connected = True

    def short_closed(self) -> Attempt:
        """A short connection had all of the backlog and was closed by us. The second one in a row ends the trouble."""
        self._successes += 1
        if self._successes < SHORT_SUCCESSES:
            return self._attempt(self._short_interval())
        self._recover()
        return self._attempt(self._random.uniform(0, self._policy.first_jitter_ms / 1000))

    def lost(self, loss: Loss) -> Decision:
        """A connection ended or could not be made."""
        stop = _stop(loss)
        if stop is not None:
            return stop
        if loss.lived is not None and loss.lived >= STABLE_AFTER and not self._short:
            self._recover()
        self._successes = 0
        self._choose_address(loss)
        appointed_in = self._appointed_in(loss)
        if appointed_in is not None:
            self._away = self._away or loss.lived is not None
            return replace(self._attempt(appointed_in), appointed=True)
        return self._attempt(self._advised(loss, self._count(loss)))

    def _attempt(self, delay: float) -> Attempt:
        self._short = self.tries >= self._policy.degraded_after
        return Attempt(delay, self._address, self._short)

    def _recover(self) -> None:
        self._away = False
        self.tries = self._shorts = self._successes = 0

    def _choose_address(self, loss: Loss) -> None:
        """Elsewhere if we were told to, or if nobody answered at the last one."""
        if loss.advice is Advice.RECONNECT_ELSEWHERE if loss.by_peer else loss.lived is None:
            self._address = (self._address + 1) % self._addresses

    def _count(self, loss: Loss) -> float:
        """Counts the try; the table's delay in seconds."""
        if not self._ever_connected and self._first_tries < FIRST_TRIES:
            self._first_tries += 1
            return FIRST_TRY_DELAY
        if loss.lived is not None and not self._away and not self._short:
            self._away = True
            return self._random.uniform(0, self._policy.first_jitter_ms / 1000)
        self.tries += 1
        if self.tries >= self._policy.degraded_after:
            return self._short_interval()
        return self._random.uniform(0, self._span())

    def _appointed_in(self, loss: Loss) -> float | None:
        """Seconds until the moment that the server has named, if it has."""
        if not loss.by_peer or loss.advice not in (Advice.RECONNECT, Advice.RECONNECT_ELSEWHERE) or not loss.retry_after_ms:
            return None
        wait = min(LONGEST_APPOINTMENT, (loss.retry_after_ms + self._random.uniform(0, loss.jitter_ms)) / 1000)
        if loss.lived is None and wait < LEAST_APPOINTMENT:
            return None
        return max(0.0, wait - loss.since_told)

    def _advised(self, loss: Loss, table: float) -> float:
        """The delay that the server asked for, if it did, else the table's."""
        if not loss.by_peer or loss.advice is Advice.UNSPECIFIED:
            return table
        wait = (loss.retry_after_ms + self._random.uniform(0, loss.jitter_ms)) / 1000
        if loss.advice is Advice.SLOW_DOWN:
            wait = max(wait, self._span())
        if loss.lived is None:
            return max(wait, table)
        return wait or table

    def _short_interval(self) -> float:
        span = self._policy.backoff_max_ms / 1000 * float(2 ** min(self._shorts, SHORT_DOUBLINGS))
        self._shorts += 1
        return self._random.uniform(0.5, 1) * span

    def _span(self) -> float:
        """The span of the backoff's present step, in seconds."""
        policy = self._policy
        return doubled(policy.backoff_initial_ms, self.tries - 1, policy.backoff_max_ms) / 1000


def _sane(policy: ReconnectPolicy) -> ReconnectPolicy:
    """The policy, with the defaults for what was not announced: a backoff of 0 would hammer."""
    default = ReconnectPolicy()
    if policy == ReconnectPolicy(0, 0, 0, 0):
        return default
    initial = policy.backoff_initial_ms or default.backoff_initial_ms
    longest = max(initial, policy.backoff_max_ms or default.backoff_max_ms)
    return ReconnectPolicy(policy.first_jitter_ms, initial, longest, policy.degraded_after or default.degraded_after)


def _stop(loss: Loss) -> Stop | None:
    """Whether this loss is for good."""
    if loss.credentials:
        return Stop(StopReason.CREDENTIALS, loss.code, loss.detail)
    if not loss.by_peer:
        return None
    if loss.code == Code.REPLACED:
        return Stop(StopReason.REPLACED, loss.code, loss.detail)
    reason = STOPPING.get(loss.advice)
    return Stop(reason, loss.code, loss.detail) if reason is not None else None
