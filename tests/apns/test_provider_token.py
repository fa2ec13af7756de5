from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.provider_token import (
    MAX_GONE,
    MIN_INTERVAL,
    RENEW_AFTER,
    ClockWatch,
    ProviderToken,
    ProviderTokens,
    mint,
    read_date,
)
from streampush.apns.signing_key import SigningKey, parse_signing_key

WALL = 1_790_000_000.0
MINUTE = 60.0


def new_key(team_id: str = "TEAM123456", key_id: str = "KEY1234567") -> SigningKey:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    return parse_signing_key(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), team_id, key_id)


KEY = new_key()


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def issued_at(bearer: bytes) -> int:
    claims = json.loads(decoded(bearer.decode().removeprefix("bearer ").split(".")[1]))
    assert isinstance(claims["iat"], int)
    return claims["iat"]


class Clocks:
    """A monotonic clock and a wall clock that can be set."""

    def __init__(self) -> None:
        self.now = 500.0
        self.wall = WALL

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@settings(max_examples=25)
@given(st.integers(0, 1 << 33))
def test_a_token_is_a_jwt_that_the_public_key_verifies(issued: int) -> None:
    head, claims, signature = mint(KEY, issued).split(".")
    assert json.loads(decoded(head)) == {"alg": "ES256", "kid": "KEY1234567"}
    assert json.loads(decoded(claims)) == {"iss": "TEAM123456", "iat": issued}
    raw = decoded(signature)
    assert len(raw) == 64
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    KEY.key.public_key().verify(der, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        KEY.key.public_key().verify(der, f"{head}.{claims}x".encode(), ec.ECDSA(hashes.SHA256()))


def test_no_character_of_a_token_needs_escaping_in_a_header() -> None:
    assert set(mint(KEY, 1)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_a_token_is_minted_when_it_is_needed_and_kept_for_fifty_minutes() -> None:
    token = ProviderToken(KEY)
    assert token.epoch == 0
    first = token.bearer(0.0, WALL)
    assert token.epoch == 1
    assert issued_at(first) == int(WALL)
    assert token.bearer(RENEW_AFTER - 1, WALL + RENEW_AFTER - 1) is first
    second = token.bearer(RENEW_AFTER, WALL + RENEW_AFTER)
    assert second != first
    assert token.epoch == 2


def test_an_idle_token_is_renewed_by_the_next_push_and_not_before() -> None:
    token = ProviderToken(KEY)
    token.bearer(0.0, WALL)
    assert issued_at(token.bearer(86_400.0, WALL + 86_400)) == int(WALL) + 86_400
    assert token.epoch == 2


def test_expired_gives_a_new_token_when_twenty_minutes_allow() -> None:
    token = ProviderToken(KEY)
    old = token.bearer(0.0, WALL)
    assert token.expired(1, MIN_INTERVAL, WALL + MIN_INTERVAL) == 0.0
    assert token.bearer(MIN_INTERVAL, WALL + MIN_INTERVAL) != old
    assert (token.rejected, token.refused) == (1, 0)


def test_expired_says_when_there_may_be_a_new_token() -> None:
    token = ProviderToken(KEY)
    old = token.bearer(100.0, WALL)
    assert token.expired(1, 400.0, WALL + 300) == MIN_INTERVAL - 300
    assert token.bearer(400.0, WALL + 300) is old
    assert (token.rejected, token.refused) == (1, 1)


def test_many_answers_to_the_same_old_token_make_one_new_one() -> None:
    token = ProviderToken(KEY)
    token.bearer(0.0, WALL)
    later = 30 * MINUTE
    assert [token.expired(1, later + n, WALL + later + n) for n in range(1000)] == [0.0] * 1000
    assert token.epoch == 2
    assert token.rejected == 1


def test_expired_before_the_first_token_is_nothing() -> None:
    assert ProviderToken(KEY).expired(0, 0.0, WALL) == 0.0


@pytest.mark.parametrize("jump", [40 * MINUTE, -10 * MINUTE])
def test_a_wall_clock_that_was_set_dates_the_token_anew_but_not_within_twenty_minutes(jump: float) -> None:
    clocks, token = Clocks(), ProviderToken(KEY)
    first = token.bearer(clocks.now, clocks.wall)
    clocks.pass_by(15 * MINUTE)
    clocks.wall += jump - (10 * MINUTE if jump < 0 else 0)
    assert token.bearer(clocks.now, clocks.wall) is first
    clocks.pass_by(5 * MINUTE)
    clocks.wall -= 5 * MINUTE if jump < 0 else 0
    assert issued_at(token.bearer(clocks.now, clocks.wall)) == int(clocks.wall)


def test_a_wall_clock_that_was_set_back_keeps_no_token_beyond_its_time() -> None:
    clocks, token = Clocks(), ProviderToken(KEY)
    first = token.bearer(clocks.now, clocks.wall)
    clocks.pass_by(RENEW_AFTER)
    clocks.wall -= 20 * MINUTE
    assert token.bearer(clocks.now, clocks.wall) != first


STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "expired", "set"]), st.floats(0, 4000), st.floats(-7200, 7200)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_two_tokens_are_never_less_than_twenty_minutes_apart(steps: list[tuple[str, float, float]]) -> None:
    clocks, token = Clocks(), ProviderToken(KEY)
    minted: list[float] = []
    for what, pause, jump in steps:
        clocks.pass_by(pause)
        if what == "set":
            clocks.wall += jump
        before = token.epoch
        if what == "expired":
            wait = token.expired(token.epoch, clocks.now, clocks.wall)
            assert 0.0 <= wait <= MIN_INTERVAL
        token.bearer(clocks.now, clocks.wall)
        assert token.age(clocks.now) < RENEW_AFTER
        minted += [clocks.now] * (token.epoch - before)
    assert all(later - earlier >= MIN_INTERVAL for earlier, later in pairwise(minted))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 9000), min_size=1, max_size=40))
def test_with_a_right_clock_no_push_carries_a_token_that_apple_calls_expired(pauses: list[float]) -> None:
    clocks, token = Clocks(), ProviderToken(KEY)
    for pause in pauses:
        clocks.pass_by(pause)
        assert 0 <= clocks.wall - issued_at(token.bearer(clocks.now, clocks.wall)) < RENEW_AFTER + 1


@pytest.mark.parametrize(("renew_after", "min_interval"), [(3600, 1200), (600, 1200), (1200, 0)])
def test_times_that_apple_does_not_allow_are_refused(renew_after: float, min_interval: float) -> None:
    with pytest.raises(ValueError, match="renew_after"):
        ProviderToken(KEY, renew_after=renew_after, min_interval=min_interval)


def test_a_reload_keeps_the_token_of_a_key_that_is_the_same() -> None:
    tokens = ProviderTokens([KEY])
    bearer = tokens.of(KEY).bearer(0.0, WALL)
    other = new_key(key_id="KEY7654321")
    tokens.reload([other, replace(KEY)])
    assert tokens.of(KEY).bearer(1.0, WALL + 1) is bearer
    assert tokens.of(other).epoch == 0


def test_a_reload_with_another_key_of_the_same_name_begins_anew() -> None:
    tokens = ProviderTokens([KEY])
    old, other = tokens.of(KEY), new_key()
    bearer = old.bearer(0.0, WALL)
    tokens.reload([other])
    assert tokens.of(other).bearer(1.0, WALL + 1) != bearer
    assert old.bearer(1.0, WALL + 1) is bearer  # who has it finishes with it


def test_two_keys_of_the_same_name_do_not_get_each_others_token() -> None:
    other = new_key()
    tokens = ProviderTokens([KEY])
    tokens.reload([KEY, other])
    assert tokens.of(KEY).key == KEY
    assert tokens.of(other).key == other


def test_an_epoch_never_means_two_tokens_of_a_key_not_even_over_a_reload() -> None:
    tokens = ProviderTokens([KEY])
    old, other = tokens.of(KEY), new_key()
    old.bearer(0.0, WALL)
    tokens.reload([other])
    new = tokens.of(other)
    new.bearer(0.0, WALL)
    assert new.epoch > old.epoch


def test_a_key_that_comes_back_goes_on_with_its_token() -> None:
    tokens, other = ProviderTokens([KEY]), new_key(key_id="KEY7654321")
    bearer = tokens.of(KEY).bearer(0.0, WALL)
    tokens.reload([other])
    tokens.reload([KEY])
    assert tokens.of(KEY).bearer(5 * MINUTE, WALL + 300) is bearer
    assert tokens.of(KEY).bearer(51 * MINUTE, WALL + 51 * 60) != bearer


def test_only_the_last_keys_that_are_gone_are_remembered() -> None:
    tokens = ProviderTokens([KEY])
    old = tokens.of(KEY)
    for _ in range(MAX_GONE):
        tokens.reload([new_key(key_id="KEY7654321")])
    tokens.reload([KEY])
    assert tokens.of(KEY) is old
    for _ in range(MAX_GONE + 2):
        tokens.reload([new_key(key_id="KEY7654321")])
    tokens.reload([KEY])
    assert tokens.of(KEY) is not old


def test_a_key_that_is_gone_is_not_found() -> None:
    tokens = ProviderTokens([KEY])
    tokens.reload([])
    with pytest.raises(KeyError):
        tokens.of(KEY)


def test_no_token_is_in_the_repr() -> None:
    token = ProviderToken(KEY)
    assert token.bearer(0.0, WALL).decode().rsplit(".")[-1] not in repr(token)


def date(wall: float) -> str:
    return format_datetime(datetime.fromtimestamp(wall, UTC), usegmt=True)


@pytest.mark.parametrize(("offset", "text"), [(300.0, "300 s behind Apple's"), (-300.0, "300 s ahead of Apple's")])
def test_a_clock_that_is_off_is_told_once(offset: float, text: str) -> None:
    watch = ClockWatch()
    told = [watch.saw(date(WALL + n + offset), WALL + n) for n in range(1000)]
    assert [str(skew) for skew in told if skew] == [f"the clock of this machine is {text}"]
    assert watch.is_off


def test_a_clock_that_is_right_is_not_told() -> None:
    watch = ClockWatch()
    assert not any(watch.saw(date(WALL + n), WALL + n + jitter) for n, jitter in enumerate([0, 30, -30, 59, -59]))
    assert not watch.is_off


def test_that_the_clock_is_right_again_is_told_too() -> None:
    watch = ClockWatch()
    watch.saw(date(WALL + 300), WALL)
    skew = watch.saw(date(WALL), WALL)
    assert skew is not None
    assert skew.seconds == 0
    assert watch.saw(date(WALL), WALL) is None


@pytest.mark.parametrize(
    "text", ["", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT", "x" * 65, "Sun\n", "Sun, 06 Nov 99999 08:49:37 GMT"]
)
def test_a_date_that_is_none_is_nothing(text: str) -> None:
    assert read_date(text) is None
    assert ClockWatch().saw(text, WALL) is None


def test_the_example_of_the_rfc_is_read() -> None:
    assert read_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777.0


@given(st.text(max_size=70))
def test_no_text_makes_it_fail(text: str) -> None:
    read_date(text)
