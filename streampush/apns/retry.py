"""When a push is sent again, and when it is given up.

Pure policy: time and chance are inputs. `Retries.plan` is asked when a push has ended, `Retries.ready` before every try; what is
left of a push's time is looked at by both, so that none goes out that has expired.

- Backoff: at random between nothing and 1, 2, 4 ... times the first delay ("full jitter": what failed together does not come back
  together).
- What was turned away without a look (a refused stream, a connection at its end) comes back soon: another stream will do.
- A Retry-After is obeyed. Without one, what was answered 5XX waits for Apple's 15 minutes.
- Repeats of what Apple worked on and failed at (5XX, 429, no answer) are at most a tenth on top of what it takes (`RetryBudget`): a
  service in trouble does not get more work by its trouble. What it did not look at, or turned away for the credential or the
  connection, is not an extra load: a GOAWAY over a thousand streams is made good at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from streampush.apns.outcome import NotSent, Outcome, Refused, Rejected, Unknown, UnknownPolicy, Why, may_be_repeated
from streampush.apns.provider_token import read_date
from streampush.apns.reasons import Action, treatment
from streampush.backoff import doubled
from streampush.quick_values import quick_value

MAX_RETRY_AFTER = 86_400.0
"""Seconds. What a Retry-After can ask for at most; nothing that is worth a push waits longer."""

_FRESH = frozenset({Action.RETRY, Action.REST_CONNECTION, Action.NEW_CONNECTION})
"""What another connection cures."""

_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon. Times in seconds."""

    first_delay: float = 1.0
    """Top of the first backoff. Below it a fault of the network is seldom over."""
    soon: float = 0.05
    """Top of the first backoff for what was turned away unseen: some round trips, so that a limit that was lowered is known."""
    max_delay: float = 900.0
    """Top of any backoff: Apple's 15 minutes. Longer would let most pushes expire unsent."""
    server_error_wait: float = 900.0
    """Least wait after a 5XX without Retry-After. Apple's page asks for 15 minutes; smaller is at your own risk, 0 leaves the
    backoff."""
    max_tries: int = 20
    """Of one push, the first included. With max_delay some hours; what was not possible by then is seldom wanted."""
    unknown: UnknownPolicy = UnknownPolicy.COLLAPSIBLE


@quick_value(frozen=True, slots=True)
class Attempt:
    """A push, as far as its repeats are concerned.

    `tries`: made so far. `expiration`: as the push has it (0: Apple is to try once, which does not keep us from getting it there;
    None: never expires). `deadline`: monotonic seconds by which it must have ended, None for no such time. `charged`: the next try
    takes from the budget, as the last decision said.
    """

    tries: int = 0
    expiration: int | None = None
    deadline: float | None = None
    collapsible: bool = False
    charged: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Ask `ready` in `delay` seconds.

    `fresh_connection`: not over the connection that it came back from. `charged`: for the next Attempt.
    """

    delay: float
    fresh_connection: bool = False
    charged: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it until the credential has been replaced, or its time is over."""


@quick_value(frozen=True, slots=True)
class GiveUp:
    """It has ended for good, like this."""

    outcome: Outcome


Decision: TypeAlias = Again | Hold | GiveUp


RETRY_SHARE = 0.1
"""Repeats for each push that Apple takes: more, and an outage is met with a flood."""

RETRY_STOCK = 100
"""Repeats that can be saved up, and are there at the start: they let a small sender repeat at all."""


class RetryBudget:
    """Requests that may be repeats: a share of those that succeed, a few saved up, and a trickle when nothing succeeds."""

    __slots__ = ("_at", "_max_saved", "_ratio", "_tokens", "_trickle", "successes")

    def __init__(self, now: float, *, ratio: float = RETRY_SHARE, saved: float = RETRY_STOCK, trickle: float = 1.0) -> None:
        """`ratio`: repeats per success, a tenth. `saved`: repeats that can be saved up, and are there at the start; they let a
        small sender repeat at all. `trickle`: repeats a second, whatever succeeds, so that the end of an outage is found out;
        must be above 0."""
        if not (0 <= ratio <= 1 and saved >= 1 and trickle > 0):
            raise ValueError("a retry budget needs a ratio from 0 to 1, at least 1 saved and a trickle above 0")
        self._ratio = ratio
        self._max_saved = saved
        self._trickle = trickle
        self._tokens = saved
        self._at = now
        self.successes = 0
        """Pushes that Apple took since a repeat was asked for; to be counted by who learns of one."""

    def take(self, now: float) -> float:
        """Takes one repeat and gives 0.0, or takes none and gives the seconds until there is one if nothing succeeds meanwhile."""
        earned, self.successes = self.successes * self._ratio, 0
        if now > self._at:
            earned += (now - self._at) * self._trickle
            self._at = now
        self._tokens = min(self._max_saved, self._tokens + earned)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._trickle


class Retries:
    """Decides about the pushes of one app to one host."""

    __slots__ = ("_budget", "_policy", "_random")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, random: Random) -> None:
        self._policy = policy
        self._budget = budget
        self._random = random

    def over(self, attempt: Attempt, now: float, wall: float) -> GiveUp | None:
        """The end of a push whose time is over, None while it has some left."""
        why = _is_over(attempt, now, wall)
        return None if why is None else GiveUp(NotSent(why))

    def ready(self, attempt: Attempt, now: float, wall: float) -> Again | GiveUp | None:
        """Asked before each try, the first too: None to send it now, or what else is to be done. Takes from the budget for a
        charged one."""
        over = self.over(attempt, now, wall)
        if over is not None:
            return over
        if not attempt.charged:
            return None
        wait = self._budget.take(now)
        if not wait:
            return None
        delay = wait + self._random.uniform(0.0, self._policy.first_delay)  # or all that wait would come back together
        return _in_time(Again(delay, charged=True), NotSent(Why.DEADLINE), attempt, now, wall)

    def plan(self, outcome: Outcome, attempt: Attempt, now: float, wall: float, *, wait: float = 0.0) -> Decision:
        """What to do with a push that ended like this; `attempt` counts the try that it came from.

        `wait`: seconds that somebody else asks for: the rest of a device (rates.py), the next provider token.
        """
        policy = self._policy
        may_be = may_be_repeated(outcome, collapsible=attempt.collapsible, policy=policy.unknown)
        if not may_be or attempt.tries >= policy.max_tries:
            return GiveUp(outcome)
        match outcome:
            case NotSent(Why.CREDENTIAL_STOPPED):
                return Hold()
            case NotSent(why):
                soon = why is Why.NOT_WRITTEN
                delay = self._backoff(attempt.tries, policy.soon if soon else policy.first_delay)
                again = Again(max(delay, wait), fresh_connection=soon, charged=attempt.charged)
            case Refused(why):
                delay = self._backoff(attempt.tries, policy.soon)
                again = Again(max(delay, wait), fresh_connection=why is Why.GONE_AWAY)
            case Rejected():
                action = treatment(outcome.status, outcome.reason).action
                if action is Action.STOP_CREDENTIAL:
                    return Hold()
                again = self._after_rejection(outcome, action, attempt.tries, wait)
            case _:
                again = Again(max(self._backoff(attempt.tries, policy.first_delay), wait), charged=True)
        return _in_time(again, outcome, attempt, now, wall)

    def _after_rejection(self, outcome: Rejected, action: Action, tries: int, wait: float) -> Again:
        policy = self._policy
        fresh = action in _FRESH
        soon = fresh or action is Action.NEW_PROVIDER_TOKEN
        delay = self._backoff(tries, policy.soon if soon else policy.first_delay)
        if outcome.retry_after is not None:
            delay += outcome.retry_after
        elif action is Action.LATER:
            delay += policy.server_error_wait
        return Again(max(delay, wait), fresh, charged=not soon)

    def _backoff(self, tries: int, first: float) -> float:
        return self._random.uniform(0.0, doubled(first, tries - 1, self._policy.max_delay))


def _in_time(again: Again, outcome: Outcome, attempt: Attempt, now: float, wall: float) -> Again | GiveUp:
    over = _is_over(attempt, now + again.delay, wall + again.delay)
    if over is None:
        return again
    return GiveUp(outcome if isinstance(outcome, Rejected | Unknown) else NotSent(over))


def _is_over(attempt: Attempt, now: float, wall: float) -> Why | None:
    if attempt.expiration and wall >= attempt.expiration:
        return Why.EXPIRED
    if attempt.deadline is not None and now >= attempt.deadline:
        return Why.DEADLINE
    return None


def overall(earlier: Outcome | None, last: Outcome) -> Outcome:
    """How a push ended that was tried several times: `earlier` is what this gave for the tries before.

    Delivered is delivered. Otherwise, what may have been shown once may have been shown, whatever the later tries say.
    """
    return earlier if isinstance(earlier, Unknown) and isinstance(last, NotSent | Refused | Rejected) else last


def read_retry_after(text: str, wall: float) -> float | None:
    """Seconds of a Retry-After header, a number or a date (RFC 9110 section 10.2.3); at most MAX_RETRY_AFTER, None for what is
    neither."""
    text = text.strip(" \t")
    if _SECONDS.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER)
    date = read_date(text)
    return None if date is None else min(max(0.0, date - wall), MAX_RETRY_AFTER)
