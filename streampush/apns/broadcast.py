"""Broadcasts: one push to a channel reaches the Live Activity of everybody who follows it.

Source: Apple, "Sending broadcast push notification requests to APNs" and "Sending channel management requests to APNs". What goes
over the wire is here as values; who sends it, and over which connection, is not. Broadcasts go to the host that other pushes go
to, requests about channels to one of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from streampush.apns.errors import BadPush
from streampush.apns.push import (
    MAX_BROADCAST_PAYLOAD,
    MAX_EXPIRATION,
    Priority,
    PushType,
    check_apns_id,
    check_payload,
    check_topic,
)

MAX_CHANNEL_ID = 128
"""Characters of base64. Apple's ids have 24; it says only that there is a longest."""

MAX_CHANNELS = 10_000
"""Channels of one app in one environment. Apple's limit."""

MAX_ANSWER = MAX_CHANNELS * (MAX_CHANNEL_ID + 3) + 1024
"""Bytes of the answer to a request about channels that are read: all of an app's, each in quotes with a comma."""

MANAGEMENT_HOSTS: Mapping[bool, tuple[str, int]] = MappingProxyType(
    {
        True: ("api-manage-broadcast.sandbox.push.apple.com", 2195),
        False: ("api-manage-broadcast.push.apple.com", 2196),
    }
)
"""Host and port for requests about channels; True: the sandbox."""

_CHANNEL_ID = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


class Storage(IntEnum):
    """Apple's message-storage-policy of a channel."""

    NOTHING = 0
    """Who is not connected misses it; more broadcasts are allowed."""
    LATEST = 1
    """Apple keeps the latest for who is not connected; fewer broadcasts are allowed."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """One push to a channel. `expiration`: Unix seconds, 0 for a channel that stores nothing. `request_id`: a UUID, or "" to let
    Apple make one."""

    channel_id: str
    payload: bytes = field(repr=False)
    expiration: int = 0
    priority: int = Priority.IMMEDIATE
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, but for authority and credentials. Header names are in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of an app, as Apple describes it."""

    channel_id: str
    storage: Storage


def broadcast_request(bundle_id: str, broadcast: Broadcast) -> Request:
    """The request for a broadcast. Raises BadPush for what Apple would reject whatever the time."""
    _check_bundle_id(bundle_id)
    _check_channel_id(broadcast.channel_id)
    check_payload(broadcast.payload, MAX_BROADCAST_PAYLOAD)
    if not 0 <= broadcast.expiration <= MAX_EXPIRATION:
        raise BadPush("expiration", f"{broadcast.expiration} is no Unix time in seconds from 0 to {MAX_EXPIRATION}")
    if broadcast.priority not in (Priority.IMMEDIATE, Priority.CONSIDERATE, Priority.QUIET):
        raise BadPush("priority", f"{broadcast.priority} is not 10, 5 or 1")
    headers = [
        ("apns-channel-id", broadcast.channel_id),
        ("apns-push-type", PushType.LIVEACTIVITY.value),
        ("apns-expiration", str(broadcast.expiration)),
        ("apns-priority", str(broadcast.priority)),
    ]
    if broadcast.request_id:
        check_apns_id(broadcast.request_id, "request_id")
        headers.append(("apns-request-id", broadcast.request_id))
    return Request("POST", f"/4/broadcasts/apps/{bundle_id}", tuple(headers), broadcast.payload)


def create_channel(bundle_id: str, storage: Storage) -> Request:
    """The request for a new channel; `created_channel` reads the answer. Raises BadPush."""
    _check_bundle_id(bundle_id)
    body = json.dumps({"message-storage-policy": int(storage), "push-type": "LiveActivity"}, separators=(",", ":")).encode()
    return Request("POST", f"/1/apps/{bundle_id}/channels", (("content-type", "application/json"),), body)


def read_channel(bundle_id: str, channel_id: str) -> Request:
    """The request for what a channel is; `described_channel` reads the answer. Raises BadPush."""
    return _about(bundle_id, channel_id, "GET")


def delete_channel(bundle_id: str, channel_id: str) -> Request:
    """The request that ends a channel, answered 204. Raises BadPush."""
    return _about(bundle_id, channel_id, "DELETE")


def list_channels(bundle_id: str) -> Request:
    """The request for the ids of all channels; `listed_channels` reads the answer. Raises BadPush."""
    _check_bundle_id(bundle_id)
    return Request("GET", f"/1/apps/{bundle_id}/all-channels")


def created_channel(status: int, headers: Mapping[str, str]) -> str | None:
    """The id of a new channel from the answer's status and headers (names in lower case); None if it is no such answer."""
    channel_id = headers.get("apns-channel-id", "")
    return channel_id if status in (200, 201) and _is_channel_id(channel_id) else None


def described_channel(status: int, channel_id: str, body: bytes) -> Channel | None:
    """What Apple says of the channel; None if the answer is no such answer."""
    document = _object(status, body)
    policy = document.get("message-storage-policy") if document else None
    return Channel(channel_id, Storage(policy)) if type(policy) is int and policy in (0, 1) else None


def listed_channels(status: int, body: bytes) -> tuple[str, ...] | None:
    """The ids of the app's channels; None if the answer is no such answer. Ids that are none are left out."""
    document = _object(status, body)
    channels = document.get("channels") if document else None
    if not isinstance(channels, list) or len(channels) > MAX_CHANNELS:
        return None
    return tuple(each for each in channels if isinstance(each, str) and _is_channel_id(each))


def _about(bundle_id: str, channel_id: str, method: str) -> Request:
    _check_bundle_id(bundle_id)
    _check_channel_id(channel_id)
    return Request(method, f"/1/apps/{bundle_id}/channels", (("apns-channel-id", channel_id),))


def _check_bundle_id(bundle_id: str) -> None:
    check_topic(bundle_id, PushType.ALERT)


def _check_channel_id(channel_id: str) -> None:
    if not _is_channel_id(channel_id):
        raise BadPush("channel_id", f"is not 1 to {MAX_CHANNEL_ID} characters of base64, as Apple gave it")


def _is_channel_id(text: str) -> bool:
    return 0 < len(text) <= MAX_CHANNEL_ID and _CHANNEL_ID.fullmatch(text) is not None


def _object(status: int, body: bytes) -> dict[str, object] | None:
    if status != 200 or len(body) > MAX_ANSWER:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
