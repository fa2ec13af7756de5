"""Devices, backlogs, dead letters and presence over HTTP, in front of the real application."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from streampush.config import DeliveryConfig
from streampush.push.values import DeviceRecord, PushToken, Undeliverable
from streampush.rest.api import ROUTES
from tests.push.world import World, device
from tests.rest.support import READER, Api, Response
from tests.rest.test_openapi import check, operation


class Site(Api):
    """The API of a whole node in memory."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        super().__init__(push=self.world.service)

    def get(self, path: str, **named: Any) -> Any:
        response = self.request("GET", path, key=READER, **named)
        assert response.status == 200, response.body
        return response.json()

    def put(self, path: str, body: object = None) -> Response:
        response = self.request("PUT", path, body)
        self.world.settle()
        return response

    def known(self, device_id: str = "d", user_id: str = "ada") -> None:
        self.world.run(self.world.memory.remember_device(DeviceRecord(device_id, user_id)))

    def letter(self, at_ms: int = 7) -> str:
        self.known()
        published = self.world.publish("news", b"poison")
        letter = Undeliverable("d", "news", published.epoch, published.offset, 10, "not acknowledged", at_ms)
        self.world.run(self.world.memory.record([], [], [letter]))
        return published.message_id


@pytest.fixture
def site() -> Site:
    return Site()


# ---------------------------------------------------------------------------------------------------------------- devices


def test_device_is_made_and_changed(site: Site) -> None:
    made = site.put("/v1/devices/d", {"user_id": "ada", "attributes": {"model": "x"}})
    assert (made.status, made.json()["user_id"], made.json()["attributes"]) == (201, "ada", {"model": "x"})
    changed = site.put("/v1/devices/d", {"user_id": ""})
    assert (changed.status, changed.json()["user_id"], changed.json()["attributes"]) == (200, "", {"model": "x"})
    assert site.get("/v1/devices/d") == changed.json()


def test_device_may_be_made_without_a_body(site: Site) -> None:
    assert site.put("/v1/devices/d").status == 201


def test_message_to_a_device_that_never_connected_is_taken(site: Site) -> None:
    assert site.publish(device="d", payload="x").status == 404
    site.put("/v1/devices/d")
    assert site.publish(device="d", payload="x").status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": "ada"}, "user"),
        ({"user_id": 5}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {"a": 1}}, "attributes"),
        ({"attributes": {"a": "\ud800"}}, "attributes"),
        ({"user_id": "a/b"}, None),
        ({"attributes": {"": "x"}}, None),
        ({"attributes": {str(number): "" for number in range(33)}}, None),
        ([], None),
    ],
)
def test_bad_change_is_refused_and_makes_nothing(site: Site, body: object, field: str | None) -> None:
    response = site.put("/v1/devices/d", body)
    assert (response.status, response.json().get("field")) == (400, field)
    assert site.request("GET", "/v1/devices/d").status == 404


@pytest.mark.parametrize("name", ["a%20b", "%C3%A4", "a:b", "a" * 129])
def test_id_that_no_certificate_can_have_is_refused(site: Site, name: str) -> None:
    response = site.put(f"/v1/devices/{name}")
    assert (response.status, response.json()["field"]) == (400, "id")


def test_binding_against_the_certificate_is_forbidden(site: Site) -> None:
    site.world.attach(device("d", "ada"))
    response = site.put("/v1/devices/d", {"user_id": "bob"})
    assert (response.status, response.json()["code"]) == (403, 3003)


def test_device_is_forgotten(site: Site) -> None:
    site.known()
    assert site.request("DELETE", "/v1/devices/d").json() == {"forgotten": True}
    assert site.request("DELETE", "/v1/devices/d").json() == {"forgotten": False}
    assert site.request("GET", "/v1/devices/d").status == 404


def test_push_token_is_in_no_answer(site: Site) -> None:
    site.known()
    site.world.run(site.world.service.register_token(device("d"), PushToken(b"secret-token", "org.example", False)))
    response = site.request("GET", "/v1/devices/d")
    assert response.json()["token_registered"] is True
    for secret in (b"secret-token", b"secret-token".hex().encode(), base64.b64encode(b"secret-token")):
        assert secret not in response.body


# ------------------------------------------------------------------------------------------------------------------ rights

WRITES = [
    ("PUT", "/v1/devices/d"),
    ("DELETE", "/v1/devices/d"),
    ("PUT", "/v1/devices/d/subscriptions/news/a"),
    ("DELETE", "/v1/devices/d/subscriptions/news/a"),
    ("PUT", "/v1/devices/d/push-token"),
    ("DELETE", "/v1/devices/d/push-token"),
    ("DELETE", "/v1/devices/d/dead-letters/m"),
    ("POST", "/v1/devices/d/dead-letters/m/replay"),
]
READS = [
    "/v1/devices/d",
    "/v1/devices/d/subscriptions",
    "/v1/devices/d/push-token",
    "/v1/devices/d/backlog",
    "/v1/devices/d/dead-letters",
    "/v1/devices/d/dead-letters/m",
    "/v1/presence/users/ada",
    "/v1/presence/channels/news",
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_key_that_may_only_read_changes_nothing(site: Site, method: str, path: str) -> None:
    site.known()
    response = site.request(method, path, key=READER)
    assert (response.status, response.json()["code"]) == (403, 3003)


@pytest.mark.parametrize(("method", "path"), [*WRITES, *(("GET", path) for path in READS)])
def test_without_a_key_there_is_nothing(site: Site, method: str, path: str) -> None:
    assert site.request(method, path, key=None).status == 401


@pytest.mark.parametrize("path", [path for path in READS if "presence/channels" not in path])
def test_what_is_not_known_is_404(site: Site, path: str) -> None:
    response = site.request("GET", path, key=READER)
    assert (response.status, response.json()["code"]) == (404, 3006)


# ------------------------------------------------------------------------------------------------------ what waits for it


def test_subscriptions_are_listed(site: Site) -> None:
    site.known()
    site.world.run(site.world.memory.add_subscription("d", "news/a", 5, 10))
    assert site.get("/v1/devices/d/subscriptions") == {"subscriptions": [{"channel": "news/a", "since_ms": 5}]}


def test_subscription_is_made_and_ended() -> None:
    site = Site(World(delivery=DeliveryConfig(subscribe=("*",))))
    site.known()
    path = "/v1/devices/d/subscriptions/news%2Fa/b"
    answers = [site.request(method, path) for method in ("PUT", "PUT", "DELETE", "DELETE")]
    assert [(answer.status, answer.json()) for answer in answers] == [
        (201, {"added": True}),
        (200, {"added": False}),
        (200, {"removed": True}),
        (200, {"removed": False}),
    ]


@pytest.mark.parametrize(
    ("channel", "status", "code"), [("sport", 403, 3003), ("device:d", 403, 3003), ("a%20b", 404, 3006), ("%24probe", 403, 3003)]
)
def test_subscription_that_may_not_be_is_refused(site: Site, channel: str, status: int, code: int) -> None:
    site.known()
    answer = site.request("PUT", f"/v1/devices/d/subscriptions/{channel}")
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert site.get("/v1/devices/d/subscriptions") == {"subscriptions": []}


def test_backlog_counts_each_channel(site: Site) -> None:
    site.known()
    site.world.publish("device:d")
    row = {"channel": "device:d", "acknowledged": 0, "top": 1, "waiting": 1, "lost": 0, "restarted": False, "durable": False}
    assert site.get("/v1/devices/d/backlog") == {"device_id": "d", "channels": [row]}


def test_backlog_of_a_channel_is_listed_in_pages_without_payload(site: Site) -> None:
    site.known()
    for _ in range(3):
        site.world.publish("device:d", b"secret payload")
    first = site.request("GET", "/v1/devices/d/backlog?channel=device:d&limit=2", key=READER)
    assert [entry["offset"] for entry in first.json()["entries"]] == [1, 2]
    assert b"secret" not in first.body
    second = site.get(f"/v1/devices/d/backlog?channel=device%3Ad&after={first.json()['next']}")
    assert ([entry["offset"] for entry in second["entries"]], second["next"]) == ([3], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("channel=device:d&limit=0", "limit"),
        ("channel=device:d&limit=1001", "limit"),
        ("channel=device:d&limit=all", "limit"),
        ("channel=device:d&limit=", "limit"),
        ("channel=device:d&limit=%2B1", "limit"),
        ("channel=device:d&limit=" + "9" * 5000, "limit"),
        ("channel=device:d&after=-1", "after"),
        ("channel=device:d&after=1e3", "after"),
        ("limit=5", "limit"),
        ("after=5", "after"),
        ("channel=device:d&offset=5", "offset"),
        ("channel=device:d&channel=device:d", None),
        ("channel=%FF", None),
        ("&".join(f"p{number}=1" for number in range(50)), None),
    ],
)
def test_backlog_request_without_sense_or_end_is_refused(site: Site, query: str, field: str | None) -> None:
    site.known()
    line = site.connect()
    head = f"GET /v1/devices/d/backlog?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READER}\r\n\r\n"
    line.send(head.encode("latin-1"))
    (response,) = line.responses()
    assert (response.status, response.json().get("field")) == (400, field)


def test_backlog_of_a_channel_without_a_place_is_a_conflict(site: Site) -> None:
    site.known()
    response = site.request("GET", "/v1/devices/d/backlog?channel=news")
    assert (response.status, response.json()["code"]) == (409, 3002)


# ------------------------------------------------------------------------------------------------------------ dead letters


def test_dead_letters_are_listed_without_payload(site: Site) -> None:
    message_id = site.letter()
    response = site.request("GET", "/v1/devices/d/dead-letters", key=READER)
    (row,) = response.json()["dead_letters"]
    expected = {"message_id": message_id, "channel": "news", "offset": 1, "at_ms": 7, "attempts": 10, "size": 6}
    assert {name: row[name] for name in expected} == expected
    assert (row["reason"], response.json()["next"]) == ("not acknowledged", None)
    assert not {"payload", "payload_base64", "headers"} & set(row)


def test_dead_letters_come_in_pages(site: Site) -> None:
    ids = [site.letter(at_ms) for at_ms in (1, 2, 2, 3)]
    seen = []
    path = "/v1/devices/d/dead-letters?limit=1"
    while path:
        answer = site.get(path)
        seen += [row["message_id"] for row in answer["dead_letters"]]
        path = answer["next"] and f"/v1/devices/d/dead-letters?limit=1&behind={answer['next']}"
    assert seen == [ids[3], ids[2], ids[1], ids[0]]


@pytest.mark.parametrize(
    "query", ["behind=", "behind=5", "behind=x.y", "behind=5.", f"behind={'9' * 20}.a", "limit=101", "limit=0"]
)
def test_bad_page_of_dead_letters_is_refused(site: Site, query: str) -> None:
    site.known()
    assert site.request("GET", f"/v1/devices/d/dead-letters?{query}").status == 400


def test_payload_is_shown_to_who_may_change_devices_and_asks_for_it(site: Site) -> None:
    path = f"/v1/devices/d/dead-letters/{site.letter()}"
    assert "payload_base64" not in site.request("GET", path).json()
    assert base64.b64decode(site.request("GET", f"{path}?payload=true").json()["payload_base64"]) == b"poison"
    assert site.request("GET", f"{path}?payload=true", key=READER).status == 403
    assert site.request("GET", f"{path}?payload=false", key=READER).status == 200
    assert site.request("GET", f"{path}?payload=yes").status == 400


def test_replay_publishes_a_copy_and_drops_the_letter(site: Site) -> None:
    path = f"/v1/devices/d/dead-letters/{site.letter()}"
    response = site.request("POST", f"{path}/replay")
    assert (response.status, response.json()["channel"], response.json()["offset"]) == (200, "device:d", 1)
    assert site.request("POST", f"{path}/replay").status == 404


def test_letter_is_dropped(site: Site) -> None:
    path = f"/v1/devices/d/dead-letters/{site.letter()}"
    assert site.request("DELETE", path).json() == {"dropped": True}
    assert site.request("DELETE", path).json() == {"dropped": False}
    assert site.request("GET", path).status == 404


# ---------------------------------------------------------------------------------------------------------------- presence


def test_presence_of_a_user_lists_the_connected_devices(site: Site) -> None:
    site.world.attach(device("b", "ada"))
    site.world.attach(device("a", "ada"))
    site.known("away")
    site.world.settle()
    answer = site.get("/v1/presence/users/ada")
    assert (answer["user_id"], [row["device_id"] for row in answer["sessions"]]) == ("ada", ["a", "b"])
    assert answer["sessions"][0]["node"] == "node"
    assert [row["device_id"] for row in site.get("/v1/presence/users/ada?limit=1")["sessions"]] == ["a"]


@pytest.mark.parametrize("path", ["news/a", "news%2Fa", "//a", "/a/"])
def test_presence_of_a_channel_whatever_slashes_its_name_has(site: Site, path: str) -> None:
    name = path.replace("%2F", "/")
    site.world.follower("a", name)
    answer = site.get(f"/v1/presence/channels/{path}")
    assert answer == {"channel": name, "devices": 1, "device_ids": ["a"]}


def test_presence_of_a_channel_that_nobody_follows_is_empty(site: Site) -> None:
    assert site.get("/v1/presence/channels/news") == {"channel": "news", "devices": 0, "device_ids": []}


def test_what_is_no_name_of_a_channel_has_no_presence(site: Site) -> None:
    assert site.request("GET", "/v1/presence/channels/no%20name").status == 404


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
def test_presence_without_a_bound_is_refused(site: Site, limit: str) -> None:
    for path in ("users/ada", "channels/news"):
        assert site.request("GET", f"/v1/presence/{path}?limit={limit}").status == 400


# ---------------------------------------------------------------------------------------------------------- the description


def test_real_answers_fit_their_description(site: Site) -> None:
    message_id = site.letter()
    site.world.run(site.world.memory.add_subscription("d", "news", 1, 10))
    site.world.publish("device:d")
    away = site.get("/v1/devices/d/explain")
    attachment, _ = site.world.attach(device("d", "ada"))
    attachment.heartbeats.answered(0.5)
    site.world.subscribe(attachment, "news")
    site.world.settle()
    calls = [
        ("GET", "describe_device", "/v1/devices/d"),
        ("PUT", "change_device", "/v1/devices/d"),
        ("GET", "list_subscriptions", "/v1/devices/d/subscriptions"),
        ("GET", "show_backlog", "/v1/devices/d/backlog"),
        ("GET", "show_backlog", "/v1/devices/d/backlog?channel=device:d"),
        ("GET", "explain_device", "/v1/devices/d/explain"),
        ("GET", "explain_device", "/v1/devices/nobody/explain"),
        ("GET", "list_dead_letters", "/v1/devices/d/dead-letters"),
        ("GET", "show_dead_letter", f"/v1/devices/d/dead-letters/{message_id}?payload=true"),
        ("GET", "user_presence", "/v1/presence/users/ada"),
        ("GET", "channel_presence", "/v1/presence/channels/news"),
        ("POST", "replay_dead_letter", f"/v1/devices/d/dead-letters/{message_id}/replay"),
        ("DELETE", "drop_dead_letter", f"/v1/devices/d/dead-letters/{message_id}"),
        ("DELETE", "forget_device", "/v1/devices/d"),
    ]
    operations = {route.operation: operation(route) for route in ROUTES}
    check(away, operations["explain_device"]["responses"]["200"]["content"]["application/json"]["schema"])
    for method, name, path in calls:
        response = site.request(method, path)
        assert response.status == 200, (path, response.body)
        check(response.json(), operations[name]["responses"]["200"]["content"]["application/json"]["schema"])
