"""The circuit breaker between one app and one host: when the other side is in trouble, pushes wait here and not there.

    CLOSED ──(too many bad, or too many slow)──► OPEN ──(rest over)──► HALF_OPEN ──(the probe is good)──► CLOSED
                                                  ▲                        │
                                                  └──(it is bad: rest doubled)

Everything that is sent has a permit, and an answer counts only with a permit of the present state: what comes back late from
before the breaker opened neither keeps it open nor closes it.

"Slow" follows the measured latency: some times the 99.9th percentile of what was normal. It is learned while the breaker is
closed, in steps, and grows by a bounded factor a step, so that an outage that begins slowly is not learned as the new normal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from streampush.apns.latency import LatencyHistogram

_SLOTS = 10
"""Parts of the sliding window: it is forgotten by tenths."""


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Times in seconds."""

    window: float = 10.0
    """What is looked at. Long enough for a few retries of one bad connection to drown in what is good."""
    min_calls: int = 20
    """Answers in it before it says anything: three bad ones in the night are no outage."""
    max_bad: float = 0.5
    """Share of bad answers that opens it. Below it, more pushes get through than not."""
    max_slow: float = 0.5
    """Share of slow answers that opens it."""
    first_rest: float = 1.0
    """How long it is open at first. A restart of a server takes about as long."""
    max_rest: float = 60.0
    """How long it is open at most; it doubles with each probe that fails."""
    probe_timeout: float = 15.0
    """After which a probe without a verdict is given up and another may go. Above the deadline of a push that waits for its
    answer."""
    slow_factor: float = 3.0
    """How many times the 99.9th percentile is slow."""
    min_slow_after: float = 1.0
    """What is answered within it is never slow, however fast the rest is. Nobody sees a second of delay in a notification."""
    max_slow_after: float = 10.0
    """What takes longer is slow, however slow the rest is."""
    learn_interval: float = 10.0
    """How often the threshold follows what was measured."""
    learn_calls: int = 1000
    """Answers that a step needs: with fewer there is no 99.9th percentile."""
    growth: float = 1.5
    """How much the threshold grows at most in a step."""


class Breaker:
    """Asked before a push goes out, told of every outcome that says something (outcome.health)."""

    __slots__ = (
        "_generation",
        "_histogram",
        "_learned_at",
        "_look_at",
        "_policy",
        "_probed_at",
        "_reopens_at",
        "_rest",
        "_window",
        "common_permit",
        "opened",
        "slow_after",
        "state",
    )

    def __init__(self, now: float, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._histogram = LatencyHistogram()
        self._learned_at = now
        self._window = _Window(self._policy.window / _SLOTS, now)
        self._look_at = now
        self._generation = 1
        self.common_permit = 1
        """Of every push while the breaker is closed; -1 while it is not."""
        self._rest = self._policy.first_rest
        self._reopens_at = 0.0
        self._probed_at = 0.0
        self.state = State.CLOSED
        self.slow_after = self._policy.min_slow_after
        """Seconds from which on an answer is slow."""
        self.opened = 0
        """How often it has opened."""

    def permit(self, now: float) -> int:
        """A permit to send one push now, to be given back with its outcome; 0: no push may go out."""
        if self.state is State.CLOSED:
            return self._generation
        if self.state is State.OPEN and now >= self._reopens_at:
            self.state = State.HALF_OPEN
        elif self.state is State.OPEN or now - self._probed_at < self._policy.probe_timeout:
            return 0
        self._generation += 1
        self._probed_at = now
        return self._generation

    def wait(self, now: float) -> float:
        """Seconds until it is worth asking for a permit again; 0.0: now."""
        if self.state is State.CLOSED:
            return 0.0
        at = self._reopens_at if self.state is State.OPEN else self._probed_at + self._policy.probe_timeout
        return max(0.0, at - now)

    def good(self, permit: int, latency: float, now: float) -> None:
        """The other side answered, `latency` seconds after the push was written."""
        if permit == self.common_permit:
            self.all_good(permit, (latency,), now)
        elif permit != self._generation:
            pass
        elif latency <= self.slow_after:
            self._close(now)
        else:  # it works, and slowly: give way a little, or a service that has become slower for good is never used again
            self.slow_after = min(self.slow_after * self._policy.growth, self._policy.max_slow_after)
            self._open(now, self._rest)

    def all_good(self, permit: int, latencies: Sequence[float], now: float) -> None:
        """As `good`, for answers that came together, to pushes of one permit. They are judged together; there is one at least.

        To be called with the common permit: a permit that is not that of now says nothing of now.
        """
        if permit != self.common_permit:
            return
        slow_after = self.slow_after
        slow = sum(latency > slow_after for latency in latencies) if max(latencies) > slow_after else 0
        self._histogram.add_all(latencies)
        if now >= self._look_at:
            self._look(now)
        window = self._window
        window.calls += len(latencies)
        if slow:
            window.slow += slow
            self._judge(now)

    def bad(self, permit: int, now: float) -> None:
        """The other side failed, or there was no answer."""
        if permit != self._generation:
            return
        if self.state is State.CLOSED:
            window = self._window
            if now >= window.ends:
                window.turn(now)
            window.calls += 1
            window.bad += 1
            self._judge(now)
        else:
            self._open(now, min(self._rest * 2, self._policy.max_rest))

    def silent(self, permit: int) -> None:
        """The push says nothing of the other side (it was not sent, or turned away for want of room). A probe like that may be
        repeated at once."""
        if permit == self._generation:
            self._probed_at = float("-inf")

    def _judge(self, now: float) -> None:
        policy, (calls, bad, slow) = self._policy, self._window.totals()
        if calls >= policy.min_calls and (bad >= policy.max_bad * calls or slow >= policy.max_slow * calls):
            self._open(now, policy.first_rest)

    def _open(self, now: float, rest: float) -> None:
        self._rest = rest
        self.common_permit = -1
        self._reopens_at = now + rest
        self._generation += 1
        self.state = State.OPEN
        self.opened += 1

    def _close(self, now: float) -> None:
        self._window = _Window(self._policy.window / _SLOTS, now)
        self._learned_at = self._look_at = now
        self.state = State.CLOSED
        self.common_permit = self._generation

    def _look(self, now: float) -> None:
        """A slot of the window is over, or it is time to learn."""
        if now - self._learned_at >= self._policy.learn_interval:
            self._learn(now)
        if now >= self._window.ends:
            self._window.turn(now)
        self._look_at = min(self._window.ends, self._learned_at + self._policy.learn_interval)

    def _learn(self, now: float) -> None:
        policy = self._policy
        self._learned_at = now
        if self._histogram.count < policy.learn_calls:
            return
        wanted = self._histogram.percentile(0.999) * policy.slow_factor
        self.slow_after = min(max(wanted, policy.min_slow_after), self.slow_after * policy.growth, policy.max_slow_after)
        self._histogram.fade()


class _Window:
    """Counts of the last slots of time. Who counts looks at `ends` first, and adds to the slot that runs."""

    __slots__ = ("_length", "_past", "bad", "calls", "ends", "slow")

    def __init__(self, length: float, now: float) -> None:
        self._length = length
        self._past: deque[tuple[int, int, int]] = deque(maxlen=_SLOTS - 1)
        self.ends = now + length
        self.calls = self.bad = self.slow = 0

    def turn(self, now: float) -> None:
        """Begins the slot of this time; those that passed without an answer are empty ones."""
        passed = int((now - self.ends) / self._length) + 1
        self._past.append((self.calls, self.bad, self.slow))
        self._past.extend([(0, 0, 0)] * min(passed - 1, _SLOTS))
        self.ends += passed * self._length
        self.calls = self.bad = self.slow = 0

    def totals(self) -> tuple[int, int, int]:
        """Calls, bad ones and slow ones in the window."""
        calls, bad, slow = self.calls, self.bad, self.slow
        for past in self._past:
            calls, bad, slow = calls + past[0], bad + past[1], slow + past[2]
        return calls, bad, slow
