"""POST /v1/apns/push."""

from __future__ import annotations

import pytest

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.direct import BadDirectPush, DirectPush, NoApp
from streampush.push.values import Alert
from streampush.rest.apple import PUSH_TIMEOUT
from tests.rest.support import READER, Api, Response

TOKEN = "a1" * 32


def push(api: Api, **fields: object) -> Response:
    return api.request("POST", "/v1/apns/push", {"device_token": TOKEN, "background": True} | fields)


def test_a_push_is_handed_on_and_its_outcome_is_the_answer() -> None:
    api = Api()
    wishes = {"topic": "com.example.x", "priority": 5, "ttl": 60, "collapse_id": "score", "apns_id": "id"}
    body = {"app": "shop", "device_token": TOKEN, "payload": {"aps": {"badge": 1}}, "push_type": "voip", **wishes}
    response = api.request("POST", "/v1/apns/push", body)
    assert (response.status, response.json()["outcome"], response.json()["reason"]) == (200, "rejected", "Unregistered")
    asked = DirectPush("shop", TOKEN, None, '{"aps":{"badge":1}}', "voip", "com.example.x", 5, 60.0, "score", "id")
    assert api.apple.asked == [(asked, PUSH_TIMEOUT)]


def test_an_alert_is_one_of_a_message() -> None:
    api = Api()
    api.request("POST", "/v1/apns/push", {"device_token": TOKEN, "alert": {"title": "Hi", "badge": 0}})
    assert api.apple.asked[0][0] == DirectPush("", TOKEN, Alert("Hi", badge=0))


def test_the_outcome_comes_before_the_request_is_given_up() -> None:
    api = Api(request_timeout=4.0)
    push(api)
    assert api.apple.asked[0][1] == 2.0


def test_a_key_needs_the_scope() -> None:
    api = Api()
    assert api.request("POST", "/v1/apns/push", {}, key=READER).status == 403
    assert api.request("POST", "/v1/apns/push", {}, key=None).status == 401


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"payload": {}}, "payload"),
        ({"background": False}, "background"),
        ({"background": {"fallback_after": 5}}, "background.fallback_after"),
        ({"background": {"only_when_away": True}}, "background.only_when_away"),
        ({"background": {"title": "x"}}, "background.title"),
        ({"push_type": "voip"}, "push_type"),
        ({"device_token": 5}, "device_token"),
        ({"priority": "high"}, "priority"),
        ({"priority": 0}, "priority"),
        ({"ttl": -1}, "ttl"),
        ({"collapse_id": None}, "collapse_id"),
        ({"wish": 1}, "wish"),
    ],
)
def test_bad_input_names_its_field_and_nothing_is_sent(fields: dict[str, object], field: str) -> None:
    api = Api()
    response = push(api, **fields)
    assert (response.status, response.json()["field"], api.apple.asked) == (400, field, [])
    assert TOKEN not in response.body.decode()


def test_what_is_missing_is_named() -> None:
    api = Api()
    assert api.request("POST", "/v1/apns/push", {"background": True}).json()["field"] == "device_token"
    assert api.request("POST", "/v1/apns/push", {"device_token": TOKEN}).json()["field"] == "payload"
    assert api.request("POST", "/v1/apns/push", {"device_token": TOKEN, "payload": []}).json()["field"] == "payload"


def test_what_the_sender_finds_wrong_is_an_error_of_the_field() -> None:
    api = Api()
    api.apple.error = BadDirectPush("collapse_id", "65 bytes, the limit is 64")
    response = push(api)
    assert (response.status, response.json()["field"]) == (400, "collapse_id")
    assert response.json()["detail"] == "collapse_id: 65 bytes, the limit is 64"


@pytest.mark.parametrize(("configured", "status"), [(True, 404), (False, 409)])
def test_without_such_an_app_the_answer_says_so(configured: bool, status: int) -> None:
    api = Api()
    api.apple.error = NoApp("there is none", configured=configured)
    response = push(api)
    assert (response.status, response.json()["detail"], response.json()["field"]) == (status, "there is none", "app")


def test_above_the_publishers_rate_nothing_is_sent() -> None:
    api = Api()
    api.push.errors["push"] = Refused(Code.MESSAGE_RATE_EXCEEDED, retry_after=2.5)
    response = push(api)
    assert (response.status, response.headers["retry-after"], api.apple.asked) == (429, "3", [])
