from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.answers import MAX_BODY, read_answer, read_reason
from streampush.apns.client_figures import named
from streampush.apns.outcome import (
    Delivered,
    Health,
    NotSent,
    Outcome,
    Refused,
    Rejected,
    Unknown,
    UnknownPolicy,
    Why,
    health,
    is_token_dead,
    may_be_repeated,
)
from streampush.apns.reasons import REASONS, Action, treatment

APPLES = {
    400: "BadCollapseId BadDeviceToken BadExpirationDate BadMessageId BadPriority BadTopic DeviceTokenNotForTopic DuplicateHeaders "
    "IdleTimeout InvalidPushType MissingDeviceToken MissingTopic PayloadEmpty TopicDisallowed",
    403: "BadCertificate BadCertificateEnvironment ExpiredProviderToken Forbidden InvalidProviderToken MissingProviderToken "
    "UnrelatedKeyIdInToken BadEnvironmentKeyIdInToken",
    404: "BadPath",
    405: "MethodNotAllowed",
    410: "ExpiredToken Unregistered",
    413: "PayloadTooLarge",
    429: "TooManyProviderTokenUpdates TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable Shutdown",
}
NOT_TO_BE_RETRIED = "BadDeviceToken DeviceTokenNotForTopic ExpiredToken Unregistered PayloadTooLarge"
REPEATABLE = [NotSent(Why.NOT_WRITTEN), NotSent(Why.QUEUE_FULL), Refused(Why.GONE_AWAY), Refused(Why.REFUSED_STREAM)]


@pytest.mark.parametrize(("status", "reason"), [(status, word) for status, words in APPLES.items() for word in words.split()])
def test_every_reason_of_apples_table_is_known_with_its_status(status: int, reason: str) -> None:
    assert REASONS[reason].status == status
    assert treatment(status, reason) is REASONS[reason]


@pytest.mark.parametrize("reason", NOT_TO_BE_RETRIED.split())
def test_what_apple_says_not_to_retry_is_not_retried(reason: str) -> None:
    assert not REASONS[reason].repeat


@pytest.mark.parametrize(
    ("status", "action"),
    [
        (400, Action.NEVER),
        (403, Action.STOP_CREDENTIAL),
        (404, Action.NEVER),
        (410, Action.DROP_TOKEN),
        (418, Action.NEVER),
        (429, Action.REST_DEVICE),
        (301, Action.NEVER),
        (500, Action.LATER),
        (502, Action.LATER),
        (599, Action.LATER),
    ],
)
@pytest.mark.parametrize("reason", ["", "SomethingNew"])
def test_a_reason_that_is_not_known_is_treated_by_its_status(status: int, action: Action, reason: str) -> None:
    assert treatment(status, reason).action is action


def test_no_token_is_dropped_because_of_a_server_that_failed() -> None:
    assert treatment(503, "Unregistered").action is Action.LATER


def test_a_known_reason_counts_with_another_status_of_a_refusal() -> None:
    assert treatment(400, "Unregistered").action is Action.DROP_TOKEN


@pytest.mark.parametrize("outcome", REPEATABLE)
@pytest.mark.parametrize("policy", list(UnknownPolicy))
def test_what_was_not_looked_at_is_repeated_whatever_the_policy(outcome: Outcome, policy: UnknownPolicy) -> None:
    assert may_be_repeated(outcome, collapsible=False, policy=policy)


@pytest.mark.parametrize("why", [Why.EXPIRED, Why.DEADLINE, Why.CANCELLED])
def test_what_is_no_longer_wanted_is_not_repeated(why: Why) -> None:
    assert not may_be_repeated(NotSent(why), collapsible=True, policy=UnknownPolicy.ALWAYS)


@pytest.mark.parametrize(
    ("collapsible", "policy", "repeated"),
    [
        (True, UnknownPolicy.COLLAPSIBLE, True),
        (False, UnknownPolicy.COLLAPSIBLE, False),
        (False, UnknownPolicy.ALWAYS, True),
        (True, UnknownPolicy.NEVER, False),
    ],
)
def test_what_may_have_been_shown_is_repeated_by_policy(collapsible: bool, policy: UnknownPolicy, repeated: bool) -> None:
    assert may_be_repeated(Unknown(Why.NO_ANSWER), collapsible=collapsible, policy=policy) is repeated


def test_what_was_delivered_is_not_repeated() -> None:
    assert not may_be_repeated(Delivered("id"), collapsible=True, policy=UnknownPolicy.ALWAYS)


@pytest.mark.parametrize(("reason", "repeated"), [("Shutdown", True), ("ExpiredProviderToken", True), ("BadPriority", False)])
def test_a_rejection_is_repeated_by_its_reason(reason: str, repeated: bool) -> None:
    assert may_be_repeated(Rejected(REASONS[reason].status, reason), collapsible=False) is repeated


@pytest.mark.parametrize(
    ("outcome", "sign"),
    [
        (Delivered(""), Health.GOOD),
        (Rejected(410, "Unregistered"), Health.GOOD),
        (Rejected(503, ""), Health.BAD),
        (Unknown(Why.NO_ANSWER), Health.BAD),
        (NotSent(Why.NO_CONNECTION), Health.BAD),
        (NotSent(Why.QUEUE_FULL), Health.SILENT),
        (Refused(Why.REFUSED_STREAM), Health.SILENT),
    ],
)
def test_what_an_outcome_says_about_the_other_side(outcome: Outcome, sign: Health) -> None:
    assert health(outcome) is sign


def test_a_dead_token_is_seen_by_its_reason_or_status() -> None:
    assert is_token_dead(Rejected(410, ""))
    assert is_token_dead(Rejected(400, "BadDeviceToken"))
    assert not is_token_dead(Rejected(400, "BadPriority"))
    assert not is_token_dead(Unknown(Why.NO_ANSWER))


def test_an_answer_of_200_is_delivered() -> None:
    assert read_answer(200, apns_id="A-1", unique_id="u") == Delivered("A-1", "u")


def test_a_rejection_has_reason_timestamp_and_retry_after() -> None:
    body = b'{"reason":"Unregistered","timestamp":1790000000123}'
    assert read_answer(410, body, apns_id="A") == Rejected(410, "Unregistered", 1790000000123, "A")
    assert read_answer(503, b'{"reason":"Shutdown"}', retry_after=3.0) == Rejected(503, "Shutdown", retry_after=3.0)


def test_a_timestamp_counts_with_status_410_only() -> None:
    assert read_answer(400, b'{"reason":"BadDeviceToken","timestamp":1}') == Rejected(400, "BadDeviceToken")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[]",
        b'"reason"',
        b"[" * 4000,
        b'{"reason":17}',
        b'{"reason":"two words"}',
        b'{"reason":"Bad\\nWord"}',
        b'{"reason":"' + b"A" * 65 + b'"}',
        b'{"reason":"Bad"' + b" " * MAX_BODY + b"}",
    ],
)
def test_a_body_that_is_no_answer_of_apples_gives_no_reason(body: bytes) -> None:
    assert read_answer(400, body) == Rejected(400, "")


@pytest.mark.parametrize("timestamp", ["-1", "1.5", "true", '"1"', "null", "9007199254740993000"])
def test_a_timestamp_that_is_none_is_left_out(timestamp: str) -> None:
    assert read_reason(f'{{"reason":"Unregistered","timestamp":{timestamp}}}'.encode()) == ("Unregistered", None)


@pytest.mark.parametrize("status", [0, 100, 204, 299, 600, 999])
def test_a_status_that_says_neither_yes_nor_no_leaves_it_unknown(status: int) -> None:
    assert read_answer(status) == Unknown(Why.BAD_ANSWER)


@given(
    st.integers(0, 999),
    st.binary(max_size=80) | st.recursive(st.text(), st.lists).map(lambda v: json.dumps({"reason": v}).encode()),
)
def test_whatever_comes_it_is_an_outcome(status: int, body: bytes) -> None:
    outcome = read_answer(status, body, apns_id="x y", unique_id="\x00")
    assert isinstance(outcome, Delivered | Rejected | Unknown)
    may_be_repeated(outcome, collapsible=False)
    health(outcome)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Rejected(503, "ServiceUnavailable"), ("rejected", "ServiceUnavailable")),
        (Rejected(400, "SomethingNew"), ("rejected", "other")),
        (Rejected(502, ""), ("rejected", "status 502")),
    ],
)
def test_a_rejection_is_named_by_its_reason_if_it_is_known_else_by_its_status(outcome: Rejected, words: tuple[str, str]) -> None:
    assert named(outcome) == words
