"""Broadcast channels for Live Activities, as Apple has them: create, read, list, delete, and publish to all who follow.

Sources: Apple, "Sending channel management requests to APNs", "Sending broadcast push notification requests to APNs", "Handling
error responses from Apple Push Notification service". At Apple management has a host of its own; here one port serves all.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final

from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.validation import PRIORITIES, Push, Request, check_expiration, check_payload

MAX_CHANNELS: Final = 10_000
"""Channels of an app in one environment; Apple's limit."""

MAX_CHANNELS_IN_ALL: Final = 100_000
"""Channels of all apps together. Ours: bundle ids cost a client nothing here."""

MAX_BROADCAST_PAYLOAD: Final = 5120
"""Bytes."""

MAX_CHANNEL_ID: Final = 128
"""Characters of a channel id that is looked for. Ours: Apple does not say how long one is."""

_PUSH_TYPE: Final = "LiveActivity"
_CHANNEL_ID: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MANAGEMENT: Final = re.compile(rb"/1/apps/([^/]+)/(channels|all-channels)")
_BROADCAST: Final = re.compile(rb"/4/broadcasts/apps/([^/]+)")


class Call(Enum):
    """What is asked for."""

    CREATE = "create"
    READ = "read"
    DELETE = "delete"
    LIST = "list"
    PUBLISH = "publish"


_CALLS: Final = {
    (b"channels", b"POST"): Call.CREATE,
    (b"channels", b"GET"): Call.READ,
    (b"channels", b"DELETE"): Call.DELETE,
    (b"all-channels", b"GET"): Call.LIST,
}


@dataclass(frozen=True, slots=True)
class Channel:
    """`storage_policy`: 0: nothing is kept for devices that are away, 1: the latest message is."""

    channel_id: str
    bundle_id: str
    storage_policy: int


@dataclass(frozen=True, slots=True)
class Done:
    """A call that succeeded: the `status` and what its answer holds. `push`: what was published."""

    status: int
    channel_id: str = ""
    body: bytes = field(default=b"", repr=False)
    push: Push | None = field(default=None, repr=False)


class Kind(Enum):
    """What a request is about."""

    PUSH = "push"
    """A push to a device."""
    BROADCAST = "broadcast"
    """A push to the followers of a channel."""
    CHANNELS = "channels"
    """Channels are made, looked at, or deleted."""


def kind_of(path: bytes) -> Kind:
    """What a request with that path is about."""
    if path.startswith(b"/4/broadcasts/"):
        return Kind.BROADCAST
    return Kind.CHANNELS if path.startswith(b"/1/apps/") else Kind.PUSH


def find_call(request: Request) -> tuple[Call, str] | Reason:
    """What is asked for, and the bundle id."""
    path, method = request.get(b":path") or b"", request.get(b":method") or b""
    broadcast = _BROADCAST.fullmatch(path)
    if broadcast:
        return (Call.PUBLISH, broadcast[1].decode("latin-1")) if method == b"POST" else Reason.METHOD_NOT_ALLOWED
    management = _MANAGEMENT.fullmatch(path)
    if not management:
        return Reason.BAD_PATH
    call = _CALLS.get((management[2], method))
    return (call, management[1].decode("latin-1")) if call is not None else Reason.METHOD_NOT_ALLOWED


class Channels:
    """The channels of all apps, in the order of their making. `most`: of all apps together."""

    __slots__ = ("_by_id", "_counts", "_ids", "_most", "enabled")

    def __init__(self, seed: int = 0, *, enabled: bool = True, most: int = MAX_CHANNELS_IN_ALL) -> None:
        self.enabled = enabled
        """Whether broadcasting is enabled for the apps in the developer account."""
        self._most = most
        self._by_id: dict[str, Channel] = {}
        self._counts: dict[str, int] = {}
        self._ids = Random(f"{seed} channels")  # noqa: S311  # must come again with the seed

    def __len__(self) -> int:
        return len(self._by_id)

    def carry_out(self, call: Call, bundle_id: str, request: Request) -> Done | Reason:
        """Does what an authorised provider asks for."""
        if not self.enabled:
            return Reason.FEATURE_NOT_ENABLED
        if call is Call.CREATE:
            return self._create(bundle_id, request)
        if call is Call.LIST:
            ids = [channel.channel_id for channel in self._by_id.values() if channel.bundle_id == bundle_id]
            return Done(200, body=_dump({"channels": ids}))
        channel = self._find(bundle_id, request)
        if isinstance(channel, Reason):
            return channel
        if call is Call.PUBLISH:
            return _publish(channel, request)
        if call is Call.DELETE:
            del self._by_id[channel.channel_id]
            self._counts[bundle_id] -= 1
            if not self._counts[bundle_id]:
                del self._counts[bundle_id]
            return Done(204, channel.channel_id)
        body = _dump({"message-storage-policy": channel.storage_policy, "push-type": _PUSH_TYPE})
        return Done(200, channel.channel_id, body)

    def _create(self, bundle_id: str, request: Request) -> Done | Reason:
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return Reason.BAD_REQUEST_PAYLOAD
        policy = asked.get("message-storage-policy")
        if isinstance(policy, bool) or policy not in (0, 1):
            return Reason.BAD_REQUEST_PAYLOAD
        if asked.get("push-type") != _PUSH_TYPE:
            return Reason.INVALID_PUSH_TYPE if asked.get("push-type") else Reason.MISSING_PUSH_TYPE
        if self._counts.get(bundle_id, 0) >= MAX_CHANNELS or len(self._by_id) >= self._most:
            return Reason.CANNOT_CREATE_CHANNEL_CONFIG
        channel_id = b64encode(self._ids.randbytes(16)).decode()
        self._by_id[channel_id] = Channel(channel_id, bundle_id, int(policy))
        self._counts[bundle_id] = self._counts.get(bundle_id, 0) + 1
        return Done(201, channel_id)

    def _find(self, bundle_id: str, request: Request) -> Channel | Reason:
        channel_id = (request.get(b"apns-channel-id") or b"").decode("latin-1")
        if not channel_id:
            return Reason.MISSING_CHANNEL_ID
        if len(channel_id) > MAX_CHANNEL_ID or not _CHANNEL_ID.fullmatch(channel_id):
            return Reason.BAD_CHANNEL_ID
        channel = self._by_id.get(channel_id)
        if channel is None:
            return Reason.CHANNEL_NOT_REGISTERED
        return channel if channel.bundle_id == bundle_id else Reason.TOPIC_MISMATCH


def _publish(channel: Channel, request: Request) -> Done | Reason:
    push_type = request.get(b"apns-push-type")
    if push_type != b"liveactivity":
        return Reason.INVALID_PUSH_TYPE if push_type else Reason.MISSING_PUSH_TYPE
    priority = PRIORITIES.get((request.get(b"apns-priority") or b"10").decode("latin-1"))
    if priority is None:
        return Reason.BAD_PRIORITY
    expiration = check_expiration(request.get(b"apns-expiration"))
    if isinstance(expiration, Reason):
        return expiration
    if expiration is None or (expiration and not channel.storage_policy):
        return Reason.BAD_EXPIRATION_DATE  # it must be given, and be 0 on a channel that keeps nothing
    wrong = check_payload(request, MAX_BROADCAST_PAYLOAD)
    if wrong is not None:
        return wrong
    push = Push(channel.channel_id, channel.bundle_id, "liveactivity", priority, expiration, payload=request.body)
    return Done(200, push=push)


def _dump(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
