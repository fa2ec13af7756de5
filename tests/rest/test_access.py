from __future__ import annotations

import pytest

from streampush.config import KeyConfig
from streampush.rest.keys import Keys
from streampush.rest.problems import Problem
from tests.rest.support import ALL, KEYS, READER, Api, render

GUARDED = [
    ("POST", "/v1/publish", {"topic": "news", "payload": "x"}),
    ("POST", "/v1/publish/batch", {"messages": [{"topic": "news", "payload": "x"}]}),
    ("GET", "/v1/devices/phone-1", None),
    ("POST", "/v1/devices/phone-1/disconnect", None),
    ("GET", "/v1/channels/news", None),
]


@pytest.mark.parametrize(("method", "path", "body"), GUARDED)
@pytest.mark.parametrize("key", [None, "wrong", "", ALL.upper(), ALL + "x", "x" * 10_000])
def test_without_a_known_key_there_is_nothing(method: str, path: str, body: object, key: str | None) -> None:
    api = Api()
    response = api.request(method, path, body, key=key)
    assert response.status == 401
    assert response.headers["www-authenticate"].startswith('Bearer realm="streampush"')
    assert response.headers["content-type"] == "application/problem+json"
    assert (api.push.published, api.push.disconnected) == ([], [])


@pytest.mark.parametrize(("method", "path", "body"), [row for row in GUARDED if row[0] == "POST"])
def test_key_without_the_scope_is_forbidden(method: str, path: str, body: object) -> None:
    api = Api()
    response = api.request(method, path, body, key=READER)
    assert (response.status, response.json()["code"]) == (403, 3003)
    assert (api.push.published, api.push.disconnected) == ([], [])


@pytest.mark.parametrize("value", [f"Basic {ALL}", ALL, "Bearer", f"Bearer {ALL} {ALL}", f"Bearer {ALL},x"])
def test_other_schemes_are_not_known(value: str) -> None:
    assert Api().request("GET", "/v1/devices/phone-1", key=None, Authorization=value).status == 401


def test_two_keys_in_one_request_are_none() -> None:
    line = Api().connect()
    request = render("GET", "/v1/devices/phone-1").replace(b"Host:", f"Authorization: Bearer {ALL}\r\nHost:".encode())
    line.send(request)
    assert line.responses()[0].status == 401


def test_scheme_may_be_written_in_any_case() -> None:
    assert Api().request("GET", "/v1/devices/phone-1", key=None, Authorization=f"bearer {ALL}").status == 200


def test_answer_to_a_wrong_key_does_not_repeat_it() -> None:
    response = Api().request("GET", "/v1/devices/phone-1", key="wr0ng-key")
    assert b"wr0ng-key" not in response.body


def test_hash_may_be_written_in_capitals() -> None:
    key = KeyConfig("a", KEYS[0].sha256.upper(), (), ("read",))
    assert Keys([key]).caller([f"Bearer {ALL}"]).principal.name == "a"


def test_key_without_a_hash_lets_nobody_in() -> None:
    keys = Keys([KeyConfig("broken", "", (), ("publish",))])
    for presented in ("Bearer ", "Bearer  ", "Bearer x"):
        with pytest.raises(Problem):
            keys.caller([presented])


def test_path_that_needs_no_key_does_not_look_at_it() -> None:
    assert Api().request("GET", "/healthz", key="wrong").status == 200


def test_key_of_any_bytes_is_just_wrong() -> None:
    line = Api().connect()
    line.send(render("GET", "/v1/devices/phone-1", key="x").replace(b"Bearer x", b"Bearer \xff"))
    (response,) = line.responses()
    assert response.status == 401
