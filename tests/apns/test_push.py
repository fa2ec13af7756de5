from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.errors import BadPush
from streampush.apns.push import (
    MAX_DEVICE_TOKEN,
    PUSH_TYPES,
    ApnsPush,
    Priority,
    PushType,
    check_push,
    check_topic,
    topic_for,
)

TOKEN = "0badc0de" * 8
BUNDLE = "com.example.app"


def push(**changes: object) -> ApnsPush:
    fields: dict[str, object] = {"device_token": TOKEN, "payload": b'{"aps":{"alert":"hi"}}', "topic": BUNDLE}
    return ApnsPush(**(fields | changes))  # type: ignore[arg-type]


def refused(**changes: object) -> BadPush:
    with pytest.raises(BadPush) as caught:
        check_push(push(**changes))
    return caught.value


def test_a_plain_push_is_right() -> None:
    check_push(push())


def test_every_field_at_once_is_right() -> None:
    check_push(push(priority=5, expiration=0, collapse_id="order 17", apns_id=str(uuid.uuid4())))


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("", "empty"),
        ("abc", "odd number"),
        ("zz" * 32, "not hexadecimal"),
        ("<" + TOKEN + ">", "not hexadecimal"),
        (TOKEN[:8] + " " + TOKEN[8:], "not hexadecimal"),
        (TOKEN + "\n", "not hexadecimal"),
        ("a" * 202, "202 characters, the limit is 200"),
        ("\uff11\uff12", "not hexadecimal"),
    ],
)
def test_a_bad_device_token_is_named_and_not_shown(token: str, problem: str) -> None:
    error = refused(device_token=token)
    assert error.field == "device_token"
    assert problem in error.problem
    assert not token or token not in str(error)


@given(st.binary(min_size=1, max_size=MAX_DEVICE_TOKEN))
def test_a_device_token_of_any_bearable_length_is_right(token: bytes) -> None:
    check_push(push(device_token=token.hex()))
    check_push(push(device_token=token.hex().upper()))


@pytest.mark.parametrize("push_type", list(PushType))
def test_the_size_of_a_payload_is_checked_to_the_byte(push_type: PushType) -> None:
    limit = 5120 if push_type is PushType.VOIP else 4096
    of_type = {"push_type": push_type, "priority": 5, "topic": topic_for(BUNDLE, push_type)}
    check_push(push(payload=b'{"a":"' + b"x" * (limit - 8) + b'"}', **of_type))
    error = refused(payload=b'{"a":"' + b"x" * (limit - 5) + b'"}', **of_type)
    assert error.problem == f"{limit + 3} bytes of JSON, 3 above the limit of {limit}"


@pytest.mark.parametrize("payload", [b"", b"{}"])
def test_an_empty_payload_is_refused(payload: bytes) -> None:
    assert refused(payload=payload).problem == "is empty"


@pytest.mark.parametrize("payload", [b"hello", b"[1]", b'{"aps":1', b'"aps"'])
def test_a_payload_that_is_evidently_no_json_object_is_refused(payload: bytes) -> None:
    assert refused(payload=payload).problem == "is no JSON object"


@pytest.mark.parametrize("priority", [10, 1, 0, 7])
def test_a_background_push_needs_priority_5(priority: int) -> None:
    error = refused(push_type=PushType.BACKGROUND, priority=priority)
    assert error.field == "priority"
    assert "must be 5" in error.problem


@pytest.mark.parametrize("push_type", [each for each in PushType if each is not PushType.BACKGROUND])
def test_the_other_types_take_any_priority_of_apple_and_no_other(push_type: PushType) -> None:
    of_type = {"push_type": push_type, "topic": topic_for(BUNDLE, push_type)}
    for priority in (Priority.IMMEDIATE, Priority.CONSIDERATE, Priority.QUIET):
        check_push(push(priority=priority, **of_type))
    assert "10 or 5 or 1" in refused(priority=2, **of_type).problem


def test_a_push_type_that_is_none_is_refused() -> None:
    error = refused(push_type="sms")
    assert error.field == "push_type"
    assert "alert, background" in error.problem


def test_a_push_type_as_plain_text_is_as_good() -> None:
    check_push(push(push_type="alert"))
    assert refused(push_type="background").field == "priority"


@pytest.mark.parametrize(
    ("push_type", "topic"),
    [
        (PushType.ALERT, BUNDLE),
        (PushType.BACKGROUND, BUNDLE),
        (PushType.MDM, "com.apple.mgmt.External.0badc0de"),
        (PushType.VOIP, BUNDLE + ".voip"),
        (PushType.COMPLICATION, BUNDLE + ".complication"),
        (PushType.FILEPROVIDER, BUNDLE + ".pushkit.fileprovider"),
        (PushType.LIVEACTIVITY, BUNDLE + ".push-type.liveactivity"),
        (PushType.LOCATION, BUNDLE + ".location-query"),
        (PushType.PUSHTOTALK, BUNDLE + ".voip-ptt"),
        (PushType.WIDGETS, BUNDLE + ".push-type.widgets"),
        (PushType.CONTROLS, BUNDLE + ".push-type.controls"),
    ],
)
def test_each_type_has_its_topic(push_type: PushType, topic: str) -> None:
    check_topic(topic, push_type)
    if PUSH_TYPES[push_type].suffix:
        assert topic_for(BUNDLE, push_type) == topic
        with pytest.raises(BadPush, match="needs a topic"):
            check_topic(BUNDLE, push_type)
        with pytest.raises(BadPush, match="needs a topic"):
            check_topic(PUSH_TYPES[push_type].suffix.removeprefix("."), push_type)
        with pytest.raises(BadPush, match="belongs to another push type"):
            check_topic(topic, PushType.ALERT)


@pytest.mark.parametrize(
    "topic", ["", "a b", "com..example", ".com", "com.", "com/example", "com.ex\u00e4mple", "a" * 256, "com.x\r\nx: y"]
)
def test_what_is_no_bundle_id_is_refused(topic: str) -> None:
    assert refused(topic=topic).field == "topic"


@pytest.mark.parametrize("expiration", [-1, 1 << 32, 1_790_000_000_000])
def test_an_expiration_out_of_range_is_refused(expiration: int) -> None:
    assert refused(expiration=expiration).field == "expiration"


def test_an_expiration_of_hundreds_of_digits_is_not_shown() -> None:
    assert len(refused(expiration=10**300).problem) < 100


def test_an_expiration_in_milliseconds_is_guessed() -> None:
    assert "milliseconds" in refused(expiration=1_790_000_000_000).problem


def test_a_collapse_id_has_at_most_64_bytes() -> None:
    check_push(push(collapse_id="c" * 64))
    assert refused(collapse_id="c" * 65).problem == "65 bytes, the limit is 64"


@pytest.mark.parametrize("collapse_id", ["a\r\nb", " a", "a ", "\x7f", "\u00e4", "\ud800"])
def test_a_collapse_id_that_no_header_carries_is_refused(collapse_id: str) -> None:
    assert refused(collapse_id=collapse_id).field == "collapse_id"


A_UUID = "123e4567-e89b-42d3-a456-426614174000"


@pytest.mark.parametrize("apns_id", ["17", A_UUID[:-1], "ABCDEF00" + A_UUID[8:], A_UUID.replace("-", ""), A_UUID + "\n"])
def test_an_apns_id_is_a_uuid(apns_id: str) -> None:
    assert refused(apns_id=apns_id).field == "apns_id"


def test_neither_token_nor_payload_is_in_the_repr() -> None:
    text = repr(push())
    assert TOKEN not in text
    assert "alert" not in text.replace("ALERT", "").replace("'alert'", "")


@settings(max_examples=200)
@given(
    st.text(max_size=210),
    st.binary(max_size=10),
    st.text(max_size=30),
    st.sampled_from(PushType),
    st.integers(),
    st.none() | st.integers(),
    st.text(max_size=70),
    st.text(max_size=40),
)
def test_whatever_it_is_given_it_raises_nothing_else(
    token: str,
    payload: bytes,
    topic: str,
    push_type: PushType,
    priority: int,
    expiration: int | None,
    collapse_id: str,
    apns_id: str,
) -> None:
    try:
        check_push(ApnsPush(token, payload, topic, push_type, priority, expiration, collapse_id, apns_id))
    except BadPush as error:
        assert error.field in ApnsPush.__match_args__
