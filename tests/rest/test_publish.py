from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Priority
from streampush.push.values import Alert, ChannelRules, Principal
from streampush.rest import fields
from streampush.rest.problems import STATUS_OF, Problem
from tests.rest.support import Api, render

GOOD = {"topic": "news", "payload": "x"}


def test_success_says_where_the_message_is() -> None:
    response = Api().publish(topic="news", payload="hello")
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "message_id": "M1",
        "channel": "news",
        "offset": 1,
        "epoch": "E1",
        "durability": "MEMORY",
        "connections": 2,
        "duplicate": False,
        "superseded": False,
        "deliver_at": 0,
    }


def test_application_learns_who_publishes_and_everything_that_was_asked() -> None:
    api = Api()
    api.publish(channel="news", payload="grüße", content_type="text/plain", headers={"a": "b"}, ttl=1.5, durability="LOCAL_FSYNC")
    ((principal, request),) = api.push.published
    assert principal == Principal("key", "backend", may_publish=ChannelRules(("news", "device:*")))
    assert request.payload == "grüße".encode()
    assert (request.channel, request.content_type, request.headers) == ("news", "text/plain", {"a": "b"})
    assert (request.ttl, request.durability) == (1.5, Durability.LOCAL_FSYNC)


def test_application_learns_how_the_message_is_to_be_treated() -> None:
    api = Api()
    wishes = {
        "priority": "HIGH",
        "collapse_key": "score",
        "version": (1 << 63) - 1,
        "want_receipt": True,
        "clear_on_processed": True,
    }
    api.publish(channel="news", payload="x", expires_at=20, deliver_at=10, idempotency_key="k", **wishes)
    ((_, request),) = api.push.published
    assert (request.priority, request.collapse_key, request.version) == (Priority.HIGH, "score", (1 << 63) - 1)
    assert (request.expires_at_ms, request.deliver_at_ms, request.idempotency_key) == (20, 10, "k")
    assert request.want_receipt
    assert request.clear_on_processed


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("8e03978e-40d5", "8e03978e-40d5"),
        ('"8e03978e-40d5"', "8e03978e-40d5"),
        (r'"a \"b\" \\"', 'a "b" \\'),
        ("a", "a"),
    ],
)
def test_idempotency_key_may_come_in_the_header_in_quotes_or_bare(header: str, key: str) -> None:
    api = Api()
    api.request("POST", "/v1/publish", GOOD, Idempotency_Key=header)
    assert api.push.published[0][1].idempotency_key == key


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("k", {"topic": "news", "payload": "x", "idempotency_key": "k"}),
        ("", {"topic": "news", "payload": "x"}),
        ('""', {"topic": "news", "payload": "x"}),
        ('"open', {"topic": "news", "payload": "x"}),
        ('"a"b"', {"topic": "news", "payload": "x"}),
    ],
)
def test_header_that_is_doubtful_is_refused(header: str, body: dict[str, object]) -> None:
    api = Api()
    response = api.request("POST", "/v1/publish", body, Idempotency_Key=header)
    assert (response.status, response.json()["field"]) == (400, "Idempotency-Key")
    assert api.push.published == []


def test_two_headers_are_refused() -> None:
    api = Api()
    line = api.connect()
    request = render("POST", "/v1/publish", GOOD, Idempotency_Key="a")
    line.send(request.replace(b"Idempotency-Key: a", b"Idempotency-Key: a\r\nIdempotency-Key: b"))
    (response,) = line.responses()
    assert response.status == 400
    assert api.push.published == []


def test_header_of_any_bytes_is_answered() -> None:
    api = Api()
    line = api.connect()
    line.send(render("POST", "/v1/publish", GOOD, Idempotency_Key="a").replace(b"Key: a", b"Key: \xff"))
    (response,) = line.responses()
    assert response.status == 400
    assert api.push.published == []


def test_what_is_left_out_has_its_default() -> None:
    api = Api()
    api.publish(topic="news", payload="")
    ((_, request),) = api.push.published
    assert (request.payload, request.content_type, request.headers) == (b"", "", {})
    assert (request.ttl, request.durability) == (0.0, Durability.UNSPECIFIED)


@pytest.mark.parametrize(
    ("address", "channel"),
    [
        ({"channel": "device:phone-1"}, "device:phone-1"),
        ({"device": "phone-1"}, "device:phone-1"),
        ({"user": "alice"}, "user:alice"),
        ({"topic": "news"}, "news"),
    ],
)
def test_every_way_to_address_names_a_channel(address: dict[str, str], channel: str) -> None:
    api = Api()
    assert api.publish(payload="x", **address).json()["channel"] == channel


def test_base64_payload_is_sent_as_bytes() -> None:
    api = Api()
    api.publish(topic="news", payload_base64="AP8=")
    assert api.push.published[0][1].payload == b"\x00\xff"


def test_json_payload_is_sent_compact_with_its_content_type() -> None:
    api = Api()
    api.publish(topic="news", json={"a": [1, None, "ü"]})
    request = api.push.published[0][1]
    assert request.payload == '{"a":[1,null,"ü"]}'.encode()
    assert request.content_type == "application/json"


def test_json_payload_may_be_null_and_may_have_another_content_type() -> None:
    api = Api()
    api.publish(topic="news", json=None, content_type="application/vnd.x+json")
    request = api.push.published[0][1]
    assert (request.payload, request.content_type) == (b"null", "application/vnd.x+json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"payload": "x"}, "channel"),
        ({**GOOD, "device": "d"}, "topic"),
        ({"topic": "news"}, "payload"),
        ({**GOOD, "json": 1}, "json"),
        ({**GOOD, "priority": 5}, "priority"),
        ({"topic": 5, "payload": "x"}, "topic"),
        ({"topic": "", "payload": "x"}, "topic"),
        ({"device": "", "payload": "x"}, "device"),
        ({"topic": "device:phone-1", "payload": "x"}, "topic"),
        ({"topic": "news", "payload": 5}, "payload"),
        ({"topic": "news", "payload": None}, "payload"),
        ({"topic": "news", "payload": "\ud800"}, "payload"),
        ({"topic": "\ud800", "payload": "x"}, "topic"),
        ({"topic": "news", "json": ["\ud800"]}, "json"),
        ({"topic": "news", "payload_base64": "not base64!"}, "payload_base64"),
        ({"topic": "news", "payload_base64": "AP8"}, "payload_base64"),
        ({"topic": "news", "payload_base64": "ü"}, "payload_base64"),
        ({**GOOD, "content_type": 5}, "content_type"),
        ({**GOOD, "headers": []}, "headers"),
        ({**GOOD, "headers": {"a": 1}}, "headers.a"),
        ({**GOOD, "headers": None}, "headers"),
        ({**GOOD, "ttl": "5"}, "ttl"),
        ({**GOOD, "ttl": True}, "ttl"),
        ({**GOOD, "ttl": -1}, "ttl"),
        ({**GOOD, "ttl": 10**400}, "ttl"),
        ({**GOOD, "durability": "SAFE"}, "durability"),
        ({**GOOD, "durability": "UNSPECIFIED"}, "durability"),
        ({**GOOD, "durability": None}, "durability"),
        ({**GOOD, "durability": ["MEMORY"]}, "durability"),
        ({**GOOD, "priority": "UNSPECIFIED"}, "priority"),
        ({**GOOD, "ttl": 0, "expires_at": 5}, "expires_at"),
        ({**GOOD, "expires_at": 0}, "expires_at"),
        ({**GOOD, "expires_at": 1.5}, "expires_at"),
        ({**GOOD, "deliver_at": "soon"}, "deliver_at"),
        ({**GOOD, "deliver_at": True}, "deliver_at"),
        ({**GOOD, "deliver_at": 1 << 63}, "deliver_at"),
        ({**GOOD, "version": -1}, "version"),
        ({**GOOD, "version": 1 << 63}, "version"),
        ({**GOOD, "collapse_key": 5}, "collapse_key"),
        ({**GOOD, "collapse_key": "\ud800"}, "collapse_key"),
        ({**GOOD, "idempotency_key": ""}, "idempotency_key"),
        ({**GOOD, "idempotency_key": 5}, "idempotency_key"),
        ({**GOOD, "want_receipt": 1}, "want_receipt"),
        ({**GOOD, "clear_on_processed": "yes"}, "clear_on_processed"),
    ],
)
def test_bad_field_is_named_and_nothing_is_published(body: dict[str, object], field: str) -> None:
    api = Api()
    response = api.request("POST", "/v1/publish", body)
    assert response.status == 400
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["field"] == field
    assert problem["detail"].startswith(f"{field}: ")
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", "Bad Request", 400)
    assert api.push.published == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"topic":"news","payload":"a","payload":"b"}',
        b'{"topic":"news","json":NaN}',
        b'{"topic":"news","json":1e999}',
        b'{"topic":"news","json":' + b"9" * 5000 + b"}",
        b'{"topic":"news","json":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_body_that_is_no_good_json_is_400(body: bytes) -> None:
    api = Api()
    response = api.request("POST", "/v1/publish", body)
    assert response.status == 400
    assert response.json()["status"] == 400
    assert api.push.published == []


def test_depth_that_can_be_read_but_not_written_is_400() -> None:
    value: object = None
    for _ in range(sys.getrecursionlimit() * 10):
        value = [value]
    with pytest.raises(Problem) as problem:
        fields.publish_request({"topic": "news", "json": value})
    assert problem.value.field == "json"


REFUSALS = [
    (Code.MESSAGE_RATE_EXCEEDED, 429),
    (Code.FORBIDDEN, 403),
    (Code.PAYLOAD_TOO_LARGE, 413),
    (Code.MESSAGE_EXPIRED, 400),
    (Code.UNKNOWN_RECIPIENT, 404),
    (Code.QUOTA_EXCEEDED, 507),
    (Code.STORE_UNAVAILABLE, 503),
    (Code.DUPLICATE, 409),
    (Code.OVERLOADED, 503),
    (Code.SERIALIZATION_ERROR, 400),
]


@pytest.mark.parametrize(("code", "status"), REFUSALS)
def test_refusal_keeps_its_code_and_has_its_status(code: Code, status: int) -> None:
    api = Api()
    api.push.errors["news"] = Refused(code, "because")
    response = api.publish(topic="news", payload="x")
    assert response.status == status
    problem = response.json()
    assert (problem["code"], problem["detail"], problem["type"]) == (int(code), "because", f"urn:streampush:code:{int(code)}")


def test_every_business_code_has_a_status() -> None:
    assert {code for code in Code if code >= 3000} <= set(STATUS_OF)


def test_retry_after_is_exact_in_the_problem_and_rounded_up_in_the_header() -> None:
    api = Api()
    api.push.errors["news"] = Refused(Code.MESSAGE_RATE_EXCEEDED, retry_after=0.25)
    response = api.publish(topic="news", payload="x")
    assert response.json()["retry_after"] == 0.25
    assert response.headers["retry-after"] == "1"


def test_store_that_is_not_available_says_when_to_come_back() -> None:
    api = Api()
    api.push.errors["news"] = StoreUnavailable("the disk is full", retry_after=5.0)
    response = api.publish(topic="news", payload="x")
    assert (response.status, response.headers["retry-after"], response.json()["code"]) == (503, "5", 3008)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(fields.PUBLISH_FIELDS) | st.text(), inner),
    )
)
def test_any_json_is_a_request_or_a_problem(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        request = fields.publish_request(fields.parse_object(body))
    except Problem as problem:
        assert problem.status == 400
        problem.answer()
    else:
        assert request.channel


ALERT = {
    "title": "t",
    "subtitle": "s",
    "body": "b",
    "badge": 0,
    "sound": "default",
    "category": "c",
    "thread_id": "i",
    "mutable_content": True,
    "interruption_level": "active",
    "relevance_score": 1,
    "custom": {"a": [1, "é"]},
    "fallback_after": 1.001,
    "only_when_away": False,
}


def test_an_alert_is_told_to_the_application() -> None:
    assert set(ALERT) == set(fields.ALERT_FIELDS)
    api = Api()
    assert api.publish(**GOOD, alert=ALERT).status == 200
    custom = '{"a":[1,"é"]}'
    alert = Alert("t", "s", "b", 0, "default", "c", "i", True, "active", 1.0, custom, fallback_after_ms=1001)
    assert api.push.published[0][1].alert == alert


@pytest.mark.parametrize(
    ("background", "alert"),
    [
        (True, Alert(background=True)),
        (False, None),
        ({"custom": {}, "only_when_away": True}, Alert(custom="{}", background=True, only_when_away=True)),
    ],
)
def test_an_app_may_be_woken_without_showing_anything(background: object, alert: Alert | None) -> None:
    api = Api()
    assert api.publish(**GOOD, background=background).status == 200
    assert api.push.published[0][1].alert == alert


@pytest.mark.parametrize(
    ("given_fields", "field"),
    [
        ({"alert": "hello"}, "alert"),
        ({"alert": {"text": "hello"}}, "alert.text"),
        ({"alert": {"title": 1}}, "alert.title"),
        ({"alert": {"title": "t", "badge": "1"}}, "alert.badge"),
        ({"alert": {"title": "t", "badge": True}}, "alert.badge"),
        ({"alert": {"title": "t", "mutable_content": 1}}, "alert.mutable_content"),
        ({"alert": {"title": "t", "relevance_score": 1.5}}, "alert.relevance_score"),
        ({"alert": {"title": "t", "relevance_score": True}}, "alert.relevance_score"),
        ({"alert": {"title": "t", "custom": "{}"}}, "alert.custom"),
        ({"alert": {"title": "t", "custom": {"a": json.loads("[" * 100 + "]" * 100)}}}, "alert.custom"),
        ({"alert": {"title": "t", "fallback_after": 0}}, "alert.fallback_after"),
        ({"alert": {"title": "t", "fallback_after": 86_401}}, "alert.fallback_after"),
        ({"alert": {"title": "t", "fallback_after": "never"}}, "alert.fallback_after"),
        ({"background": 1}, "background"),
        ({"background": {"title": "t"}}, "background.title"),
        ({"alert": {"title": "t"}, "background": True}, "background"),
    ],
)
def test_an_alert_that_is_no_alert_is_refused_with_its_field(given_fields: dict[str, object], field: str) -> None:
    api = Api()
    response = api.publish(**GOOD, **given_fields)
    assert (response.status, response.json()["field"]) == (400, field)
    assert api.push.published == []
