from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Unknown, UnknownPolicy, Why
from streampush.apns.retry import (
    MAX_RETRY_AFTER,
    Again,
    Attempt,
    Decision,
    GiveUp,
    Hold,
    Retries,
    RetryBudget,
    RetryPolicy,
    overall,
    read_retry_after,
)

NOW, WALL = 1000.0, 1_790_000_000.0
FAULT = Rejected(500, "InternalServerError")
SHUTDOWN = Rejected(503, "Shutdown")
LOST = Unknown(Why.CONNECTION_LOST)
TRIED = Attempt(tries=1, collapsible=True)
QUICK = RetryPolicy(server_error_wait=0.0)


def retries(policy: RetryPolicy = QUICK, seed: int = 1, budget: RetryBudget | None = None) -> Retries:
    return Retries(policy, budget or RetryBudget(NOW), Random(seed))


def decide(outcome: Outcome, attempt: Attempt = TRIED, policy: RetryPolicy = QUICK, wait: float = 0.0, seed: int = 1) -> Decision:
    return retries(policy, seed).plan(outcome, attempt, NOW, WALL, wait=wait)


def again(decision: Decision | None) -> Again:
    assert isinstance(decision, Again)
    return decision


def spread(outcome: Outcome, attempt: Attempt = TRIED, policy: RetryPolicy = QUICK) -> tuple[float, float]:
    delays = [again(decide(outcome, attempt, policy, seed=seed)).delay for seed in range(400)]
    return min(delays), max(delays)


@pytest.mark.parametrize(("tries", "top"), [(1, 1.0), (2, 2.0), (3, 4.0), (8, 128.0), (15, 900.0), (19, 900.0)])
def test_the_backoff_doubles_with_full_jitter_up_to_its_top(tries: int, top: float) -> None:
    low, high = spread(LOST, replace(TRIED, tries=tries))
    assert low < top * 0.05
    assert top * 0.95 < high <= top


@pytest.mark.parametrize("outcome", [Refused(Why.REFUSED_STREAM), Refused(Why.GONE_AWAY), NotSent(Why.NOT_WRITTEN), SHUTDOWN])
def test_what_was_turned_away_unseen_comes_back_soon(outcome: Outcome) -> None:
    low, high = spread(outcome)
    assert 0 <= low < high <= QUICK.soon


@pytest.mark.parametrize(
    ("outcome", "fresh"),
    [
        (Refused(Why.GONE_AWAY), True),
        (NotSent(Why.NOT_WRITTEN), True),
        (SHUTDOWN, True),
        (Rejected(400, "IdleTimeout"), True),
        (Rejected(403, "UnrelatedKeyIdInToken"), True),
        (Rejected(429, "TooManyProviderTokenUpdates"), True),
        (Refused(Why.REFUSED_STREAM), False),
        (Rejected(403, "ExpiredProviderToken"), False),
        (FAULT, False),
        (LOST, False),
    ],
)
def test_another_connection_is_taken_where_that_helps(outcome: Outcome, fresh: bool) -> None:
    assert again(decide(outcome)).fresh_connection is fresh


@pytest.mark.parametrize(
    ("outcome", "charged"),
    [
        (FAULT, True),
        (LOST, True),
        (Rejected(429, "TooManyRequests"), True),
        (SHUTDOWN, False),
        (Refused(Why.GONE_AWAY), False),
        (Refused(Why.REFUSED_STREAM), False),
        (NotSent(Why.QUEUE_FULL), False),
        (Rejected(403, "ExpiredProviderToken"), False),
    ],
)
def test_the_budget_pays_for_what_apple_worked_on(outcome: Outcome, charged: bool) -> None:
    assert again(decide(outcome)).charged is charged


def test_what_is_to_be_paid_stays_to_be_paid_when_it_was_not_sent() -> None:
    assert again(decide(NotSent(Why.QUEUE_FULL), replace(TRIED, charged=True))).charged


@pytest.mark.parametrize("outcome", [Rejected(403, "InvalidProviderToken"), Rejected(403, ""), NotSent(Why.CREDENTIAL_STOPPED)])
def test_a_push_waits_for_a_credential_that_was_stopped(outcome: Outcome) -> None:
    assert decide(outcome) == Hold()


@pytest.mark.parametrize(
    "outcome", [Delivered(""), Rejected(410, "Unregistered"), Rejected(400, "BadTopic"), NotSent(Why.CANCELLED)]
)
def test_what_is_decided_is_given_up(outcome: Outcome) -> None:
    assert decide(outcome) == GiveUp(outcome)


def test_what_may_have_been_shown_is_repeated_by_policy() -> None:
    plain = replace(TRIED, collapsible=False)
    assert decide(LOST, plain) == GiveUp(LOST)
    assert isinstance(decide(LOST, plain, RetryPolicy(unknown=UnknownPolicy.ALWAYS)), Again)
    assert decide(LOST, TRIED, RetryPolicy(unknown=UnknownPolicy.NEVER)) == GiveUp(LOST)


def test_the_last_try_is_the_last() -> None:
    policy = RetryPolicy(max_tries=3, server_error_wait=0.0)
    assert isinstance(decide(FAULT, replace(TRIED, tries=2), policy), Again)
    assert decide(FAULT, replace(TRIED, tries=3), policy) == GiveUp(FAULT)


def test_retry_after_is_obeyed_and_spread() -> None:
    low, high = spread(Rejected(503, "ServiceUnavailable", retry_after=20.0), policy=RetryPolicy())
    assert 20.0 <= low < 20.1
    assert 20.9 < high <= 21.0


def test_a_server_error_without_retry_after_waits_for_apples_fifteen_minutes() -> None:
    low, high = spread(FAULT, policy=RetryPolicy())
    assert 900.0 <= low < high <= 901.0


def test_the_wait_that_somebody_else_asks_for_is_the_least() -> None:
    assert again(decide(Rejected(429, "TooManyRequests"), wait=30.0)).delay == 30.0
    assert again(decide(Rejected(403, "ExpiredProviderToken"), wait=900.0)).delay == 900.0


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (Attempt(expiration=int(WALL)), Why.EXPIRED),
        (Attempt(expiration=int(WALL) - 1), Why.EXPIRED),
        (Attempt(deadline=NOW), Why.DEADLINE),
    ],
)
def test_nothing_goes_out_when_its_time_is_over(attempt: Attempt, why: Why) -> None:
    assert retries().ready(attempt, NOW, WALL) == GiveUp(NotSent(why))


@pytest.mark.parametrize(
    "attempt", [Attempt(), Attempt(expiration=0), Attempt(expiration=int(WALL) + 1), Attempt(deadline=NOW + 1)]
)
def test_what_has_time_left_goes_out(attempt: Attempt) -> None:
    assert retries().ready(attempt, NOW, WALL) is None


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (Rejected(503, "", retry_after=60.0), Rejected(503, "", retry_after=60.0)),
        (NotSent(Why.QUEUE_FULL), NotSent(Why.EXPIRED)),
        (Refused(Why.GONE_AWAY), NotSent(Why.EXPIRED)),
        (LOST, LOST),
    ],
)
def test_what_would_expire_while_it_waits_is_given_up_at_once(outcome: Outcome, end: Outcome) -> None:
    attempt = replace(TRIED, expiration=int(WALL) + 30)
    assert decide(outcome, attempt, wait=60.0) == GiveUp(end)


def test_a_push_that_apple_is_to_try_once_is_still_brought_to_apple() -> None:
    assert isinstance(decide(Refused(Why.REFUSED_STREAM), replace(TRIED, expiration=0)), Again)


def test_a_charged_try_waits_for_the_budget() -> None:
    budget = RetryBudget(NOW, saved=1.0, trickle=0.5)
    policy = retries(budget=budget)
    charged = replace(TRIED, charged=True)
    assert policy.ready(charged, NOW, WALL) is None
    waiting = again(policy.ready(charged, NOW, WALL))
    assert 2.0 <= waiting.delay <= 3.0
    assert waiting.charged
    assert policy.ready(TRIED, NOW, WALL) is None
    assert policy.ready(charged, NOW + 2.0, WALL + 2.0) is None


def test_those_that_wait_for_the_budget_do_not_come_back_together() -> None:
    policy = retries(budget=RetryBudget(NOW, saved=1.0))
    charged = replace(TRIED, charged=True)
    policy.ready(charged, NOW, WALL)
    delays = [again(policy.ready(charged, NOW, WALL)).delay for _ in range(400)]
    assert min(delays) < 1.05
    assert max(delays) > 1.95


def test_a_charged_try_that_would_wait_too_long_is_given_up() -> None:
    policy = retries(budget=RetryBudget(NOW, saved=1.0, trickle=0.1))
    charged = replace(TRIED, charged=True, deadline=NOW + 5.0)
    assert policy.ready(charged, NOW, WALL) is None
    assert policy.ready(charged, NOW, WALL) == GiveUp(NotSent(Why.DEADLINE))


EVENTS = st.lists(st.tuples(st.sampled_from(["success", "take"]), st.floats(0, 0.2)), max_size=300)


@settings(max_examples=100)
@given(EVENTS, st.floats(0, 1), st.floats(1, 20), st.floats(0.01, 5))
def test_repeats_are_never_more_than_the_budget_says(
    events: list[tuple[str, float]], ratio: float, saved: float, trickle: float
) -> None:
    budget = RetryBudget(NOW, ratio=ratio, saved=saved, trickle=trickle)
    now, successes, repeats = NOW, 0, 0
    for what, pause in events:
        now += pause
        if what == "success":
            budget.successes += 1
            successes += 1
            continue
        wait = budget.take(now)
        repeats += not wait
        assert 0.0 <= wait <= 1.0 / trickle + 1e-9
        assert repeats <= saved + ratio * successes + trickle * (now - NOW) + 1e-6


def test_an_idle_night_saves_up_no_more_than_it_may() -> None:
    budget = RetryBudget(NOW, saved=5.0)
    for _ in range(1000):
        budget.successes += 1
    assert sum(not budget.take(NOW) for _ in range(100)) == 5
    assert sum(not budget.take(NOW + 86_400) for _ in range(100)) == 5


@pytest.mark.parametrize(("ratio", "saved", "trickle"), [(-0.1, 1, 1), (1.1, 1, 1), (0.1, 0.5, 1), (0.1, 1, 0)])
def test_a_budget_that_makes_no_sense_is_refused(ratio: float, saved: float, trickle: float) -> None:
    with pytest.raises(ValueError, match="retry budget"):
        RetryBudget(NOW, ratio=ratio, saved=saved, trickle=trickle)


@settings(max_examples=200)
@given(
    st.sampled_from(
        [FAULT, SHUTDOWN, LOST, NotSent(Why.QUEUE_FULL), Refused(Why.GONE_AWAY), Rejected(429, "TooManyRequests", retry_after=7.0)]
    ),
    st.integers(0, 25),
    st.none() | st.integers(0, 2000).map(lambda seconds: int(WALL) + seconds),
    st.none() | st.floats(0, 2000).map(lambda seconds: NOW + seconds),
    st.floats(0, 1000),
    st.integers(0, 99),
)
def test_no_push_is_told_to_wait_beyond_its_time(
    outcome: Outcome, tries: int, expiration: int | None, deadline: float | None, wait: float, seed: int
) -> None:
    attempt = Attempt(tries, expiration, deadline, collapsible=True)
    match decide(outcome, attempt, RetryPolicy(), wait, seed):
        case Again(delay):
            assert delay >= wait
            assert tries < RetryPolicy().max_tries
            assert expiration is None or WALL + delay < expiration
            assert deadline is None or NOW + delay < deadline
        case GiveUp(end):
            assert end == outcome or isinstance(end, NotSent)
        case Hold():
            raise AssertionError("nothing here stops a credential")


@pytest.mark.parametrize(
    ("earlier", "last", "whole"),
    [
        (None, FAULT, FAULT),
        (LOST, NotSent(Why.EXPIRED), LOST),
        (LOST, FAULT, LOST),
        (LOST, Refused(Why.GONE_AWAY), LOST),
        (LOST, Delivered("id"), Delivered("id")),
        (FAULT, NotSent(Why.EXPIRED), NotSent(Why.EXPIRED)),
        (FAULT, LOST, LOST),
    ],
)
def test_what_may_have_been_shown_once_stays_so(earlier: Outcome | None, last: Outcome, whole: Outcome) -> None:
    assert overall(earlier, last) == whole


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("999999999", MAX_RETRY_AFTER),
        (format_datetime(datetime.fromtimestamp(WALL + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(WALL - 90, UTC), usegmt=True), 0.0),
        (format_datetime(datetime.fromtimestamp(WALL + 10_000_000, UTC), usegmt=True), MAX_RETRY_AFTER),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float) -> None:
    assert read_retry_after(text, WALL) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "1" * 10, "\uff11", "1\n2"])
def test_a_retry_after_that_is_neither_is_none(text: str) -> None:
    assert read_retry_after(text, WALL) is None
