from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.push import PushType, check_device_token, check_topic
from streampush.apns.simulator.accounts import token_hash
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.push_tokens import MAX_TOKEN_BYTES, push_token, shown


def refusal(token: bytes = b"\x01" * 32, topic: str = "com.example.shop") -> Refused:
    with pytest.raises(Refused) as caught:
        push_token(token, topic, sandbox=False)
    return caught.value


def test_longest_token_and_topic_are_taken() -> None:
    token = push_token(b"\xff" * MAX_TOKEN_BYTES, "a" * 255, sandbox=True)
    assert (len(token.token), len(token.topic), token.sandbox) == (100, 255, True)


def test_length_above_its_limit_is_named_with_both_numbers() -> None:
    for refused, detail in (
        (refusal(token=b"\xff" * 101), "push token of 101 bytes, the limit is 100"),
        (refusal(topic="a" * 256), "topic of 256 characters, the limit is 255"),
    ):
        assert (refused.code, refused.detail) == (Code.PAYLOAD_TOO_LARGE, detail)


def test_empty_token_is_refused() -> None:
    assert refusal(token=b"").code is Code.SERIALIZATION_ERROR


@pytest.mark.parametrize("topic", ["", ".", "com..shop", "com.shop.", "com example", "com.shöp", "com/shop", "shop\n", "shop\0"])
def test_topic_that_no_app_can_have_is_refused(topic: str) -> None:
    assert refusal(topic=topic).code is Code.SERIALIZATION_ERROR


def test_refusal_does_not_show_the_token() -> None:
    for refused in (refusal(token=b"secret" * 20), refusal(token=b"secret", topic="")):
        assert "secret" not in repr(refused) + str(refused) + refused.detail


@given(st.binary(min_size=1, max_size=MAX_TOKEN_BYTES))
def test_what_is_taken_can_be_pushed_to(token: bytes) -> None:
    taken = push_token(token, "com.example.shop-2", sandbox=False)
    check_device_token(taken.token.hex())
    check_topic(taken.topic, PushType.ALERT)


@given(st.binary(min_size=1, max_size=MAX_TOKEN_BYTES))
def test_token_is_shown_as_the_simulated_apple_shows_it(token: bytes) -> None:
    assert shown(token) == token_hash(token.hex().upper())
