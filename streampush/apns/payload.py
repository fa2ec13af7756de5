"""From an alert to the JSON that Apple wants: "Generating a remote notification" and its payload key reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter
from typing import Any

from streampush.apns.errors import BadPush
from streampush.quick_values import quick_value

MAX_BADGE = (1 << 31) - 1
"""What a badge on any device can hold."""


class _Nothing(Mapping[str, Any]):
    """No keys. It can be the default of a field, because it has a hash: a MappingProxyType has none before Python 3.12."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


NOTHING: Mapping[str, Any] = _Nothing()

_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class InterruptionLevel(StrEnum):
    """How much a notification may disturb. `CRITICAL` needs Apple's entitlement."""

    PASSIVE = "passive"
    ACTIVE = "active"
    TIME_SENSITIVE = "time-sensitive"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class CriticalSound:
    """A sound that is heard when the device is muted; needs Apple's entitlement. `volume`: 0.0 to 1.0."""

    name: str = "default"
    volume: float = 1.0


@dataclass(frozen=True, slots=True)
class Localized:
    """A text that the app has in the device's language: the key in its strings file, and what is put into it."""

    key: str
    arguments: tuple[str, ...] = ()


@quick_value(frozen=True, slots=True)
class Alert:
    """What the user sees, or the app wakes for. Empty and None: not said.

    A text is given as it is, or as `Localized`. `badge` 0 takes the badge away. `relevance_score`: 0.0 to 1.0, orders an app's
    notifications in a summary. `extra`: further keys of Apple's `aps` dictionary, as they are. `custom`: the app's own keys
    beside `aps`.
    """

    title: str | Localized = field(default="", repr=False)
    subtitle: str | Localized = field(default="", repr=False)
    body: str | Localized = field(default="", repr=False)
    badge: int | None = None
    sound: str | CriticalSound | None = None
    category: str = ""
    thread_id: str = ""
    target_content_id: str = ""
    launch_image: str = ""
    mutable_content: bool = False
    content_available: bool = False
    interruption_level: InterruptionLevel | None = None
    relevance_score: float | None = None
    filter_criteria: str = ""
    extra: Mapping[str, Any] = field(default=NOTHING, repr=False)
    custom: Mapping[str, Any] = field(default=NOTHING, repr=False)


_rest_of = attrgetter(*(each.name for each in fields(Alert) if each.name not in ("title", "body")))
_NO_REST = _rest_of(Alert())  # what it gives for an alert that is a title and a body

BACKGROUND = Alert(content_available=True)
"""Wakes the app and shows nothing. For a push of type background, with `custom` beside it."""


def alert_payload(alert: Alert) -> bytes:
    """The payload of an alert push, in the fewest bytes that JSON allows. Raises BadPush; its size is checked by `check_push`."""
    title, body = alert.title, alert.body
    if type(title) is str and type(body) is str and title and body and _rest_of(alert) == _NO_REST:  # as `_aps` does
        return _utf8(f'{{"aps":{{"alert":{{"title":{_quote(title)},"body":{_quote(body)}}}}}}}')
    aps = _aps(alert)
    if not aps:
        raise BadPush("alert", "says nothing: give at least a text, a badge, a sound or content_available")
    if alert.custom is NOTHING:  # as `_document` does
        return _utf8('{"aps":{' + ",".join(aps) + "}}")
    return _document(aps, alert.custom)


def background_payload(alert: Alert) -> bytes:
    """The payload of a background push. Raises BadPush if anything in it would be seen or heard, which Apple forbids."""
    seen = "alert" if _texts(alert) else "badge" if alert.badge is not None else "sound" if alert.sound is not None else ""
    if seen:
        raise BadPush(seen, "a background push shows and plays nothing: leave it out, or send an alert push")
    return _document(_aps(alert if alert.content_available else replace(alert, content_available=True)), alert.custom)


def json_payload(document: Mapping[str, Any]) -> bytes:
    """A payload that the caller has put together, for push types without an alert (liveactivity, widgets, mdm ...).

    Raises BadPush for what is no JSON object.
    """
    return _utf8(_json(document, "payload"))


# JSON is written by hand here: json.dumps takes as long for an alert as everything else that is done for a push. Most alerts have a
# title, a body and little else, so those take few calls.


def _document(aps: list[str], custom: Mapping[str, Any]) -> bytes:
    text = '{"aps":{' + ",".join(aps) + "}"
    if not custom:
        return _utf8(text + "}")
    if "aps" in custom:
        raise BadPush("custom", "must not hold aps, which is Apple's: use extra for further keys of it")
    return _utf8(text + "," + _json(custom, "custom")[1:])


def _json(document: Mapping[str, Any], field: str) -> str:
    for key in document:
        if not isinstance(key, str):
            raise BadPush(field, "has a key that is no text")
    try:
        return _encode(document if type(document) is dict else dict(document))
    except RecursionError:
        raise BadPush(field, "is nested too deeply") from None
    except (TypeError, ValueError, OverflowError):  # their texts may quote the payload
        raise BadPush(field, "holds something that JSON cannot say: an object, NaN, infinity or a circle") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()  # a copy of the right size: what is queued keeps no more memory than it has bytes
    except UnicodeEncodeError:
        raise BadPush("payload", "holds half a character (a surrogate), which UTF-8 cannot carry") from None


def _aps(alert: Alert) -> list[str]:
    aps: list[str] = []
    texts = _texts(alert)
    if texts:
        aps.append('"alert":{' + ",".join(texts) + "}")
    if alert.badge is not None:
        if type(alert.badge) is not int or not 0 <= alert.badge <= MAX_BADGE:
            raise BadPush("badge", f"must be a whole number from 0 to {MAX_BADGE}")
        aps.append(f'"badge":{alert.badge}')
    if alert.sound is not None:
        aps.append('"sound":' + _sound(alert.sound))
    if alert.thread_id:
        aps.append('"thread-id":' + _string("thread_id", alert.thread_id))
    if alert.category:
        aps.append('"category":' + _string("category", alert.category))
    if alert.content_available:
        aps.append('"content-available":1')
    if alert.mutable_content:
        if not texts:
            raise BadPush("mutable_content", "an app extension changes a text, and there is none: give a title or a body")
        aps.append('"mutable-content":1')
    extra, level, score = alert.extra, alert.interruption_level, alert.relevance_score
    if extra is not NOTHING or level is not None or score is not None or alert.target_content_id or alert.filter_criteria:
        _rarely(alert, aps)
    return aps


def _rarely(alert: Alert, aps: list[str]) -> None:
    if alert.interruption_level is not None:
        try:
            aps.append(f'"interruption-level":"{InterruptionLevel(alert.interruption_level)}"')
        except ValueError:
            raise BadPush("interruption_level", f"is none of {', '.join(InterruptionLevel)}") from None
    if alert.relevance_score is not None:
        aps.append(f'"relevance-score":{_fraction("relevance_score", alert.relevance_score)!r}')
    if alert.target_content_id:
        aps.append('"target-content-id":' + _string("target_content_id", alert.target_content_id))
    if alert.filter_criteria:
        aps.append('"filter-criteria":' + _string("filter_criteria", alert.filter_criteria))
    if not alert.extra:
        return
    extra = _json(alert.extra, "extra")
    given = {part[1 : part.index('"', 1)] for part in aps}
    if not given.isdisjoint(alert.extra):
        raise BadPush("extra", "gives a key of aps that another field gives already")
    aps.append(extra[1:-1])


def _texts(alert: Alert) -> list[str]:
    texts: list[str] = []
    title, subtitle, body = alert.title, alert.subtitle, alert.body
    if title:
        texts.append('"title":' + _quote(title) if type(title) is str else _text(title, "title", "title-loc-"))
    if subtitle:
        texts.append('"subtitle":' + _quote(subtitle) if type(subtitle) is str else _text(subtitle, "subtitle", "subtitle-loc-"))
    if body:
        texts.append('"body":' + _quote(body) if type(body) is str else _text(body, "body", "loc-"))
    if alert.launch_image:
        texts.append('"launch-image":' + _string("launch_image", alert.launch_image))
    return texts


def _text(text: str | Localized, name: str, prefix: str) -> str:
    if type(text) is not Localized:
        return f'"{name}":{_string(name, text)}'
    key = f'"{prefix}key":{_string(name, text.key)}'
    if not text.arguments:
        return key
    arguments = ",".join(_string(name, argument) for argument in text.arguments)
    return f'{key},"{prefix}args":[{arguments}]'


def _string(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise BadPush(name, "must be a text")
    return _quote(text)


def _sound(sound: str | CriticalSound) -> str:
    if isinstance(sound, CriticalSound):
        return f'{{"critical":1,"name":{_string("sound", sound.name)},"volume":{_fraction("sound", sound.volume)!r}}}'
    if not sound:
        raise BadPush("sound", 'is empty: "default", or the name of a file in the app; leave it out for silence')
    return _string("sound", sound)


def _fraction(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:  # "not a number" is neither
        raise BadPush(name, "must be a number from 0.0 to 1.0")
    return value
