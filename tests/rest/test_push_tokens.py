"""Push tokens over HTTP, in front of the real application."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from streampush.push.push_tokens import MAX_TOKEN_BYTES, shown
from streampush.push.values import DeviceRecord, PushToken
from streampush.rest import fields
from streampush.rest.api import ROUTES
from tests.push.world import World
from tests.rest.support import READER, Api, Response
from tests.rest.test_openapi import SCHEMAS, check, operation

PATH = "/v1/devices/d/push-token"
TOKEN = bytes(range(0x60, 0x80))


class Site(Api):
    """The API of a whole node in memory that knows the device d."""

    def __init__(self) -> None:
        self.world = World()
        super().__init__(push=self.world.service)
        self.know("d")

    def know(self, device_id: str) -> None:
        self.world.run(self.world.memory.remember_device(DeviceRecord(device_id)))

    def put(self, path: str = PATH, **changes: Any) -> Response:
        body = {"token": TOKEN.hex(), "topic": "com.example.shop", "environment": "sandbox"} | changes
        return self.request("PUT", path, {name: value for name, value in body.items() if value is not None})

    def token(self, device_id: str = "d") -> PushToken | None:
        record = self.world.run(self.world.memory.device(device_id))
        assert record is not None
        return record.push_token


@pytest.fixture
def site() -> Site:
    return Site()


def test_token_is_registered_and_the_answer_says_what_is_kept(site: Site) -> None:
    response = site.put()
    now_ms = site.world.wall_ms()
    assert response.status == 201
    assert response.json() == {
        "token_hash": shown(TOKEN),
        "topic": "com.example.shop",
        "environment": "sandbox",
        "registered_at_ms": now_ms,
    }
    assert site.token() == PushToken(TOKEN, "com.example.shop", sandbox=True, registered_at_ms=now_ms)
    assert site.request("GET", PATH, key=READER).json() == response.json()
    assert site.request("GET", "/v1/devices/d").json()["token_registered"] is True


def test_token_is_in_no_answer(site: Site) -> None:
    for response in (site.put(), site.put(), site.request("GET", PATH), site.request("DELETE", PATH)):
        for secret in (TOKEN, TOKEN.hex().encode(), base64.b64encode(TOKEN)):
            assert secret not in response.body


def test_environment_is_production_unless_it_is_said(site: Site) -> None:
    assert site.put(environment=None).json()["environment"] == "production"
    token = site.token()
    assert token is not None and not token.sandbox


def test_capital_digits_are_the_same_token(site: Site) -> None:
    assert site.put(token=TOKEN.hex().upper()).json()["token_hash"] == shown(TOKEN)
    assert site.put().status == 200


def test_token_that_is_registered_again_is_as_of_then(site: Site) -> None:
    first = site.put().json()["registered_at_ms"]
    site.world.now += 5
    again = site.put()
    assert (again.status, again.json()["registered_at_ms"]) == (200, first + 5_000)


def test_another_device_that_had_the_token_loses_it(site: Site) -> None:
    site.know("new")
    site.put()
    assert site.put("/v1/devices/new/push-token").status == 201
    assert site.token() is None
    assert site.request("GET", PATH).status == 404


def test_token_that_another_device_has_registered_later_is_a_conflict(site: Site) -> None:
    ahead = PushToken(TOKEN, "com.example.shop", sandbox=False, registered_at_ms=site.world.wall_ms() + 1)
    site.world.run(site.world.memory.remember_device(DeviceRecord("other", push_token=ahead)))
    assert site.put().status == 409
    assert (site.token(), site.token("other")) == (None, ahead)


def test_token_is_removed(site: Site) -> None:
    site.put()
    assert site.request("DELETE", PATH).json() == {"removed": True}
    assert site.token() is None
    assert site.request("DELETE", PATH).json() == {"removed": False}


def test_device_without_a_token_has_none_to_show(site: Site) -> None:
    response = site.request("GET", PATH, key=READER)
    assert (response.status, response.json()["detail"]) == (404, "this device has no push token")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_device_that_is_not_known_is_404(site: Site, method: str) -> None:
    body = {"token": "00", "topic": "app"} if method == "PUT" else None
    response = site.request(method, "/v1/devices/nobody/push-token", body)
    assert (response.status, response.json()["code"]) == (404, 3006)


@pytest.mark.parametrize(
    ("changes", "field", "detail"),
    [
        ({"token": None}, "token", "token: is missing"),
        ({"topic": None}, "topic", "topic: is missing"),
        ({"token": ""}, "token", "token: is empty; DELETE takes a token back"),
        ({"token": 5}, "token", "token: must be a string"),
        ({"token": "67f"}, "token", "token: has 3 hexadecimal digits, an odd number: it is cut short"),
        *(
            ({"token": token}, "token", "token: is not hexadecimal: give the bytes as two digits each, without spaces or brackets")
            for token in ("zz" * 32, f"<{TOKEN.hex()}>", "6768 6970", f"{TOKEN.hex()}\n", "\uff11\uff12", "0x67")
        ),
        ({"topic": ["app"]}, "topic", "topic: must be a string"),
        ({"topic": "com..shop"}, None, None),
        ({"topic": ""}, None, None),
        ({"environment": "Sandbox"}, "environment", "environment: must be one of production, sandbox"),
        ({"environment": True}, "environment", None),
        ({"environment": []}, "environment", None),
        ({"sandbox": True}, "sandbox", "sandbox: unknown field; known are token, topic, environment"),
    ],
)
def test_bad_token_is_refused_by_name_and_the_old_one_stays(
    site: Site, changes: dict[str, Any], field: str | None, detail: str | None
) -> None:
    site.put()
    before = site.token()
    response = site.put(**changes)
    assert (response.status, response.json().get("field")) == (400, field)
    assert detail is None or response.json()["detail"] == detail
    assert TOKEN.hex().encode() not in response.body
    assert site.token() == before


@pytest.mark.parametrize("changes", [{"token": "ab" * (MAX_TOKEN_BYTES + 1)}, {"topic": "a" * 256}])
def test_token_or_topic_above_its_limit_is_too_large(site: Site, changes: dict[str, Any]) -> None:
    response = site.put(**changes)
    assert (response.status, response.json()["code"]) == (413, 3004)
    assert site.token() is None


def test_body_is_needed(site: Site) -> None:
    assert site.request("PUT", PATH).status == 400


def test_registering_does_not_touch_the_rest_of_the_device(site: Site) -> None:
    site.request("PUT", "/v1/devices/d", {"user_id": "ada", "attributes": {"model": "x"}})
    before = site.world.run(site.world.memory.device("d"))
    site.put()
    site.request("DELETE", PATH)
    assert before is not None
    assert site.world.run(site.world.memory.device("d")) == replace(before, push_token=None)


# ---------------------------------------------------------------------------------------------------------- the description


def test_real_answers_fit_their_description(site: Site) -> None:
    operations = {route.operation: operation(route) for route in ROUTES}
    body = {"token": TOKEN.hex(), "topic": "com.example.shop"}
    calls: list[tuple[str, str, object, int]] = [
        ("PUT", "register_push_token", body, 201),
        ("PUT", "register_push_token", body, 200),
        ("GET", "show_push_token", None, 200),
        ("DELETE", "remove_push_token", None, 200),
    ]
    for method, name, sent, status in calls:
        response = site.request(method, PATH, sent)
        assert response.status == status
        check(response.json(), operations[name]["responses"][str(status)]["content"]["application/json"]["schema"])


def test_fields_of_a_registration_are_those_that_are_read() -> None:
    change = SCHEMAS["PushTokenChange"]["properties"]
    assert tuple(change) == fields.PUSH_TOKEN_FIELDS
    assert change["token"]["maxLength"] == 2 * MAX_TOKEN_BYTES
    assert change["environment"]["enum"] == SCHEMAS["PushToken"]["properties"]["environment"]["enum"] == list(fields.ENVIRONMENTS)
    assert change["environment"]["default"] == fields.ENVIRONMENTS[0]
