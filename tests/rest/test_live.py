"""Channels for Live Activities over REST: /v1/apns/channels and /v1/apns/broadcasts."""

from __future__ import annotations

import pytest

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.direct import BadDirectPush, NoApp
from streampush.push.live import LiveAction, LiveRequest
from streampush.rest.apple import PUSH_TIMEOUT
from tests.rest.support import READER, Api

CHANNELS, BROADCASTS = "/v1/apns/channels", "/v1/apns/broadcasts"
CHANNEL = "4ZoVQ+bwfC6UF/x3Q4Rgqg=="
CALLS = [
    ("POST", CHANNELS, {"app": "shop", "keep_latest": True}, LiveRequest(LiveAction.CREATE, "shop", keep_latest=True)),
    ("POST", CHANNELS, {}, LiveRequest(LiveAction.CREATE)),
    ("GET", CHANNELS, None, LiveRequest(LiveAction.LIST)),
    ("GET", f"{CHANNELS}?app=shop", None, LiveRequest(LiveAction.LIST, "shop")),
    ("GET", f"{CHANNELS}/{CHANNEL}", None, LiveRequest(LiveAction.READ, "", CHANNEL)),
    ("DELETE", f"{CHANNELS}/4ZoVQ%2BbwfC6UF%2Fx3Q4Rgqg%3D%3D?app=shop", None, LiveRequest(LiveAction.DELETE, "shop", CHANNEL)),
    (
        "POST",
        BROADCASTS,
        {"app": "shop", "channel": CHANNEL, "payload": {"aps": {}}, "ttl": 60, "priority": 5, "request_id": "id"},
        LiveRequest(LiveAction.PUBLISH, "shop", CHANNEL, False, '{"aps":{}}', 60.0, 5, "id"),
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "asked"), CALLS)
def test_what_is_asked_is_handed_on_and_its_outcome_is_the_answer(method: str, path: str, body: object, asked: LiveRequest) -> None:
    api = Api()
    response = api.request(method, path, body)
    assert (response.status, response.json()["outcome"]) == (200, "done")
    assert api.apple.live == [(asked, PUSH_TIMEOUT)]


@pytest.mark.parametrize(("method", "path", "body", "asked"), CALLS)
def test_a_key_needs_the_scope(method: str, path: str, body: object, asked: LiveRequest) -> None:
    api = Api()
    assert api.request(method, path, body, key=READER).status == 403
    assert api.request(method, path, body, key=None).status == 401
    assert api.apple.live == []


@pytest.mark.parametrize(("method", "path", "body", "asked"), CALLS)
def test_above_the_publishers_rate_nothing_is_asked(method: str, path: str, body: object, asked: LiveRequest) -> None:
    api = Api()
    api.push.errors["push"] = Refused(Code.MESSAGE_RATE_EXCEEDED, retry_after=2.5)
    assert api.request(method, path, body).status == 429
    assert api.apple.live == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHANNELS, {"keep_latest": "yes"}, "keep_latest"),
        (CHANNELS, {"app": 5}, "app"),
        (CHANNELS, {"wish": 1}, "wish"),
        (BROADCASTS, {"payload": {}}, "channel"),
        (BROADCASTS, {"channel": CHANNEL}, "payload"),
        (BROADCASTS, {"channel": CHANNEL, "payload": []}, "payload"),
        (BROADCASTS, {"channel": CHANNEL, "payload": {}, "ttl": -1}, "ttl"),
        (BROADCASTS, {"channel": CHANNEL, "payload": {}, "priority": "high"}, "priority"),
        (BROADCASTS, {"channel": CHANNEL, "payload": {}, "request_id": None}, "request_id"),
        (BROADCASTS, {"channel": CHANNEL, "payload": {}, "wish": 1}, "wish"),
    ],
)
def test_bad_input_names_its_field_and_nothing_is_asked(path: str, body: dict[str, object], field: str) -> None:
    api = Api()
    response = api.request("POST", path, body)
    assert (response.status, response.json()["field"], api.apple.live) == (400, field, [])


def test_what_the_sender_finds_wrong_is_an_error_of_the_field() -> None:
    api = Api()
    api.apple.error = BadDirectPush("channel", "is none")
    response = api.request("GET", f"{CHANNELS}/x")
    assert (response.status, response.json()["field"]) == (400, "channel")


@pytest.mark.parametrize(("configured", "status"), [(True, 404), (False, 409)])
def test_without_such_an_app_the_answer_says_so(configured: bool, status: int) -> None:
    api = Api()
    api.apple.error = NoApp("there is none", configured=configured)
    assert api.request("GET", CHANNELS).status == status
