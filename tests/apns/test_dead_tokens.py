from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.dead_tokens import MIN_ANSWERS, DeadTokens
from streampush.apns.outcome import Delivered, NotSent, Outcome, Rejected, Why

GONE = Rejected(410, "Unregistered", 5000)
BAD = Rejected(400, "BadDeviceToken")


def verdict(tokens: DeadTokens, outcome: Outcome, registered_at_ms: int = 1000, sent_at_ms: int = 9000) -> bool:
    tokens.note(outcome)
    return tokens.may_drop(outcome, registered_at_ms=registered_at_ms, sent_at_ms=sent_at_ms)


@pytest.mark.parametrize(("registered_at_ms", "dropped"), [(4999, True), (5000, False), (5001, False)])
def test_a_token_is_dropped_unless_it_was_registered_since(registered_at_ms: int, dropped: bool) -> None:
    assert verdict(DeadTokens(), GONE, registered_at_ms) is dropped


@pytest.mark.parametrize(("registered_at_ms", "dropped"), [(8999, True), (9000, False)])
def test_without_a_timestamp_the_moment_of_the_push_counts(registered_at_ms: int, dropped: bool) -> None:
    assert verdict(DeadTokens(), Rejected(410, "ExpiredToken"), registered_at_ms) is dropped


@pytest.mark.parametrize(
    "outcome", [Delivered(""), NotSent(Why.QUEUE_FULL), Rejected(400, "BadPriority"), Rejected(503, "Unregistered")]
)
def test_other_outcomes_drop_no_token(outcome: Outcome) -> None:
    assert not verdict(DeadTokens(), outcome)


def test_a_bad_token_is_dropped_while_others_are_delivered() -> None:
    tokens = DeadTokens()
    tokens.note(Delivered(""))
    assert verdict(tokens, BAD)


def test_a_first_answer_that_may_be_the_configurations_fault_drops_nothing() -> None:
    tokens = DeadTokens()
    assert not verdict(tokens, BAD)
    assert tokens.spared == 1


def test_a_wrong_environment_drops_no_token_but_the_first_few() -> None:
    tokens = DeadTokens()
    tokens.note(Delivered(""))
    dropped = sum(verdict(tokens, BAD) for _ in range(10_000))
    assert dropped < MIN_ANSWERS
    assert tokens.suspects_configuration
    assert tokens.spared == 10_000 - dropped


def test_tokens_that_are_certainly_dead_are_dropped_in_any_number() -> None:
    tokens = DeadTokens()
    assert all(verdict(tokens, GONE) for _ in range(1000))
    assert not tokens.suspects_configuration


def test_suspicion_ends_when_pushes_are_delivered_again() -> None:
    tokens = DeadTokens(window=100)
    for _ in range(100):
        tokens.note(BAD)
    assert tokens.suspects_configuration
    for _ in range(60):
        tokens.note(Delivered(""))
    assert not tokens.suspects_configuration
    assert verdict(tokens, BAD)


@given(st.lists(st.sampled_from([Delivered(""), GONE, BAD, NotSent(Why.DEADLINE)]), max_size=120), st.integers(1, 50))
def test_the_share_is_that_of_the_last_answers(outcomes: list[Outcome], window: int) -> None:
    tokens = DeadTokens(window=window)
    for outcome in outcomes:
        tokens.note(outcome)
    last = [outcome for outcome in outcomes if not isinstance(outcome, NotSent)][-window:]
    assert tokens.suspects_configuration is (len(last) >= MIN_ANSWERS and last.count(BAD) * 2 > len(last))
