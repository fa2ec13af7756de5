"""Names of channels and who may use them: docs/protocol.md section 10.

`device:ID` and `user:ID` address a device and all devices of a user; names that begin with `$` are the server's own; any
other name is a topic.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import ChannelRules, Principal

MAX_NAME_BYTES = 255

MAX_KNOWN_NAMES = 4096
"""Names that are remembered to be good: most publishes go to few channels. About a megabyte at most for the longest names."""


class Kind(Enum):
    DEVICE = "device"
    USER = "user"
    TOPIC = "topic"
    INTERNAL = "internal"


_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]|\s")


def device_channel(device_id: str) -> str:
    return f"device:{device_id}"


def user_channel(user_id: str) -> str:
    return f"user:{user_id}"


def is_addressed(channel: str) -> bool:
    """Whether a channel is that of a device or user: it must be known, and its messages have a receipt of each device."""
    return channel.startswith(("device:", "user:"))


def unknown_device() -> Refused:
    """What is said of a device that the store does not know."""
    return Refused(Code.UNKNOWN_RECIPIENT, "no device of this id was ever seen")


def kind_of(channel: str) -> tuple[Kind, str]:
    """The kind of a channel and the id or name in it.

    Raises Refused(UNKNOWN_RECIPIENT) for what is no name of a channel: empty, above 255 bytes of UTF-8, with spaces or
    control characters, or `device:` and `user:` with nothing behind.
    """
    return _kind_of(channel)


@lru_cache(maxsize=MAX_KNOWN_NAMES)
def _kind_of(channel: str) -> tuple[Kind, str]:
    """As `kind_of`; what is raised is not remembered."""
    if not channel or len(channel.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or _FORBIDDEN.search(channel):
        detail = f"not the name of a channel: 1 to {MAX_NAME_BYTES} bytes without spaces and control characters"
        raise Refused(Code.UNKNOWN_RECIPIENT, detail)
    if channel.startswith("$"):
        return Kind.INTERNAL, channel
    prefix, colon, rest = channel.partition(":")
    if colon and prefix in ("device", "user"):
        if not rest:
            raise Refused(Code.UNKNOWN_RECIPIENT, f"{prefix}: without an id", channel=channel)
        return (Kind.DEVICE if prefix == "device" else Kind.USER), rest
    return Kind.TOPIC, channel


_PARTS = re.compile(r"(\*|\{device\}|\{user\})")


@lru_cache(maxsize=8192)
def _compiled(patterns: tuple[str, ...], name: str, user_id: str) -> re.Pattern[str]:
    """One expression for all patterns, `*` for any run of characters, the asker's ids filled in."""
    known = {"*": ".*", "{device}": re.escape(name), "{user}": re.escape(user_id)}
    branches = []
    for pattern in patterns:
        if "{user}" in pattern and not user_id:
            continue  # a device without a user has no channel of its user
        branches.append("".join(known.get(part) or re.escape(part) for part in _PARTS.split(pattern)))
    return re.compile("|".join(branches) if branches else r"(?!)")


def allowed(rules: ChannelRules, principal: Principal, channel: str) -> bool:
    """Whether the rules let the principal at the channel."""
    return _compiled(rules.patterns, principal.name, principal.user_id).fullmatch(channel) is not None


def own_channels(principal: Principal) -> tuple[str, ...]:
    """The channels that a device follows by itself."""
    own = (device_channel(principal.name),)
    return (*own, user_channel(principal.user_id)) if principal.user_id else own


def may_subscribe(principal: Principal, channel: str) -> bool:
    """A device may follow its own channels and the topics of its rules, never another's channels or the server's own."""
    kind, _ = kind_of(channel)
    if kind is Kind.TOPIC:
        return allowed(principal.may_subscribe, principal, channel)
    return channel in own_channels(principal)
