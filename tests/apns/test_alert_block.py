"""What publishing lets in as an alert becomes a push that Apple takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.alert_block import NO_DEFAULTS, alert_of, payload_of, with_defaults
from streampush.apns.payload import alert_payload
from streampush.apns.push import MAX_PAYLOAD, PushType, check_payload
from streampush.config import INTERRUPTION_LEVELS, ApnsAppConfig
from streampush.errors import Refused
from streampush.push import alerts
from streampush.push.alerts import canonical, max_alert_bytes, split
from streampush.push.values import Alert

MESSAGE_ID = "01JZ0000000000000000000000"

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts, st.lists
)
customs = st.dictionaries(texts.filter(lambda key: key not in alerts.RESERVED_KEYS), values, max_size=3)
channels = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=60)
shown = st.builds(
    Alert,
    title=texts,
    subtitle=texts,
    body=texts,
    badge=st.none() | st.integers(0, alerts.MAX_BADGE),
    sound=st.just("") | st.just("default") | texts,
    category=texts,
    thread_id=texts,
    interruption_level=st.sampled_from(("", *INTERRUPTION_LEVELS)),
    relevance_score=st.none() | st.floats(0.0, 1.0),
    custom=customs.map(lambda custom: json.dumps(custom) if custom else ""),
).filter(lambda alert: alert.title or alert.subtitle or alert.body or alert.sound or alert.badge is not None)
changing = st.builds(
    replace, shown.filter(lambda alert: alert.title or alert.subtitle or alert.body), mutable_content=st.just(True)
)
backgrounds = st.builds(Alert, custom=customs.map(json.dumps), background=st.just(True))


APP = ApnsAppConfig(name="shop", sound="ping.caf", category="OFFER", interruption_level="time-sensitive", mutable_content=True)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=255)
apps = st.builds(
    ApnsAppConfig,
    sound=words,
    category=words,
    interruption_level=st.sampled_from(("", *INTERRUPTION_LEVELS)),
    mutable_content=st.booleans(),
)


def pushed(alert: Alert, channel: str = "device:phone", app: ApnsAppConfig = NO_DEFAULTS) -> tuple[PushType, dict[str, Any]]:
    kind, payload = payload_of(split(canonical(alert, channel))[1], MESSAGE_ID, channel, app)
    return kind, json.loads(payload)


def test_an_alert_is_in_apples_words_with_the_apps_keys_and_ours_beside() -> None:
    alert = Alert("Hi", body="there", badge=0, sound="default", thread_id="t", mutable_content=True, custom='{"room": 5}')
    kind, payload = pushed(alert)
    assert kind is PushType.ALERT
    assert payload == {
        "aps": {"alert": {"title": "Hi", "body": "there"}, "badge": 0, "sound": "default", "thread-id": "t", "mutable-content": 1},
        "room": 5,
        "streampush": {"id": MESSAGE_ID, "channel": "device:phone"},
    }


def test_what_wakes_the_app_is_a_background_push() -> None:
    kind, payload = pushed(Alert(background=True, custom='{"sync":true}'))
    assert kind is PushType.BACKGROUND
    own = {"id": MESSAGE_ID, "channel": "device:phone"}
    assert payload == {"aps": {"content-available": 1}, "sync": True, "streampush": own}


@given(shown | changing | backgrounds, channels)
def test_the_payload_is_longer_than_the_block_by_no_more_than_is_kept_free(alert: Alert, channel: str) -> None:
    _, block = split(canonical(alert, channel))
    _, payload = payload_of(block, MESSAGE_ID, channel)
    assert len(payload) - len(block) <= MAX_PAYLOAD - max_alert_bytes(channel)
    check_payload(payload, MAX_PAYLOAD)


@given(st.integers(0, 20), channels)
def test_whatever_is_let_in_fits_apples_limit(more: int, channel: str) -> None:
    alert = Alert(body="x" * (max_alert_bytes(channel) - 20 + more))
    try:
        _, block = split(canonical(alert, channel))
    except Refused:
        assert len(alert.body) + len('{"body":""}') > max_alert_bytes(channel)
        return
    assert len(payload_of(block, MESSAGE_ID, channel)[1]) <= MAX_PAYLOAD


# ------------------------------------------------------------------------------------------------------------ an app's defaults


def test_what_an_alert_does_not_say_its_app_says() -> None:
    assert pushed(Alert("Hi"), app=APP)[1]["aps"] == {
        "alert": {"title": "Hi"},
        "sound": "ping.caf",
        "category": "OFFER",
        "interruption-level": "time-sensitive",
        "mutable-content": 1,
    }


def test_what_an_alert_says_is_not_its_apps_to_change() -> None:
    said = Alert("Hi", sound="default", category="NEWS", interruption_level="passive")
    aps = pushed(said, app=APP)[1]["aps"]
    assert (aps["sound"], aps["category"], aps["interruption-level"]) == ("default", "NEWS", "passive")


def test_a_badge_and_a_background_push_get_no_defaults() -> None:
    assert pushed(Alert(badge=3), app=APP)[1]["aps"] == {"badge": 3}
    assert pushed(Alert(background=True), app=APP)[1]["aps"] == {"content-available": 1}


def test_the_defaults_are_left_out_where_they_do_not_fit() -> None:
    channel = "device:phone"
    room = max_alert_bytes(channel) - len('{"body":""}')
    assert pushed(Alert(body="x" * room), app=APP)[1]["aps"] == {"alert": {"body": "x" * room}}
    assert "sound" in pushed(Alert(body="x" * (room - 200)), app=APP)[1]["aps"]


@given(shown | changing | backgrounds, apps, st.integers(0, 4000), channels)
@settings(max_examples=40)
def test_whatever_the_defaults_the_push_fits_apples_limit(alert: Alert, app: ApnsAppConfig, more: int, channel: str) -> None:
    try:
        form = canonical(replace(alert, custom=json.dumps({"x": "y" * more})), channel)
    except Refused:
        return
    check_payload(payload_of(split(form)[1], MESSAGE_ID, channel, app)[1], MAX_PAYLOAD)


plain = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


@settings(max_examples=300)
@given(plain, plain, st.just("") | texts, apps)
def test_a_block_of_title_body_and_sound_is_the_payload_that_any_other_way_gives(
    title: str, body: str, sound: str, app: ApnsAppConfig
) -> None:
    block = split(canonical(Alert(title=title, body=body, sound=sound), "device:phone"))[1]
    others = alert_payload(with_defaults(alert_of(json.loads(block)), app))
    assert payload_of(block, MESSAGE_ID, "device:phone", app) == (
        PushType.ALERT,
        others[:-1] + b"," + alerts.own_keys(MESSAGE_ID, "device:phone") + b"}",
    )


def test_a_sound_of_the_app_is_left_out_of_a_short_block_where_it_does_not_fit() -> None:
    room = max_alert_bytes("device:phone") - len('{"title":"t","body":""}')
    app = ApnsAppConfig(sound="ping.caf")
    assert "sound" not in pushed(Alert(title="t", body="b" * room), app=app)[1]["aps"]
    assert pushed(Alert(title="t", body="b" * (room - 50)), app=app)[1]["aps"]["sound"] == "ping.caf"
