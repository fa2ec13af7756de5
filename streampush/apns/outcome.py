"""How a push ended: values, and the rules about sending it again.

- Delivered: Apple has it.
- Rejected: Apple said no, and why. What to do is in reasons.py.
- NotSent: not a byte of it was written to anybody.
- Refused: it was written, and the other side said, in the words of HTTP/2, that it did not look at it (RFC 9113 sections 6.8, 8.7).
- Unknown: it was written, and no answer came. It may have been shown, or not.

Every push ends in exactly one of them, within its deadline. NotSent and Refused may be repeated with the same apns-id without a
second thought; Unknown only where a second showing does no harm: with a collapse id, where it replaces the first, or where the
app's policy says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeAlias

from streampush.apns.reasons import Action, treatment
from streampush.quick_values import quick_value


class Why(StrEnum):
    """Why there is no answer. Few, so that they can name a metric."""

    # NotSent, for good
    EXPIRED = "expired"
    """Its expiration passed before it was sent."""
    DEADLINE = "deadline"
    """It was to be sent by a time, and there was no room until then."""
    CANCELLED = "cancelled"
    """The caller took it back in time."""
    # NotSent, another time perhaps
    QUEUE_FULL = "queue_full"
    NO_CONNECTION = "no_connection"
    """None could be made: address, TLS, proxy."""
    NOT_WRITTEN = "not_written"
    """The connection ended while it waited for its turn to be written."""
    BREAKER_OPEN = "breaker_open"
    CREDENTIAL_STOPPED = "credential_stopped"
    """Apple refuses the key or the certificate, and nobody has replaced it."""
    TOPIC_STOPPED = "topic_stopped"
    """Apple does not let this key or certificate push to the topic, and nobody has replaced it."""
    DEVICE_RESTS = "device_rests"
    """Apple said that this device gets too many."""
    NO_ROOM = "no_room"
    """As many are under way as may be."""
    APP_RATE = "app_rate"
    """The app is above the rate that it is configured for."""
    RETRY_BUDGET = "retry_budget"
    """It is a repeat, and there were enough of them for now."""
    STOPPING = "stopping"
    """This process ends."""
    # Refused
    REFUSED_STREAM = "refused_stream"
    GONE_AWAY = "gone_away"
    """Above the last stream that a GOAWAY names."""
    # Unknown
    NO_ANSWER = "no_answer"
    """None within its deadline."""
    CONNECTION_LOST = "connection_lost"
    STREAM_RESET = "stream_reset"
    """The other side gave it up with another code than REFUSED_STREAM."""
    BAD_ANSWER = "bad_answer"
    """Something came, and it was no answer of APNs."""


_FINAL = frozenset({Why.EXPIRED, Why.DEADLINE, Why.CANCELLED})


@quick_value(frozen=True, slots=True)
class Delivered:
    """Apple took it (status 200). That it was shown Apple does not tell.

    `apns_id`: as answered. `unique_id`: only from the development environment, for Apple's Push Notifications Console.
    """

    apns_id: str
    unique_id: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Apple's no. `reason`: its word, "" if it gave none that could be read. `timestamp_ms`: Unix milliseconds at which Apple
    knew the device token to be dead (410 only). `retry_after`: seconds, from the header of that name."""

    status: int
    reason: str
    timestamp_ms: int | None = None
    apns_id: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not a byte of it was written. `retry_after`: seconds after which it is worth another try, where that is known."""

    why: Why
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Written, and certainly not looked at."""

    why: Why


@dataclass(frozen=True, slots=True)
class Unknown:
    """Written, and nobody knows."""

    why: Why


Outcome: TypeAlias = Delivered | Rejected | NotSent | Refused | Unknown


class UnknownPolicy(StrEnum):
    """Whether a push is repeated that may have been shown already."""

    COLLAPSIBLE = "collapsible"
    """With a collapse id: the second one replaces the first. The default."""
    ALWAYS = "always"
    """Rather twice than never."""
    NEVER = "never"
    """Rather never than twice."""


def may_be_repeated(outcome: Outcome, *, collapsible: bool, policy: UnknownPolicy = UnknownPolicy.COLLAPSIBLE) -> bool:
    """Whether the same push, with the same apns-id, may be sent again without asking anybody.

    `collapsible`: it has a collapse id. When, and whether there is time left, is for retry.py.
    """
    match outcome:
        case Delivered():
            return False
        case NotSent(why):
            return why not in _FINAL
        case Refused():
            return True
        case Unknown():
            return policy is UnknownPolicy.ALWAYS or (collapsible and policy is UnknownPolicy.COLLAPSIBLE)
        case Rejected(status, reason):
            return treatment(status, reason).repeat


class Health(Enum):
    """What an outcome says about the other side, for circuit breakers."""

    GOOD = "good"
    BAD = "bad"
    SILENT = "silent"
    """Nothing: it did not get there, or was turned away for want of room."""


def health(outcome: Outcome) -> Health:
    """A rejection of one push is a good sign: somebody is there and answers. Answers of family 5XX, and none, are bad ones."""
    match outcome:
        case Delivered():
            return Health.GOOD
        case Rejected(status):
            return Health.BAD if status >= 500 else Health.GOOD
        case NotSent(why):
            return Health.BAD if why is Why.NO_CONNECTION else Health.SILENT
        case Refused():
            return Health.SILENT
        case Unknown():
            return Health.BAD


def is_token_dead(outcome: Outcome) -> bool:
    """Whether Apple says that the device token is of no use. Whether it may be forgotten: dead_tokens.py."""
    return isinstance(outcome, Rejected) and treatment(outcome.status, outcome.reason).action is Action.DROP_TOKEN
