"""A push as Apple wants it, and the check of one.

Source: Apple, "Sending notification requests to APNs" (headers, push types) and "Generating a remote notification" (sizes).

`ApnsPush` itself checks nothing: it is made for every push and handed on by what was checked already. `check_push` is called
once, where a push enters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from streampush.apns.errors import BadPush
from streampush.config_apps import MAX_TOPIC, is_topic
from streampush.quick_values import quick_value

MAX_PAYLOAD = 4096
"""Bytes of JSON, for every push type that PUSH_TYPES does not say otherwise of. Apple's limit."""

MAX_VOIP_PAYLOAD = 5120
"""Bytes of JSON of a VoIP push. Apple's limit."""

MAX_BROADCAST_PAYLOAD = 5120
"""Bytes of JSON that go to a channel of Live Activities. Apple's limit."""

MAX_DEVICE_TOKEN = 100
"""Bytes (two hexadecimal digits each). Apple's are 32 today, some kinds longer, and Apple says not to rely on a length: this only
keeps the path of a request small."""

MAX_COLLAPSE_ID = 64
"""Bytes of UTF-8. Apple's limit."""

MAX_EXPIRATION = (1 << 32) - 1
"""Unix seconds, in the year 2106. A time in milliseconds by mistake is far above it, and would keep a push for ever."""

_MAX_DIGITS = 2 * MAX_DEVICE_TOKEN
_DEVICE_TOKEN = re.compile(rf"[0-9a-fA-F]{{2,{_MAX_DIGITS}}}")
_from_hex = bytes.fromhex  # a fourth of the time of the regular expression
_is_apns_id = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_SHOWN_AT_MOST = 10**18
"""What is above it tells nobody anything, and may have hundreds of digits."""

_is_plain_word = re.compile(r"[0-9A-Za-z]+").fullmatch  # most collapse ids: an id of ours, or a hash

_OPENING, _CLOSING = b"{}"
_COLLAPSE_ID = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class PushType(StrEnum):
    """Apple's `apns-push-type`. It must say what the payload does, or Apple may delay or drop the push."""

    ALERT = "alert"
    BACKGROUND = "background"
    COMPLICATION = "complication"
    CONTROLS = "controls"
    FILEPROVIDER = "fileprovider"
    LIVEACTIVITY = "liveactivity"
    LOCATION = "location"
    MDM = "mdm"
    PUSHTOTALK = "pushtotalk"
    VOIP = "voip"
    WIDGETS = "widgets"


class Priority:
    """Apple's `apns-priority`."""

    IMMEDIATE = 10
    CONSIDERATE = 5
    """When it suits the device's power."""
    QUIET = 1
    """Power before all else; never wakes the device."""


_ANY_PRIORITY = frozenset({Priority.IMMEDIATE, Priority.CONSIDERATE, Priority.QUIET})


@dataclass(frozen=True, slots=True)
class TypeRules:
    """What a push type asks for: the end of the topic behind the bundle id, the priorities that Apple takes, bytes of payload,
    and whether only a key (no certificate) may send it."""

    suffix: str = ""
    priorities: frozenset[int] = _ANY_PRIORITY
    max_payload: int = MAX_PAYLOAD
    key_only: bool = False


PUSH_TYPES: Mapping[PushType, TypeRules] = MappingProxyType(
    {
        PushType.ALERT: TypeRules(),
        PushType.BACKGROUND: TypeRules(priorities=frozenset({Priority.CONSIDERATE})),
        PushType.COMPLICATION: TypeRules(".complication"),
        PushType.CONTROLS: TypeRules(".push-type.controls"),
        PushType.FILEPROVIDER: TypeRules(".pushkit.fileprovider"),
        PushType.LIVEACTIVITY: TypeRules(".push-type.liveactivity", key_only=True),
        PushType.LOCATION: TypeRules(".location-query", key_only=True),
        PushType.MDM: TypeRules(),  # the topic is the UID of the certificate's subject, not a bundle id
        PushType.PUSHTOTALK: TypeRules(".voip-ptt"),
        PushType.VOIP: TypeRules(".voip", max_payload=MAX_VOIP_PAYLOAD),
        PushType.WIDGETS: TypeRules(".push-type.widgets"),
    }
)

_SUFFIXES = frozenset(rules.suffix for rules in PUSH_TYPES.values() if rules.suffix)


@quick_value(frozen=True, slots=True)
class ApnsPush:
    """One push to one device.

    `device_token`: hexadecimal, secret. `payload`: JSON. `topic`: see `topic_for`. `expiration`: Unix seconds; 0: Apple tries
    once and keeps nothing; None: no such header, Apple keeps it as long as it likes. `collapse_id`: pushes with the same one
    replace each other on the device. `apns_id`: a UUID; Apple makes one when it is empty, but only a push that has one from the
    start can be told from its repeats.
    """

    device_token: str = field(repr=False)
    payload: bytes = field(repr=False)
    topic: str
    push_type: PushType = PushType.ALERT
    priority: int = Priority.IMMEDIATE
    expiration: int | None = None
    collapse_id: str = ""
    apns_id: str = ""


def topic_for(bundle_id: str, push_type: PushType) -> str:
    """The `apns-topic` of an app's pushes of this type."""
    return bundle_id + PUSH_TYPES[push_type].suffix


def check_push(push: ApnsPush) -> None:
    """Raises BadPush for what Apple would reject whatever the device and the time. Takes about a microsecond."""
    token = push.device_token
    try:
        right = 0 < len(token) <= _MAX_DIGITS and 2 * len(_from_hex(token)) == len(token)  # it passes over white space
    except ValueError:
        right = False
    if not right:
        check_device_token(token)
    rules = _rules(push.topic, push.push_type, push.priority)
    payload = push.payload
    size = len(payload)
    if not 2 < size <= rules.max_payload or payload[0] != _OPENING or payload[-1] != _CLOSING:
        check_payload(payload, rules.max_payload)
    expiration = push.expiration
    if expiration is not None and not 0 <= expiration <= MAX_EXPIRATION:
        shown = expiration if abs(expiration) <= _SHOWN_AT_MOST else "that"
        problem = f"{shown} is no Unix time in seconds from 0 to {MAX_EXPIRATION}"
        raise BadPush("expiration", problem + (", is it in milliseconds?" if expiration > 0 else ""))
    collapse_id = push.collapse_id
    if collapse_id and not (len(collapse_id) <= MAX_COLLAPSE_ID and _is_plain_word(collapse_id)):
        _check_collapse_id(collapse_id)
    apns_id = push.apns_id
    if apns_id and not _is_apns_id(apns_id):
        check_apns_id(apns_id)


def check_device_token(token: str) -> None:
    """Raises BadPush unless it is hexadecimal and of a bearable length. The token itself is never in the error."""
    if _DEVICE_TOKEN.fullmatch(token) and not len(token) & 1:
        return
    if not token:
        raise BadPush("device_token", "is empty")
    if len(token) > 2 * MAX_DEVICE_TOKEN:
        raise BadPush("device_token", f"has {len(token)} characters, the limit is {2 * MAX_DEVICE_TOKEN}")
    if not re.fullmatch(r"[0-9a-fA-F]*", token):
        raise BadPush("device_token", "is not hexadecimal: give the bytes as two digits each, without spaces or brackets")
    raise BadPush("device_token", f"has {len(token)} hexadecimal digits, an odd number: it is cut short")


def check_apns_id(apns_id: str, field: str = "apns_id") -> None:
    """Raises BadPush for what is no canonical UUID."""
    if not _is_apns_id(apns_id):
        raise BadPush(field, "is not a UUID in its canonical form: 8-4-4-4-12 hexadecimal digits in lower case")


def check_payload(payload: bytes, limit: int) -> None:
    """Raises BadPush for an empty payload, one above `limit` bytes (with both numbers), or one that is evidently no JSON object."""
    size = len(payload)
    if size > limit:
        raise BadPush("payload", f"{size} bytes of JSON, {size - limit} above the limit of {limit}")
    if not size or payload == b"{}":
        raise BadPush("payload", "is empty")
    if payload[:1] != b"{" or payload[-1:] != b"}":
        raise BadPush("payload", "is no JSON object")


def check_topic(topic: str, push_type: PushType) -> None:
    """Raises BadPush for what is no topic of this push type."""
    if not topic:
        raise BadPush("topic", "is empty: give the app's bundle id" + _suffix_hint(push_type))
    if len(topic) > MAX_TOPIC:
        raise BadPush("topic", f"has {len(topic)} characters, the limit is {MAX_TOPIC}")
    if not is_topic(topic):
        raise BadPush("topic", "is no bundle id: letters, digits, hyphens and underscores, in parts between single dots")
    wanted = PUSH_TYPES[push_type].suffix
    if wanted and not (topic.endswith(wanted) and len(topic) > len(wanted)):
        raise BadPush("topic", f"a push of type {push_type} needs a topic that is the bundle id with {wanted} at its end")
    if not wanted and push_type is not PushType.MDM:
        foreign = next((suffix for suffix in _SUFFIXES if topic.endswith(suffix)), "")
        if foreign:
            raise BadPush("topic", f"ends in {foreign}, which belongs to another push type than {push_type}")


@lru_cache(maxsize=4096)  # an app has a few; what does not fit is checked again
def _rules(topic: str, push_type: PushType, priority: int) -> TypeRules:
    try:
        push_type = PushType(push_type)
    except ValueError:
        raise BadPush("push_type", f"is none of {', '.join(PushType)}") from None
    check_topic(topic, push_type)
    rules = PUSH_TYPES[push_type]
    if priority not in rules.priorities:
        allowed = " or ".join(str(number) for number in sorted(rules.priorities, reverse=True))
        raise BadPush("priority", f"{priority} is not allowed for a push of type {push_type}: it must be {allowed}")
    return rules


def _suffix_hint(push_type: PushType) -> str:
    suffix = PUSH_TYPES[push_type].suffix
    return f" with {suffix} at its end" if suffix else ""


def _check_collapse_id(collapse_id: str) -> None:
    size = len(collapse_id.encode(errors="replace"))
    if size > MAX_COLLAPSE_ID:
        raise BadPush("collapse_id", f"{size} bytes, the limit is {MAX_COLLAPSE_ID}")
    if not _COLLAPSE_ID.fullmatch(collapse_id):
        raise BadPush("collapse_id", "is not printable ASCII without a space at either end, which is what a header can carry")
