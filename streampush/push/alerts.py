"""Alerts of messages: what they must keep to, and their canonical form. docs/protocol.md section 5.6.

The canonical form is what the store keeps and a sender reads, two lines: a JSON object that says when the message falls back, and
one that is the *alert block*, in the words of `Alert`, without what is not said, in the fewest bytes. From the block a sender
makes what its push service wants. A line in compact JSON holds no line feed, so neither has to be read to find the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, NoReturn

from streampush.config import INTERRUPTION_LEVELS
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.channels import Kind, kind_of
from streampush.push.values import Alert
from streampush.quick_values import quick_value

MAX_BADGE = (1 << 31) - 1
"""What a badge on any device can hold."""

MAX_FALLBACK_AFTER_MS = 86_400_000
"""A day: after it there is little left to alert anybody to."""

MAX_PAYLOAD_BYTES = 4096
"""Of JSON, all that is sent to the push service. Apple's limit."""

MAX_NESTING = 100
"""Levels of objects and lists in the app's own keys. Devices read some hundreds; and what is read here once must be readable
wherever it is read again, which Python says of no depth that is near its limit."""

FRAME_BYTES = len('"aps":{},"alert":{},')
"""By so much what a push service wants may be longer than the alert block, our own keys not counted."""

KEPT_RULES = 1_000
"""Lines with rules that are not read again: that of a message to a device is wanted twice, that of others for each batch."""

MESSAGE_ID_BYTES = 26
"""See ids.message_id."""

OWN_KEY = "streampush"
"""The key of ours beside the app's own: says which message this is, so that an app that collects it later shows it once."""

TOO_DEEP = f"custom is nested too deeply: more than {MAX_NESTING} levels"

_HALF = "title, body and the other texts must be Unicode text: one holds half a character"

RESERVED_KEYS = ("aps", OWN_KEY)

_TEXTS = ("title", "subtitle", "body", "sound", "category", "thread_id", "interruption_level")
_SHOWN = ("title", "subtitle", "body", "badge", "sound")
_FLAGS = ("mutable_content", "background")
_WORDS = (*_TEXTS, *_FLAGS)
_words = attrgetter(*_WORDS)
_rest_of = attrgetter(*(each.name for each in fields(Alert) if each.name not in ("title", "body", "sound")))
_NO_REST = _rest_of(Alert())  # what it gives for an alert that is a title, a body and perhaps a sound
_LOUD = (*_TEXTS, "badge", "mutable_content", "relevance_score")
"""What a background push may not have."""

_only_device = re.compile(rb'\{"device":"([^"\\]*)"\}').fullmatch
"""Finds the device in the rule that nearly every message to a device has. Nothing in it is escaped, so what it holds is the id."""

_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@quick_value(frozen=True, slots=True)
class FallbackRule:
    """When a message goes to the push service: see Alert. The rest of the canonical form is the alert block.

    `device_id`: the only device that it is for, empty if it is for others, or was stored before this was said.
    """

    after_ms: int
    only_when_away: bool
    device_id: str = ""


def own_keys(message_id: str, channel: str) -> bytes:
    """The member of ours in the payload, as JSON."""
    return f'"{OWN_KEY}":{{"id":{_quote(message_id)},"channel":{_quote(channel)}}}'.encode()


def max_alert_bytes(channel: str) -> int:
    """The most bytes that an alert block may have, on this channel."""
    return MAX_PAYLOAD_BYTES - FRAME_BYTES - 1 - len(own_keys("0" * MESSAGE_ID_BYTES, channel))


_LONGEST = max_alert_bytes("")
_MOST_PER_CHARACTER = 6
"""Bytes that a character takes in JSON at most."""


def canonical(alert: Alert, channel: str) -> bytes:
    """The canonical form of an alert.

    Raises Refused: SERIALIZATION_ERROR for what makes no sense, PAYLOAD_TOO_LARGE with both numbers for a block above its limit.
    """
    if alert.title and alert.body and _rest_of(alert) == _NO_REST:  # as most are: there is nothing to be wrong with
        block = _short_block(alert, channel)
    else:
        problem = _rule_problem(alert) or (_background_problem(alert) if alert.background else _alert_problem(alert))
        if problem:
            raise _senseless(problem, channel)
        block = _block(alert, channel)
    if len(block) + _MOST_PER_CHARACTER * len(channel) > _LONGEST and len(block) > (limit := max_alert_bytes(channel)):
        detail = f"alert of {len(block)} bytes of JSON, the limit on this channel is {limit} "
        detail += f"({MAX_PAYLOAD_BYTES} of Apple's, less {MAX_PAYLOAD_BYTES - limit} for the keys of the server)"
        raise Refused(Code.PAYLOAD_TOO_LARGE, detail, channel=channel)
    rule = []
    if alert.fallback_after_ms:
        rule.append(f'"after_ms":{alert.fallback_after_ms}')
    if alert.only_when_away:
        rule.append('"only_when_away":true')
    kind, name = kind_of(channel)
    if kind is Kind.DEVICE:
        rule.append(f'"device":{_encode(name)}')
    return _object(rule) + b"\n" + block


def _object(members: Sequence[str]) -> bytes:
    """A JSON object of members that are JSON. The encoder makes itself ready for each object, which costs more than these texts."""
    return f"{{{','.join(members)}}}".encode()


def is_nested_too_deeply(value: object) -> bool:
    """Whether a JSON document has more than MAX_NESTING objects and lists within one another. Linear in its size."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        containers = [one for one in level if isinstance(one, dict | list)]
        if not containers:
            return False
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return True


def split(form: bytes) -> tuple[FallbackRule, bytes]:
    """The rule and the alert block of a canonical form. `after_ms` 0: as the server is configured."""
    line, _, block = form.partition(b"\n")
    return _rule(line), block


@lru_cache(maxsize=KEPT_RULES)
def _rule(line: bytes) -> FallbackRule:
    plain = _only_device(line)
    if plain is not None:
        return FallbackRule(0, False, plain[1].decode())
    rule = json.loads(line.decode())
    return FallbackRule(rule.get("after_ms", 0), rule.get("only_when_away", False), rule.get("device", ""))


def _senseless(problem: str, channel: str) -> Refused:
    return Refused(Code.SERIALIZATION_ERROR, f"alert.{problem}", channel=channel)


def _rule_problem(alert: Alert) -> str:
    if not 0 <= alert.fallback_after_ms <= MAX_FALLBACK_AFTER_MS:
        return f"fallback_after must be at most {MAX_FALLBACK_AFTER_MS // 1000} s"
    if alert.only_when_away and alert.fallback_after_ms:
        return "only_when_away contradicts fallback_after: give one of them"
    return ""


def _background_problem(alert: Alert) -> str:
    for name in _LOUD:
        value = getattr(alert, name)
        if value or (value is not None and name in ("badge", "relevance_score")):
            return f"{name}: what wakes the app in the background shows and plays nothing, and says nothing but custom"
    return ""


def _alert_problem(alert: Alert) -> str:
    if not (alert.title or alert.subtitle or alert.body or alert.sound) and alert.badge is None:
        return f"title: the alert says nothing: give one of {', '.join(_SHOWN)}, or background"
    if alert.mutable_content and not (alert.title or alert.subtitle or alert.body):
        return "mutable_content: the application changes a text, and there is none: give title, subtitle or body"
    if alert.badge is not None and not 0 <= alert.badge <= MAX_BADGE:
        return f"badge must be 0 to {MAX_BADGE}"
    if alert.interruption_level and alert.interruption_level not in INTERRUPTION_LEVELS:
        return f"interruption_level must be one of {', '.join(INTERRUPTION_LEVELS)}"
    score = alert.relevance_score
    if score is not None and not 0.0 <= score <= 1.0:  # also "not a number"
        return "relevance_score must be a number from 0.0 to 1.0"
    return ""


def _block(alert: Alert, channel: str) -> bytes:
    said: dict[str, Any] = {name: value for name, value in zip(_WORDS, _words(alert), strict=True) if value}
    if alert.badge is not None:
        said["badge"] = alert.badge
    if alert.relevance_score is not None:
        said["relevance_score"] = alert.relevance_score
    if alert.custom:
        said["custom"] = _custom(alert.custom, channel)
    try:
        return _object([f'"{name}":{_encode(value)}' for name, value in said.items()])
    except RecursionError:  # some Pythons read deeper than they write
        raise _senseless(TOO_DEEP, channel) from None
    except UnicodeEncodeError:
        raise _senseless(_HALF, channel) from None
    except ValueError:
        raise _senseless("custom holds a number that is out of range", channel) from None


def _short_block(alert: Alert, channel: str) -> bytes:
    """What `_block` gives for an alert of title, body and perhaps a sound."""
    sound = f',"sound":{_quote(alert.sound)}' if alert.sound else ""
    try:
        return f'{{"title":{_quote(alert.title)},"body":{_quote(alert.body)}{sound}}}'.encode()
    except UnicodeEncodeError:
        raise _senseless(_HALF, channel) from None


def _custom(text: str, channel: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise _senseless(TOO_DEEP, channel) from None
    except ValueError:  # its text may quote what is meant for the device only
        raise _senseless("custom is not JSON", channel) from None
    if not isinstance(value, dict):
        raise _senseless("custom is not a JSON object", channel)
    if is_nested_too_deeply(value):
        raise _senseless(TOO_DEEP, channel)
    reserved = next((key for key in RESERVED_KEYS if key in value), "")
    if reserved:
        owner = "Apple's" if reserved == "aps" else "the server's own"
        raise _senseless(f"custom must not hold the key {reserved}, which is {owner}", channel)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
