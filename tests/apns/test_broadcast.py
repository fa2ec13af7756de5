from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.broadcast import (
    MANAGEMENT_HOSTS,
    MAX_ANSWER,
    MAX_CHANNELS,
    Broadcast,
    Channel,
    Request,
    Storage,
    broadcast_request,
    create_channel,
    created_channel,
    delete_channel,
    described_channel,
    list_channels,
    listed_channels,
    read_channel,
)
from streampush.apns.errors import BadPush

BUNDLE, CHANNEL = "com.example.app", "dHN0LXNyY2gtY2hubA=="
PAYLOAD = b'{"aps":{"event":"update"}}'


def refused(**changes: object) -> BadPush:
    fields: dict[str, object] = {"channel_id": CHANNEL, "payload": PAYLOAD}
    with pytest.raises(BadPush) as caught:
        broadcast_request(BUNDLE, Broadcast(**(fields | changes)))  # type: ignore[arg-type]
    return caught.value


def test_a_broadcast_has_apples_path_and_headers() -> None:
    request_id = str(uuid.uuid4())
    assert broadcast_request(BUNDLE, Broadcast(CHANNEL, PAYLOAD, 1_790_000_000, 5, request_id)) == Request(
        "POST",
        "/4/broadcasts/apps/com.example.app",
        (
            ("apns-channel-id", CHANNEL),
            ("apns-push-type", "liveactivity"),
            ("apns-expiration", "1790000000"),
            ("apns-priority", "5"),
            ("apns-request-id", request_id),
        ),
        PAYLOAD,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel_id", ""),
        ("channel_id", "a b"),
        ("channel_id", "a\r\nb"),
        ("channel_id", "a" * 129),
        ("payload", b""),
        ("payload", b"[]"),
        ("expiration", -1),
        ("expiration", 1 << 32),
        ("priority", 7),
        ("request_id", "17"),
    ],
)
def test_what_apple_would_reject_is_refused_by_its_field(field: str, value: object) -> None:
    assert refused(**{field: value}).field == field


def test_a_broadcast_may_have_5120_bytes() -> None:
    broadcast_request(BUNDLE, Broadcast(CHANNEL, b'{"a":"' + b"x" * 5112 + b'"}'))
    assert refused(payload=b'{"a":"' + b"x" * 5113 + b'"}').problem == "5121 bytes of JSON, 1 above the limit of 5120"


@pytest.mark.parametrize("bundle_id", ["", "com/example", BUNDLE + ".push-type.liveactivity", "a?b"])
def test_the_path_takes_a_bundle_id_and_nothing_else(bundle_id: str) -> None:
    for make in (
        lambda: broadcast_request(bundle_id, Broadcast(CHANNEL, PAYLOAD)),
        lambda: create_channel(bundle_id, Storage.LATEST),
        lambda: read_channel(bundle_id, CHANNEL),
        lambda: delete_channel(bundle_id, CHANNEL),
        lambda: list_channels(bundle_id),
    ):
        with pytest.raises(BadPush, match="topic"):
            make()


def test_requests_about_channels_are_apples() -> None:
    path = "/1/apps/com.example.app/channels"
    body = b'{"message-storage-policy":1,"push-type":"LiveActivity"}'
    assert create_channel(BUNDLE, Storage.LATEST) == Request("POST", path, (("content-type", "application/json"),), body)
    assert read_channel(BUNDLE, CHANNEL) == Request("GET", path, (("apns-channel-id", CHANNEL),))
    assert delete_channel(BUNDLE, CHANNEL) == Request("DELETE", path, (("apns-channel-id", CHANNEL),))
    assert list_channels(BUNDLE) == Request("GET", "/1/apps/com.example.app/all-channels")
    assert MANAGEMENT_HOSTS[True] == ("api-manage-broadcast.sandbox.push.apple.com", 2195)
    assert MANAGEMENT_HOSTS[False] == ("api-manage-broadcast.push.apple.com", 2196)


def test_a_channel_id_that_is_none_is_refused_in_requests_about_channels() -> None:
    for make in (read_channel, delete_channel):
        with pytest.raises(BadPush, match="channel_id"):
            make(BUNDLE, "a b")


@pytest.mark.parametrize(
    ("status", "headers", "channel_id"),
    [
        (201, {"apns-channel-id": CHANNEL}, CHANNEL),
        (400, {"apns-channel-id": CHANNEL}, None),
        (201, {}, None),
        (201, {"apns-channel-id": "a b"}, None),
    ],
)
def test_the_id_of_a_new_channel_is_read(status: int, headers: dict[str, str], channel_id: str | None) -> None:
    assert created_channel(status, headers) == channel_id


def test_a_channel_that_apple_describes_is_read() -> None:
    body = b'{"message-storage-policy":1,"push-type":"LiveActivity"}'
    assert described_channel(200, CHANNEL, body) == Channel(CHANNEL, Storage.LATEST)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"message-storage-policy":2}', b'{"message-storage-policy":true}', b"["])
def test_a_description_that_is_none_is_none(body: bytes) -> None:
    assert described_channel(200, CHANNEL, body) is None


def test_the_list_of_channels_is_read_as_long_as_apple_allows() -> None:
    channels = [f"{n:0128}" for n in range(MAX_CHANNELS)]
    body = json.dumps({"channels": channels}, separators=(",", ":")).encode()
    assert len(body) <= MAX_ANSWER
    assert listed_channels(200, body) == tuple(channels)
    assert listed_channels(200, json.dumps({"channels": ["a", 1, "b c", None]}).encode()) == ("a",)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"channels":[]}'),
        (200, b'{"channels":{}}'),
        (200, b"{}"),
        (200, b" " * MAX_ANSWER + b'{"channels":[]}'),
        (200, json.dumps({"channels": ["a"] * (MAX_CHANNELS + 1)}).encode()),
    ],
)
def test_a_list_that_is_none_is_none(status: int, body: bytes) -> None:
    assert listed_channels(status, body) is None


@given(st.binary(max_size=60) | st.recursive(st.text(), st.lists).map(lambda each: json.dumps({"channels": each}).encode()))
def test_no_answer_makes_it_fail(body: bytes) -> None:
    listed_channels(200, body)
    described_channel(200, CHANNEL, body)


def test_the_payload_is_not_in_the_repr() -> None:
    broadcast = Broadcast(CHANNEL, PAYLOAD)
    assert "event" not in repr(broadcast) + repr(broadcast_request(BUNDLE, broadcast))
