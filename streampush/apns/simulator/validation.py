"""A push request as Apple checks it: Apple, "Sending notification requests to APNs".

Apple does not publish in which order it looks. Ours, so that a request with several faults has one answer:

1. `:method` (405), `:path` (404, MissingDeviceToken), repeated `apns-*` headers
2. who asks: provider token or certificate (403, and 429 for too many tokens); see `provider_tokens` and `judging`
3. headers: `apns-id`, `apns-push-type`, `apns-priority`, `apns-expiration`, `apns-collapse-id`, `apns-topic`
4. payload: empty, too large, not a JSON object
5. whether this provider may push to this topic
6. the device token: its form, whether Apple knows it, whether it belongs to the topic, whether it is active
7. how often this device was pushed to (429); see `judging`

Steps 1, 3, 4 and the form of the token are here and need no memory; the rest is in `judging`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from streampush.apns.simulator.accounts import DeviceState, Environment, SigningKey
from streampush.apns.simulator.reasons import Reason

MAX_PAYLOAD: Final = 4096
"""Bytes; Apple, "Generating a remote notification"."""

MAX_VOIP_PAYLOAD: Final = 5120
"""Bytes; for the push type voip."""

MAX_COLLAPSE_ID: Final = 64
"""Bytes of `apns-collapse-id`."""

TOKEN_DIGITS: Final = (64, 200)
"""Hex digits of a device token, least and most. Apple says that the size varies; today's are 64 and, for Live Activities, more."""

MAX_EXPIRATION: Final = 2**31 * 1000
"""Seconds since 1970; beyond it `apns-expiration` is no date."""

PUSH_TYPES: Final = {
    "alert": "",
    "background": "",
    "complication": ".complication",
    "controls": ".push-type.controls",
    "fileprovider": ".pushkit.fileprovider",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "mdm": "",
    "pushtotalk": ".voip-ptt",
    "voip": ".voip",
    "widgets": ".push-type.widgets",
}
"""Push types, each with what its topic has behind the bundle id."""

PRIORITIES: Final = {"10": 10, "5": 5, "1": 1}
DEFAULT_PRIORITY: Final = 10
BACKGROUND_PRIORITY: Final = 5
"""The only priority for a background push; with 10, also by default, it is an error."""

_DEVICE_PATH: Final = b"/3/device/"
_UUID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_DIGITS: Final = re.compile(rb"[0-9]{1,15}")


class Request:
    """A request as it arrived. `size`: bytes of body that came; `body` may hold fewer, when it was longer than is ever allowed."""

    __slots__ = ("_values", "body", "headers", "size")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]], body: bytes = b"", size: int = 0) -> None:
        self.headers = headers
        self.body = body
        self.size = size
        self._values = dict(reversed(headers))

    def get(self, name: bytes) -> bytes | None:
        """The first value of that header."""
        return self._values.get(name)

    def repeats(self) -> bool:
        """Whether a header that means something to Apple is there twice."""
        if len(self._values) == len(self.headers):
            return False
        names = [name for name, _ in self.headers if name.startswith(b"apns-") or name == b"authorization"]
        return len(names) != len(set(names))

    def __repr__(self) -> str:
        # Never a value: they may be secrets.
        return f"<Request headers={len(self.headers)} size={self.size}>"


@dataclass(frozen=True, slots=True)
class Push:
    """A request whose form is right. `expiration` in seconds since 1970, None: not given; `apns_id` empty: not given."""

    device_token: str = field(repr=False)
    topic: str
    push_type: str = ""
    priority: int = DEFAULT_PRIORITY
    expiration: int | None = None
    collapse_id: str = ""
    apns_id: str = ""
    payload: bytes = field(default=b"", repr=False)

    @property
    def bundle_id(self) -> str:
        """The topic without what its push type puts behind the bundle id."""
        return self.topic.removesuffix(PUSH_TYPES.get(self.push_type, ""))


def find_device_token(request: Request) -> str | Reason:
    """Step 1: the device token of the path, whatever it looks like."""
    if request.get(b":method") != b"POST":
        return Reason.METHOD_NOT_ALLOWED
    path = request.get(b":path") or b""
    if path in (b"/3/device", _DEVICE_PATH):
        return Reason.MISSING_DEVICE_TOKEN
    if not path.startswith(_DEVICE_PATH) or b"/" in path[len(_DEVICE_PATH) :]:
        return Reason.BAD_PATH
    if request.repeats():
        return Reason.DUPLICATE_HEADERS
    return path[len(_DEVICE_PATH) :].decode("latin-1")


def find_apns_id(request: Request, name: bytes = b"apns-id") -> str | None:
    """The `apns-id`, or another header of that form; empty: not given.

    None: it is no canonical UUID, which has 32 lowercase hex digits, 8-4-4-4-12.
    """
    value = request.get(name)
    if value is None:
        return ""
    return value.decode("ascii") if _UUID.fullmatch(value) else None


def check_form(request: Request, device_token: str, default_topic: str = "") -> Push | Reason:
    """Steps 3 and 4. `default_topic`: what a certificate for one topic only stands for when the header is missing."""
    apns_id = find_apns_id(request)
    if apns_id is None:
        return Reason.BAD_MESSAGE_ID
    push_type = _text(request.get(b"apns-push-type"))
    if push_type and push_type not in PUSH_TYPES:
        return Reason.INVALID_PUSH_TYPE
    priority = PRIORITIES.get(_text(request.get(b"apns-priority")) or str(DEFAULT_PRIORITY))
    if priority is None or (push_type == "background" and priority != BACKGROUND_PRIORITY):
        return Reason.BAD_PRIORITY
    expiration = check_expiration(request.get(b"apns-expiration"))
    if isinstance(expiration, Reason):
        return expiration
    collapse_id = request.get(b"apns-collapse-id") or b""
    if len(collapse_id) > MAX_COLLAPSE_ID:
        return Reason.BAD_COLLAPSE_ID
    topic = _text(request.get(b"apns-topic")) or default_topic
    if not topic:
        return Reason.MISSING_TOPIC
    suffix = PUSH_TYPES.get(push_type, "")
    if not topic.isprintable() or not topic.endswith(suffix) or topic == suffix:
        return Reason.BAD_TOPIC
    wrong = check_payload(request, MAX_VOIP_PAYLOAD if push_type == "voip" else MAX_PAYLOAD)
    if wrong is not None:
        return wrong
    return Push(device_token, topic, push_type, priority, expiration, _text(collapse_id), apns_id, request.body)


def check_payload(request: Request, limit: int) -> Reason | None:
    """Step 4. What is no JSON object is PayloadEmpty too: Apple has no word of its own for it."""
    if request.size > limit:
        return Reason.PAYLOAD_TOO_LARGE
    try:
        payload = json.loads(request.body) if request.body else None
    except (ValueError, RecursionError):
        payload = None
    return None if isinstance(payload, dict) and payload else Reason.PAYLOAD_EMPTY


def check_topic(push: Push, key: SigningKey | None, topics: frozenset[str]) -> Reason | None:
    """Step 5. `topics`: bundle ids that exist, or that the certificate is for; none: all."""
    for allowed in (topics, key.topics if key is not None else frozenset()):
        if allowed and push.bundle_id not in allowed:
            return Reason.TOPIC_DISALLOWED
    return None


def check_device(push: Push, state: DeviceState | None, environment: Environment) -> Reason | None:
    """Step 6. `state`: what Apple knows of the token; None: nothing."""
    least, most = TOKEN_DIGITS
    if state is None or not least <= len(push.device_token) <= most or not _HEX.fullmatch(push.device_token):
        return Reason.BAD_DEVICE_TOKEN
    if state.environment not in (None, environment):
        return Reason.BAD_DEVICE_TOKEN  # Apple: "... and that the token matches the environment"
    if state.topic and push.bundle_id != state.topic:
        return Reason.DEVICE_TOKEN_NOT_FOR_TOPIC
    if state.inactive_since is not None:
        return Reason.EXPIRED_TOKEN if state.expired else Reason.UNREGISTERED
    return None


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def check_expiration(value: bytes | None) -> int | Reason | None:
    """The `apns-expiration` in seconds since 1970; None: not given."""
    if value is None:
        return None
    if not _DIGITS.fullmatch(value) or int(value) > MAX_EXPIRATION:
        return Reason.BAD_EXPIRATION_DATE
    return int(value)
