from __future__ import annotations

import pytest

from tests.rest.support import ALL, READER, Api


def test_device_is_described() -> None:
    response = Api().request("GET", "/v1/devices/phone-1", key=READER)
    assert response.status == 200
    device = response.json()
    assert (device["device_id"], device["user_id"], device["connected"], device["state"]) == (
        "phone-1",
        "alice",
        True,
        "FOREGROUND",
    )
    assert device["channels"] == [{"channel": "device:phone-1", "acknowledged": 3, "sent": 4, "top": 5}]


def test_unknown_device_is_404_with_its_code() -> None:
    response = Api().request("GET", "/v1/devices/other")
    assert (response.status, response.json()["code"]) == (404, 3006)


def test_channel_is_described() -> None:
    response = Api().request("GET", "/v1/channels/news", key=READER)
    assert response.json() == {"channel": "news", "epoch": "E1", "top_offset": 9, "floor_offset": 2, "connections": 4}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("device:phone-1", "device:phone-1"),
        ("a/b//c", "a/b//c"),
        ("a%2Fb", "a/b"),
        ("gr%C3%BC%C3%9Fe", "grüße"),
        ("100%25", "100%"),
    ],
)
def test_name_of_a_channel_is_taken_from_the_path_as_it_is(path: str, name: str) -> None:
    assert Api().request("GET", f"/v1/channels/{path}").json()["channel"] == name


def test_unknown_channel_is_404_with_its_code() -> None:
    response = Api().request("GET", "/v1/channels/nowhere")
    assert (response.status, response.json()["code"]) == (404, 3006)


def test_device_is_disconnected_and_told_why() -> None:
    api = Api()
    response = api.request("POST", "/v1/devices/phone-1/disconnect", {"detail": "maintenance"})
    assert response.json() == {"disconnected": True}
    assert api.push.disconnected == [("phone-1", "maintenance")]


def test_disconnect_needs_no_body() -> None:
    api = Api()
    assert api.request("POST", "/v1/devices/phone-1/disconnect").status == 200
    assert api.push.disconnected == [("phone-1", "disconnected over the REST API")]


def test_device_without_a_connection_is_said_not_to_be_disconnected() -> None:
    assert Api().request("POST", "/v1/devices/other/disconnect").json() == {"disconnected": False}


@pytest.mark.parametrize("body", [{"detail": 5}, {"detail": "x" * 201}, {"detail": "a\nb"}, {"reason": "x"}, []])
def test_bad_reason_disconnects_nobody(body: object) -> None:
    api = Api()
    assert api.request("POST", "/v1/devices/phone-1/disconnect", body).status == 400
    assert api.push.disconnected == []


def test_alive_needs_no_key() -> None:
    response = Api().request("GET", "/healthz", key=None)
    assert (response.status, response.json()) == (200, {"alive": True})


def test_ready_says_why_not() -> None:
    api = Api()
    assert api.request("GET", "/readyz", key=None).json() == {"ready": True, "reasons": []}
    api.blocked.reason = "no probe"
    response = api.request("GET", "/readyz", key=None)
    assert (response.status, response.json()) == (503, {"ready": False, "reasons": ["probe: no probe"]})


def test_metrics_are_shown_without_a_key_on_loopback() -> None:
    response = Api(address="127.0.0.1").request("GET", "/metrics", key=None)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert b'streampush_closes_total{by="server",code="1005"} 0.0' in response.body


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "push.example", ""])
def test_metrics_need_a_key_with_their_scope_elsewhere(address: str) -> None:
    api = Api(address=address)
    assert api.request("GET", "/metrics", key=None).status == 401
    assert api.request("GET", "/metrics", key=READER).status == 403
    assert api.request("GET", "/metrics", key=ALL).status == 200


def test_requests_are_counted_by_status() -> None:
    api = Api()
    api.request("GET", "/healthz")
    api.request("GET", "/nowhere")
    api.publish(topic="news", payload="x", key="wrong")
    counts = {
        status: api.registry.get_sample_value("streampush_rest_requests_total", {"status": status})
        for status in ("200", "401", "404")
    }
    assert counts == {"200": 1, "401": 1, "404": 1}
