"""Alerts of messages: what is let in, and the canonical form that is stored."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streampush.errors import Refused
from streampush.protocol import messages as m
from streampush.protocol.codes import Code
from streampush.push.alerts import (
    MAX_BADGE,
    MAX_FALLBACK_AFTER_MS,
    MAX_NESTING,
    FallbackRule,
    canonical,
    is_nested_too_deeply,
    max_alert_bytes,
    split,
)
from streampush.push.publish_rules import fingerprint
from streampush.push.values import Alert, PublishRequest
from streampush.server.wire import publish_request
from tests.push.world import PUBLISHER, World, refuses

HELLO = Alert(title="Hello")
SECRET = "for the device only"

REFUSED = {
    "nothing said": (Alert(category="c"), "title"),
    "negative badge": (Alert(badge=-1), "badge"),
    "endless badge": (Alert(badge=MAX_BADGE + 1), "badge"),
    "nothing to change": (Alert(badge=1, mutable_content=True), "mutable_content"),
    "level": (replace(HELLO, interruption_level="loud"), "interruption_level"),
    "score": (replace(HELLO, relevance_score=1.1), "relevance_score"),
    "score that is no number": (replace(HELLO, relevance_score=float("nan")), "relevance_score"),
    "custom that is no JSON": (replace(HELLO, custom=SECRET), "custom"),
    "custom that is no object": (replace(HELLO, custom="[1]"), "custom"),
    "custom with a word that JSON lacks": (replace(HELLO, custom='{"a":NaN}'), "custom"),
    "custom with a number beyond all": (replace(HELLO, custom='{"a":1e999}'), "custom"),
    "custom with endless digits": (replace(HELLO, custom='{"a":' + "9" * 5000 + "}"), "custom"),
    "custom deeper than 100 levels": (replace(HELLO, custom='{"a":' * 101 + "1" + "}" * 101), "custom"),
    "custom too deep": (replace(HELLO, custom='{"a":' + "[" * 100_000 + "}"), "custom"),
    "custom with Apple's key": (replace(HELLO, custom='{"aps":{}}'), "custom"),
    "custom with our key": (replace(HELLO, custom='{"streampush":1}'), "custom"),
    "half a character": (Alert(title="\ud800"), "title"),
    "half a character in custom": (replace(HELLO, custom='{"a":"\\ud800"}'), "title"),
    "late": (replace(HELLO, fallback_after_ms=MAX_FALLBACK_AFTER_MS + 1), "fallback_after"),
    "before the past": (replace(HELLO, fallback_after_ms=-1), "fallback_after"),
    "two rules": (replace(HELLO, fallback_after_ms=1, only_when_away=True), "only_when_away"),
    "loud background": (Alert(background=True, sound="default"), "sound"),
    "background with a text": (Alert(background=True, title=SECRET), "title"),
    "background with a badge of 0": (Alert(background=True, badge=0), "badge"),
}


@pytest.mark.parametrize(("alert", "field"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_and_named(alert: Alert, field: str) -> None:
    with pytest.raises(Refused) as caught:
        canonical(alert, "news")
    assert caught.value.code is Code.SERIALIZATION_ERROR
    assert caught.value.detail.startswith(f"alert.{field}")
    assert SECRET not in str(caught.value)


def test_an_alert_above_the_limit_is_refused_with_both_numbers() -> None:
    limit = max_alert_bytes("news")
    body = "x" * (limit - len('{"body":""}'))
    assert len(split(canonical(Alert(body=body), "news"))[1]) == limit
    with pytest.raises(Refused) as caught:
        canonical(Alert(body=body + "ä"), "news")
    assert caught.value.code is Code.PAYLOAD_TOO_LARGE
    assert f"alert of {limit + 2} bytes" in caught.value.detail
    assert f"is {limit} (4096 of Apple's, less {4096 - limit}" in caught.value.detail


def test_a_longer_name_of_a_channel_leaves_less_room() -> None:
    assert max_alert_bytes("news") - max_alert_bytes("news" + "ä" * 10) == 20


def test_the_form_has_what_is_said_and_nothing_else() -> None:
    alert = Alert("t", "s", "b", 0, "default", "c", "th", True, "passive", 0.5, '{"k": [1, "é"]}', fallback_after_ms=1)
    rule, block = split(canonical(alert, "news"))
    assert rule == FallbackRule(1, only_when_away=False)
    assert b" " not in block
    assert json.loads(block) == {
        "title": "t",
        "subtitle": "s",
        "body": "b",
        "badge": 0,
        "sound": "default",
        "category": "c",
        "thread_id": "th",
        "mutable_content": True,
        "interruption_level": "passive",
        "relevance_score": 0.5,
        "custom": {"k": [1, "é"]},
    }
    assert split(canonical(HELLO, "news")) == (FallbackRule(0, only_when_away=False), b'{"title":"Hello"}')


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=20), st.integers(0, 2))
@example('"', 0)
@example("\\", 0)
@example('\\",{}', 0)
def test_the_rule_of_a_message_to_a_device_names_it(device_id: str, after_ms: int) -> None:
    rule, _ = split(canonical(replace(HELLO, fallback_after_ms=after_ms), f"device:{device_id}"))
    assert rule == FallbackRule(after_ms, only_when_away=False, device_id=device_id)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(TEXTS, TEXTS, st.one_of(st.just(""), TEXTS), st.integers(min_value=0, max_value=1))
def test_title_body_and_sound_are_written_the_same_with_and_without_more(title: str, body: str, sound: str, after_ms: int) -> None:
    form = canonical(Alert(title=title, body=body, sound=sound, fallback_after_ms=after_ms), "device:a")
    said = {name: text for name, text in (("title", title), ("body", body), ("sound", sound)) if text}
    assert form.partition(b"\n")[2] == json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def test_half_a_character_is_refused_also_where_there_are_a_title_and_a_body_alone() -> None:
    with pytest.raises(Refused, match="half a character"):
        canonical(Alert(title="a", body="\ud800"), "device:a")


@given(st.integers(min_value=-3, max_value=3), st.text('ab"\\\u00e4\u20ac\U0001f600', min_size=1, max_size=60))
def test_the_limit_is_kept_to_the_byte_on_every_channel(beyond: int, name: str) -> None:
    limit = max_alert_bytes(name)
    alert = Alert(title="a", body="b" * (limit + beyond - len('{"title":"a","body":""}')))
    if beyond > 0:
        with pytest.raises(Refused, match=f"alert of {limit + beyond} bytes"):
            canonical(alert, name)
    else:
        assert len(canonical(alert, name).partition(b"\n")[2]) == limit + beyond


def test_a_background_alert_says_so() -> None:
    rule, block = split(canonical(Alert(background=True, only_when_away=True), "news"))
    assert (rule.only_when_away, block) == (True, b'{"background":true}')


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_no_text_breaks_the_form(text: str) -> None:
    alert = Alert(title="x" + text, custom=json.dumps({text: text}) if text not in ("aps", "streampush") else "")
    assert json.loads(split(canonical(alert, "news"))[1])["title"] == "x" + text


def test_the_alert_of_the_wire_is_the_applications() -> None:
    assert [field.name for field in fields(m.Alert)] == [field.name for field in fields(Alert)]
    wire = m.Alert("t", "s", "b", 1, "s", "c", "i", True, "active", 0.5, "{}", True, 7, True)
    alert = publish_request(m.Publish("news", b"", alert=wire)).alert
    assert alert is not None
    assert [getattr(alert, field.name) for field in fields(Alert)] == [getattr(wire, field.name) for field in fields(Alert)]
    assert publish_request(m.Publish("news", b"")).alert is None


def test_a_message_with_an_alert_that_makes_no_sense_is_not_stored() -> None:
    world = World()
    with pytest.raises(Refused):
        world.run(world.service.publish(PUBLISHER, PublishRequest("news", b"x", alert=Alert())))
    assert world.run(world.memory.peek("news")) is None


def test_the_same_key_with_another_alert_is_another_request() -> None:
    world = World()
    request = PublishRequest("news", b"x", idempotency_key="once", alert=HELLO)
    first = world.run(world.service.publish(PUBLISHER, request))
    again = world.run(world.service.publish(PUBLISHER, request))
    assert (again.message_id, again.duplicate) == (first.message_id, True)
    for other in (None, Alert(title="Hallo"), replace(HELLO, only_when_away=True)):
        with refuses(Code.DUPLICATE):
            world.run(world.service.publish(PUBLISHER, replace(request, alert=other)))


def test_a_request_without_an_alert_has_the_fingerprint_that_it_always_had() -> None:
    known = "fb2d4e53da5dcae9299df00089a6d906"
    assert fingerprint(PublishRequest("news", b"x")).hex().startswith(known)


def test_the_app_may_nest_its_keys_100_levels_deep() -> None:
    text = '{"a":' * 99 + "[1]" + "}" * 99
    assert json.loads(split(canonical(replace(HELLO, custom=text), "device:phone"))[1])["custom"] == json.loads(text)


def test_nesting_is_of_objects_and_lists_and_not_of_their_number() -> None:
    document: object = [[1] * 1000, {"a": {}}]
    assert not is_nested_too_deeply(document)
    for _ in range(MAX_NESTING - 3):
        document = [document]
    assert not is_nested_too_deeply(document)
    assert is_nested_too_deeply([[document]])
