"""The chaos table: what a server does, what is sent to it, and what must come of it.

Every row runs through the pool alone and through the client: in memory against the simulated Apple (test_chaos.py), and over TLS
against that and against Node's http2 (test_chaos_tls.py). What the server processed is the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streampush.apns.exchange import Fault
from streampush.apns.http2 import Limits, Verdict
from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected
from streampush.apns.simulator import Reason, When
from streampush.apns.simulator.orders import Freeze, GoAway, OneStreamFirst, Order, RefuseStream, Reject
from tests.apns.simulator.providers import PAYLOAD

ROUNDING = 1e-6
"""Seconds."""
FOUR_KIB = b'{"aps":{"alert":"' + b"x" * 4000 + b'"}}'


class How(StrEnum):
    """How a push ended, in the words of outcome.py."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    NOT_SENT = "not sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fate:
    """What its sender was told of one push. `reason`: Apple's word, of a rejection. `late`: seconds from its deadline to its end.
    `harmless`: it was to be sent again although it may have been shown."""

    apns_id: str
    how: How
    reason: str
    late: float
    harmless: bool = False


_OF_VERDICTS = {Verdict.NOT_WRITTEN: How.NOT_SENT, Verdict.REFUSED: How.REFUSED, Verdict.UNKNOWN: How.UNKNOWN}


def how_of_fault(fault: Fault) -> How:
    return _OF_VERDICTS[fault.verdict]


def how_of_outcome(outcome: Outcome) -> tuple[How, str]:
    """With the reason."""
    match outcome:
        case Delivered():
            return How.DELIVERED, ""
        case Rejected(reason=reason):
            return How.REJECTED, reason
        case NotSent():
            return How.NOT_SENT, ""
        case Refused():
            return How.REFUSED, ""
    return How.UNKNOWN, ""


class Seen(Protocol):
    """What a server knows: the simulator's Ledger, or Node's."""

    @property
    def over_limit(self) -> int: ...
    @property
    def faults(self) -> Collection[object]: ...
    @property
    def outcomes(self) -> Counter[str]: ...
    def times_accepted(self, apns_id: str) -> int: ...


class Sender(Protocol):
    """Sends pushes on a fake clock, and does `then` when one ends."""

    then: Callable[[], None] | None

    def push(self, count: int = 1, timeout: float = 10.0) -> object: ...


def follow_up(sender: Sender, count: int, timeout: float = 10.0) -> None:
    """So many pushes are sent from now on from within the end of others; not of those that end before `push` returns."""
    left, sending = count, False

    def follow() -> None:
        nonlocal left, sending
        if left and not sending:
            left, sending = left - 1, True
            sender.push(1, timeout=timeout)
            sending = False

    sender.then = follow


@dataclass(frozen=True, slots=True)
class Batch:
    """Pushes that are sent at once, when those before have ended. `timeout`: seconds that each has."""

    pushes: int
    ends: frozenset[How] = frozenset({How.DELIVERED})
    payload: bytes = PAYLOAD
    timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class Row:
    """`lost`: connections that end over it. `again`: whether requests come back unanswered, to be sent once more or not."""

    orders: tuple[Order, ...]
    batches: tuple[Batch, ...]
    lost: int = 0
    again: bool = False
    http2: Limits | None = None


EVERY_TENTH_REFUSED = Row((RefuseStream(When(every=10)),), (Batch(200),), again=True)
ORDERLY_GOAWAY_AT_THE_20TH = Row((GoAway(When(at=20)),), (Batch(60),), lost=1, again=True)
COLD_CONNECTION_OF_ONE_STREAM = Row((OneStreamFirst(),), (Batch(100),))
ALL_REJECTED = Row((Reject(Reason.BAD_DEVICE_TOKEN),), (Batch(4000, frozenset({How.REJECTED}), timeout=60.0),))
FOUR_KIB_IN_SMALL_WINDOWS = Row((), (Batch(200, payload=FOUR_KIB),))
STOPS_ANSWERING = Row(
    (Freeze(When(at=101)),),
    # What is lost is less than half, or the client's breaker would open for a second.
    (Batch(100), Batch(50, frozenset({How.UNKNOWN, How.NOT_SENT}), timeout=1.0), Batch(30)),
    lost=1,
    again=True,
    http2=Limits(ping_timeout=0.5),
)
ROWS = {
    "every_tenth_of_200_refused": EVERY_TENTH_REFUSED,
    "orderly_goaway_at_the_20th_of_60": ORDERLY_GOAWAY_AT_THE_20TH,
    "100_on_a_cold_connection_of_one_stream": COLD_CONNECTION_OF_ONE_STREAM,
    "4000_rejections_with_bodies": ALL_REJECTED,
    "200_of_4_kib_in_windows_of_65535": FOUR_KIB_IN_SMALL_WINDOWS,
    "server_that_stops_answering": STOPS_ANSWERING,
}


def check_told(fates: Sequence[Fate], seen: Seen, lateness: float = ROUNDING) -> None:
    """Holds in any chaos: each ended in time, none came to its device twice, and what its sender was told is so."""
    for fate in fates:
        assert fate.late <= lateness, fate
        times = seen.times_accepted(fate.apns_id)
        assert times <= 1 or fate.harmless, f"doubled: {fate}"
        if fate.how is not How.UNKNOWN:
            assert (times > 0) == (fate.how is How.DELIVERED), fate
    assert not seen.faults, seen.faults


def check_row(row: Row, fates: Sequence[Fate], seen: Seen, returned: int, lateness: float = ROUNDING) -> None:
    """What that row demands. `fates`: of all its pushes, in order. `returned`: requests that came back unanswered. `lateness`:
    seconds that a busy machine may be late."""
    check_told(fates, seen, lateness)
    at = 0
    for batch in row.batches:
        of_batch = fates[at : at + batch.pushes]
        at += batch.pushes
        assert {fate.how for fate in of_batch} <= batch.ends, Counter(fate.how for fate in of_batch)
    assert len(fates) == at
    if not any(fate.how is How.UNKNOWN for fate in fates):
        assert seen.outcomes == Counter(fate.reason for fate in fates if fate.how in (How.DELIVERED, How.REJECTED))
    assert (returned > 0) == row.again, returned
    assert seen.over_limit == 0
