from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampush.apns.errors import BadPush
from streampush.apns.payload import (
    BACKGROUND,
    Alert,
    CriticalSound,
    InterruptionLevel,
    Localized,
    alert_payload,
    background_payload,
    json_payload,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


def aps(alert: Alert) -> Any:
    return json.loads(alert_payload(alert))["aps"]


def refused(alert: Alert) -> BadPush:
    with pytest.raises(BadPush) as caught:
        alert_payload(alert)
    return caught.value


def test_texts_stand_in_the_alert() -> None:
    assert aps(Alert("Order 17", "Kitchen", "It is ready")) == {
        "alert": {"title": "Order 17", "subtitle": "Kitchen", "body": "It is ready"}
    }


def test_localized_texts_have_apples_keys() -> None:
    alert = Alert(Localized("T"), Localized("S", ("1",)), Localized("B", ("2", "3")), launch_image="image")
    assert aps(alert)["alert"] == {
        "title-loc-key": "T",
        "subtitle-loc-key": "S",
        "subtitle-loc-args": ["1"],
        "loc-key": "B",
        "loc-args": ["2", "3"],
        "launch-image": "image",
    }


def test_every_other_key_has_apples_name() -> None:
    alert = Alert(
        body="b",
        badge=3,
        sound="chime.caf",
        category="order",
        thread_id="t",
        target_content_id="c",
        mutable_content=True,
        content_available=True,
        interruption_level=InterruptionLevel.TIME_SENSITIVE,
        relevance_score=0.5,
        filter_criteria="f",
        extra={"url-args": ["a"]},
    )
    assert aps(alert) == {
        "alert": {"body": "b"},
        "badge": 3,
        "sound": "chime.caf",
        "category": "order",
        "thread-id": "t",
        "target-content-id": "c",
        "mutable-content": 1,
        "content-available": 1,
        "interruption-level": "time-sensitive",
        "relevance-score": 0.5,
        "filter-criteria": "f",
        "url-args": ["a"],
    }


def test_a_critical_sound_is_a_dictionary() -> None:
    assert aps(Alert(sound=CriticalSound("alarm", 0.5)))["sound"] == {"critical": 1, "name": "alarm", "volume": 0.5}


def test_badge_0_is_said_since_it_takes_the_badge_away() -> None:
    assert aps(Alert(badge=0)) == {"badge": 0}


def test_custom_keys_stand_beside_aps() -> None:
    assert json.loads(alert_payload(Alert(body="b", custom={"order": 17}))) == {"aps": {"alert": {"body": "b"}}, "order": 17}


def test_it_is_compact_utf8() -> None:
    assert (
        alert_payload(Alert(body="g\u00e4be \u00b7 \U0001f37a", badge=1))
        == '{"aps":{"alert":{"body":"g\u00e4be \u00b7 \U0001f37a"},"badge":1}}'.encode()
    )


def test_what_is_queued_takes_no_more_memory_than_it_has_bytes() -> None:
    payload = alert_payload(Alert(body="x" * 200))
    assert sys.getsizeof(payload) == sys.getsizeof(b"") + len(payload)


def test_a_background_push_wakes_the_app_and_says_nothing() -> None:
    assert background_payload(BACKGROUND) == b'{"aps":{"content-available":1}}'
    assert background_payload(Alert(custom={"sync": "mail"})) == b'{"aps":{"content-available":1},"sync":"mail"}'


@pytest.mark.parametrize(
    ("alert", "field"), [(Alert(body="b"), "alert"), (Alert(badge=0), "badge"), (Alert(sound="default"), "sound")]
)
def test_a_background_push_with_something_to_see_or_hear_is_refused(alert: Alert, field: str) -> None:
    with pytest.raises(BadPush) as caught:
        background_payload(alert)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("alert", "field"),
    [
        (Alert(), "alert"),
        (Alert(custom={"a": 1}), "alert"),
        (Alert(badge=-1), "badge"),
        (Alert(badge=1 << 31), "badge"),
        (Alert(badge=True), "badge"),
        (Alert(sound=""), "sound"),
        (Alert(sound=CriticalSound("a", 1.5)), "sound"),
        (Alert(body="b", relevance_score=1.1), "relevance_score"),
        (Alert(body="b", relevance_score=float("nan")), "relevance_score"),
        (Alert(body="b", relevance_score=True), "relevance_score"),
        (Alert(badge=1, mutable_content=True), "mutable_content"),
        (Alert(body="b", interruption_level="loud"), "interruption_level"),  # type: ignore[arg-type]
        (Alert(title=17), "title"),  # type: ignore[arg-type]
        (Alert(body="b", badge=1, extra={"badge": 2}), "extra"),
        (Alert(body="b", extra={1: 2}), "extra"),  # type: ignore[dict-item]
        (Alert(body="b", custom={"aps": {}}), "custom"),
        (Alert(body="b", custom={1: 2}), "custom"),  # type: ignore[dict-item]
        (Alert(body="half \ud800"), "payload"),
        (Alert(body="b", custom={"a": float("inf")}), "custom"),
        (Alert(body="b", custom={"secret": object()}), "custom"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(alert: Alert, field: str) -> None:
    assert refused(alert).field == field


def test_the_error_shows_nothing_of_the_payload() -> None:
    assert "secret" not in str(refused(Alert(body="b", custom={"secret": {"secret"}})))


def test_a_circle_and_a_deep_nest_are_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    nest: Any = 0
    for _ in range(100_000):
        nest = [nest]
    for value in (circle, nest):
        with pytest.raises(BadPush):
            json_payload({"a": value})


def test_a_document_that_was_put_together_is_made_compact() -> None:
    assert json_payload({"aps": {"content-changed": True}}) == b'{"aps":{"content-changed":true}}'


def test_a_document_with_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadPush):
        json_payload({1: 2})  # type: ignore[dict-item]


@settings(max_examples=150)
@given(st.text(), st.text(), st.dictionaries(st.text().filter(lambda key: key != "aps"), JSON, max_size=4))
def test_what_an_app_reads_is_what_was_given(title: str, body: str, custom: dict[str, Any]) -> None:
    document = json.loads(alert_payload(Alert(title, body=body, badge=1, custom=custom)))
    assert document.pop("aps").get("alert", {}) == {name: text for name, text in (("title", title), ("body", body)) if text}
    assert document == custom


@settings(max_examples=150)
@given(st.text(min_size=1), st.text(min_size=1))
def test_an_alert_of_a_title_and_a_body_is_written_as_one_with_more_is(title: str, body: str) -> None:
    with_more = alert_payload(Alert(title, body=body, badge=1))
    assert alert_payload(Alert(title, body=body)) == with_more.replace(b',"badge":1}}', b"}}")


def test_half_a_character_is_refused_also_in_an_alert_of_a_title_and_a_body() -> None:
    with pytest.raises(BadPush, match="surrogate"):
        alert_payload(Alert("a", body="\ud800"))


def test_neither_texts_nor_custom_keys_are_in_the_repr() -> None:
    assert "secret" not in repr(Alert("secret", "secret", "secret", custom={"secret": 1}, extra={"secret": 1}))
