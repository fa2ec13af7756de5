"""What there is in a client at a moment, for metrics and `streampush apns status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streampush.apns.breaker import State
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected
from streampush.apns.reasons import REASONS


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """A client now.

    `queued`: pushes that wait for room, `resting` for their next try, `held` for another credential; `queued_bytes` of all of them.
    `limit`: how many may be under way. `delivered`, `outcomes`: since the start; `outcomes` by what `named` gives. `token_age`:
    seconds, None with a certificate. `stopped_by`: Apple's word if it refuses the credential, or empty. `clock_offset`: seconds
    that Apple's clock is ahead of ours.
    """

    queued: int
    resting: int
    held: int
    queued_bytes: int
    in_flight: int
    limit: int
    breaker: State
    delivered: int
    outcomes: Mapping[tuple[str, str], int]
    token_age: float | None
    stopped_by: str
    stopped_topics: tuple[str, ...]
    clock_offset: float


def named(outcome: Outcome) -> tuple[str, str]:
    """Kind and reason of an outcome in words that are few: a reason that Apple's pages do not have is "other"; for none stands the
    status, which tells what somebody in between has answered."""
    match outcome:
        case Delivered():
            return "delivered", ""
        case Rejected(status, reason):
            return "rejected", (reason if reason in REASONS else "other") if reason else f"status {status}"
        case NotSent(why):
            return "not_sent", why.value
        case Refused(why):
            return "refused", why.value
        case _:
            return "unknown", outcome.why.value
