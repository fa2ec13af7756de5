"""What we believe of Apple, held against what the local Apple does: it was written from Apple's pages, not from our code."""

from __future__ import annotations

import json
import uuid

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.answers import read_answer
from streampush.apns.errors import BadPush
from streampush.apns.outcome import Delivered, Rejected, is_token_dead
from streampush.apns.payload import BACKGROUND, Alert, alert_payload, background_payload, json_payload
from streampush.apns.provider_token import RENEW_AFTER, ProviderToken
from streampush.apns.push import PUSH_TYPES, ApnsPush, PushType, check_push, topic_for
from streampush.apns.reasons import REASONS
from streampush.apns.signing_key import parse_signing_key
from streampush.apns.simulator.accounts import Devices, SigningKey
from streampush.apns.simulator.judging import Judge, Validation, Verdict
from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.validation import TOKEN_DIGITS, Request

WALL = 1_790_000_000.0
TEAM, KEY_ID, BUNDLE = "TEAM123456", "KEY1234567", "com.example.app"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
P8 = PRIVATE.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
OURS = parse_signing_key(P8, TEAM, KEY_ID)
THEIRS = Validation(keys=(SigningKey(KEY_ID, TEAM, PRIVATE.public_key()),))


def request(push: ApnsPush, bearer: bytes) -> Request:
    headers = [
        (b":method", b"POST"),
        (b":path", b"/3/device/" + push.device_token.encode()),
        (b"authorization", bearer),
        (b"apns-topic", push.topic.encode()),
        (b"apns-push-type", push.push_type.encode()),
        (b"apns-priority", str(push.priority).encode()),
    ]
    if push.expiration is not None:
        headers.append((b"apns-expiration", str(push.expiration).encode()))
    if push.collapse_id:
        headers.append((b"apns-collapse-id", push.collapse_id.encode()))
    if push.apns_id:
        headers.append((b"apns-id", push.apns_id.encode()))
    return Request(headers, push.payload, len(push.payload))


class Apple:
    """A judge, a provider and a token, with both clocks."""

    def __init__(self, devices: Devices | None = None) -> None:
        self.judge = Judge(THEIRS, devices or Devices(), wall_offset=WALL)
        self.provider = self.judge.meet()
        self.token = ProviderToken(OURS)

    def push(self, push: ApnsPush, now: float = 0.0) -> Verdict:
        return self.judge.judge(request(push, self.token.bearer(now, WALL + now)), self.provider, now)


PAYLOADS = st.one_of(
    st.text(min_size=1, max_size=1500).map(lambda body: Alert(body=body)),
    st.integers(0, 99).map(lambda badge: Alert(badge=badge, sound="default")),
)
TOKENS = st.binary(min_size=32, max_size=100).map(bytes.hex)
ODD_TOKENS = st.sampled_from([63, 64, 65, 67, 200, 201, 202]).map(lambda digits: "a" * digits) | st.text(max_size=5).map(
    "aA".__mul__(32).__add__
)
TYPES = st.sampled_from(PushType)


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    TOKENS | TOKENS | ODD_TOKENS,
    PAYLOADS,
    TYPES,
    st.sampled_from([10, 5, 5, 1, 3]),
    st.none() | st.integers(0, 1 << 32) | st.integers(-5, 1 << 50),
    st.integers(0, 70).map("c".__mul__) | st.text(max_size=3),
    st.none() | st.uuids(),
)
def test_a_push_that_we_find_right_is_right_for_apple(
    data: st.DataObject,
    token: str,
    alert: Alert,
    push_type: PushType,
    priority: int,
    expiration: int | None,
    collapse_id: str,
    apns_id: uuid.UUID | None,
) -> None:
    topic = topic_for(BUNDLE, data.draw(st.sampled_from([push_type, push_type, PushType.ALERT, PushType.VOIP])))
    try:
        payload = background_payload(BACKGROUND) if push_type is PushType.BACKGROUND else alert_payload(alert)
        push = ApnsPush(token, payload, topic, push_type, priority, expiration, collapse_id, str(apns_id or ""))
        check_push(push)
    except BadPush:
        return
    verdict = Apple().push(push)
    assert verdict.status == 200
    assert not apns_id or verdict.apns_id == push.apns_id


@pytest.mark.parametrize("push_type", list(PushType))
@pytest.mark.parametrize("priority", [10, 5, 1])
def test_we_and_apple_agree_on_every_pair_of_type_and_priority(push_type: PushType, priority: int) -> None:
    push = ApnsPush("ab" * 32, b'{"aps":{}}', topic_for(BUNDLE, push_type), push_type, priority)
    accepted = Apple().push(push).status == 200
    assert accepted or push_type is PushType.BACKGROUND
    assert (priority in PUSH_TYPES[push_type].priorities) <= accepted


@pytest.mark.parametrize("push_type", list(PushType))
def test_we_and_apple_agree_on_the_size_of_a_payload(push_type: PushType) -> None:
    limit = PUSH_TYPES[push_type].max_payload
    for size, reason in ((limit, None), (limit + 1, Reason.PAYLOAD_TOO_LARGE)):
        payload = json_payload({"a": "x" * (size - 8)})
        assert len(payload) == size
        assert Apple().push(ApnsPush("ab" * 32, payload, topic_for(BUNDLE, push_type), push_type, 5)).reason is reason


@pytest.mark.parametrize("reason", list(Reason))
def test_what_apple_answers_is_known_with_its_status(reason: Reason) -> None:
    assert REASONS[reason.word].status == reason.status


def test_a_dead_device_is_understood_with_its_timestamp() -> None:
    devices = Devices()
    devices.unregister("ab" * 32, WALL - 100.5)
    verdict = Apple(devices).push(ApnsPush("ab" * 32, b'{"aps":{"badge":1}}', BUNDLE))
    assert verdict.reason is not None
    body = json.dumps({"reason": verdict.reason.word, "timestamp": verdict.timestamp_ms}).encode()
    outcome = read_answer(verdict.status, body, apns_id=verdict.apns_id)
    assert outcome == Rejected(410, "Unregistered", int((WALL - 100.5) * 1000), verdict.apns_id)
    assert is_token_dead(outcome)


def test_an_answer_of_success_is_understood() -> None:
    apple = Apple()
    verdict = apple.push(ApnsPush("ab" * 32, b'{"aps":{"badge":1}}', BUNDLE))
    unique_id = apple.judge.unique_id(verdict.apns_id)
    assert read_answer(verdict.status, apns_id=verdict.apns_id, unique_id=unique_id) == Delivered(verdict.apns_id, unique_id)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 2 * RENEW_AFTER), min_size=1, max_size=30))
def test_apple_takes_our_provider_tokens_for_days_and_never_finds_them_renewed_too_often(pauses: list[float]) -> None:
    apple, now = Apple(), 0.0
    for pause in pauses:
        now += pause
        assert apple.push(ApnsPush("ab" * 32, b'{"aps":{"badge":1}}', BUNDLE), now).reason is None


@pytest.mark.parametrize("behind", [2 * 3600.0, 61 * 60.0])
def test_with_a_clock_that_is_far_behind_apple_calls_the_token_expired_and_we_say_when_there_may_be_another(behind: float) -> None:
    apple = Apple()
    push = ApnsPush("ab" * 32, b'{"aps":{"badge":1}}', BUNDLE)
    stale = apple.token.bearer(0.0, WALL - behind)
    assert apple.judge.judge(request(push, stale), apple.provider, 0.0).reason is Reason.EXPIRED_PROVIDER_TOKEN
    assert apple.token.expired(1, 60.0, WALL - behind + 60) == 1140.0


def test_the_lengths_of_a_device_token_that_apple_takes_are_taken_by_us() -> None:
    for digits in TOKEN_DIGITS:
        check_push(ApnsPush("a" * digits, b'{"aps":{"badge":1}}', BUNDLE))
