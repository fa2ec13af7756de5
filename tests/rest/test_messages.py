"""GET /v1/messages/{id}."""

from __future__ import annotations

from dataclasses import replace

from streampush.push.values import PushOutcome, PushResult
from tests.rest.support import READER, Api, receipt


def test_a_device_message_has_a_row_for_each_device_with_its_milestones() -> None:
    api = Api()
    api.push.receipts.tell(receipt("tablet", written=1_100, delivered=1_200), expires_at_ms=9_000, publisher="key:shop")
    answer = api.request("GET", "/v1/messages/M1").json()
    assert answer["devices"] == [
        {"device_id": "phone", "state": "waiting", "milestones_ms": {"accepted": 1_000, "stored": 1_000}},
        {
            "device_id": "tablet",
            "state": "delivered",
            "milestones_ms": {"accepted": 1_000, "stored": 1_000, "written": 1_100, "delivered": 1_200},
        },
    ]
    assert (answer["message_id"], answer["channel"], answer["offset"], answer["epoch"]) == ("M1", "user:ada", 3, "E1")
    assert (answer["state"], answer["ended"], answer["more_devices"], answer["publisher"]) == ("stored", False, False, "key:shop")


def test_how_the_push_to_a_device_ended_is_in_its_row() -> None:
    api = Api()
    result = PushResult(1_300, PushOutcome.REJECTED, "Unregistered", "A-1")
    api.push.receipts.tell(replace(receipt("tablet"), push=result))
    phone, tablet = api.request("GET", "/v1/messages/M1").json()["devices"]
    assert "push" not in phone
    assert tablet["push"] == {"outcome": "rejected", "at_ms": 1_300, "reason": "Unregistered", "apns_id": "A-1"}
    assert tablet["state"] == "waiting"


def test_pushes_of_a_topic_are_counted() -> None:
    api = Api()
    api.push.receipts.tell(channel="news", push_counts={PushOutcome.NOT_SENT: 1, PushOutcome.DELIVERED: 3})
    answer = api.request("GET", "/v1/messages/M1").json()
    assert list(answer["pushes"].items()) == [("delivered", 3), ("not_sent", 1)]


def test_it_shows_what_the_publisher_asked_for_under_the_same_names_and_how_safely_it_is_stored() -> None:
    api = Api()
    api.push.receipts.tell(expires_at_ms=9_000, deliver_at_ms=1_500)
    answer = api.request("GET", "/v1/messages/M1").json()
    assert (answer["expires_at"], answer["deliver_at"], answer["priority"]) == (9_000, 1_500, "NORMAL")
    assert (answer["want_receipt"], answer["durability"]) == (True, "MEMORY")


def test_its_end_is_said() -> None:
    api = Api()
    api.push.receipts.tell(receipt("phone", delivered=1_200), recalled_at_ms=1_500)
    answer = api.request("GET", "/v1/messages/M1").json()
    assert (answer["state"], answer["ended"], answer["recalled_at_ms"]) == ("recalled", True, 1_500)


def test_unknown_message_is_404_with_its_code() -> None:
    response = Api().request("GET", "/v1/messages/M2")
    assert (response.status, response.json()["code"]) == (404, 3006)


def test_reading_needs_the_scope() -> None:
    assert Api().request("GET", "/v1/messages/M1", key=READER).status == 200
    assert Api().request("GET", "/v1/messages/M1", key=None).status == 401
    assert Api().request("GET", "/v1/messages/M1/events", key=None).status == 401


def test_a_push_is_found_by_its_id() -> None:
    assert Api().request("GET", "/v1/apns/pushes/A1", key=READER).json() == {
        "message_id": "M1",
        "device_id": "phone",
        "outcome": "rejected",
        "at_ms": 1_300,
        "reason": "Unregistered",
        "apns_id": "A1",
    }


def test_a_push_that_is_not_known_is_no_page() -> None:
    response = Api().request("GET", "/v1/apns/pushes/A2")
    assert (response.status, response.json()["detail"]) == (404, "no push to a device has this id, or its message has left the log")
