"""Requests in JSON, read strictly: an unknown field, a wrong type or a doubtful value is an error that names the field."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from streampush.protocol.terms import Durability, Priority
from streampush.push.alerts import MAX_FALLBACK_AFTER_MS, MAX_NESTING, is_nested_too_deeply
from streampush.push.push_tokens import push_token as registrable
from streampush.push.values import Alert, PublishRequest, PushToken
from streampush.rest.problems import JSON, Problem

ADDRESSES = ("channel", "device", "user", "topic")
PAYLOADS = ("payload", "payload_base64", "json")
WISHES = ("durability", "idempotency_key", "priority", "collapse_key", "version", "want_receipt", "clear_on_processed")
ALERTS = ("alert", "background")
PUBLISH_FIELDS = (*ADDRESSES, *PAYLOADS, "content_type", "headers", "ttl", "expires_at", "deliver_at", *WISHES, *ALERTS)
ALERT_TEXTS = ("title", "subtitle", "body", "sound", "category", "thread_id", "interruption_level")
ALERT_RULES = ("fallback_after", "only_when_away")
ALERT_FIELDS = (*ALERT_TEXTS, "badge", "mutable_content", "relevance_score", "custom", *ALERT_RULES)
PUSH_TOKEN_FIELDS = ("token", "topic", "environment")
ENVIRONMENTS = ("production", "sandbox")
"""Of Apple's; the first is the default, as in the configuration of an app."""
BACKGROUND_FIELDS = ("custom", *ALERT_RULES)
OWNED_PREFIXES = ("device:", "user:")
DURABILITIES = tuple(durability.name for durability in Durability if durability)
PRIORITIES = tuple(priority.name for priority in Priority if priority)
MAX_INTEGER = (1 << 63) - 1
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_HEX = re.compile(r"[0-9a-fA-F]+")
_ESCAPED = re.compile(r'\\(["\\])')
MAX_DETAIL = 200
"""Characters of the reason that a disconnected device is told."""


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object (RFC 8259) in UTF-8. Raises Problem 400, also for repeated names and for numbers that JSON does not have."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError:  # a number of thousands of digits
        raise Problem(400, "the body holds a number that is out of range") from None
    if not isinstance(value, dict):
        raise Problem(400, "the body is not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise Problem(400, f"the body is not JSON: {name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Problem(400, "the body names a field twice")
    return result


def bad(field: str, problem: str) -> Problem:
    """Problem 400 that names the field."""
    return Problem(400, f"{field}: {problem}", field=field)


def only(fields: Mapping[str, Any], known: tuple[str, ...], at: str = "") -> None:
    """Raises Problem 400 for a field that is not known; `at` stands before its name."""
    for name in fields:
        if name not in known:
            raise bad(f"{at}{_shown(name)}", f"unknown field; known are {', '.join(known)}")


def text(value: Any, field: str) -> str:
    """A string that UTF-8 can carry. Raises Problem 400."""
    if not isinstance(value, str):
        raise bad(field, "must be a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise bad(field, "holds a lone surrogate, which UTF-8 cannot carry") from None
    return value


def publish_request(fields: Any, at: str = "") -> PublishRequest:
    """The fields of a publish. `at` stands before the names in errors: `messages[3].`. Raises Problem 400."""
    if not isinstance(fields, dict):
        raise bad(at.rstrip(".") or "body", "must be an object")
    only(fields, PUBLISH_FIELDS, at)
    if "ttl" in fields and "expires_at" in fields:
        raise bad(f"{at}expires_at", "contradicts ttl: give one of them")
    payload, content_type = _payload(fields, at)
    return PublishRequest(
        channel=_channel(fields, at),
        payload=payload,
        content_type=text(fields.get("content_type", content_type), f"{at}content_type"),
        headers=_headers(fields.get("headers", {}), f"{at}headers"),
        ttl=seconds(fields.get("ttl", 0), f"{at}ttl"),
        expires_at_ms=integer(fields, "expires_at", at, "Unix milliseconds", least=1),
        deliver_at_ms=integer(fields, "deliver_at", at, "Unix milliseconds", least=1),
        durability=Durability[_name(fields, "durability", at, DURABILITIES)],
        idempotency_key=_idempotency_key(fields, at),
        priority=Priority[_name(fields, "priority", at, PRIORITIES)],
        collapse_key=text(fields.get("collapse_key", ""), f"{at}collapse_key"),
        version=integer(fields, "version", at, "a version", least=0),
        want_receipt=flag(fields, "want_receipt", at),
        clear_on_processed=flag(fields, "clear_on_processed", at),
        alert=alert(fields, at),
    )


def with_key(request: PublishRequest, headers: list[str]) -> PublishRequest:
    """The request with the idempotency key of its HTTP header, if there is one: a string of RFC 8941, or bare.

    Raises Problem 400, also if the body names a key too.
    """
    if not headers:
        return request
    if request.idempotency_key or len(headers) > 1:
        raise bad("Idempotency-Key", "is given twice: one header, or one field idempotency_key")
    value = headers[0].strip()
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        value = _ESCAPED.sub(r"\1", quoted[1])
    if not value or not (value.isascii() and value.isprintable()) or (quoted is None and value.startswith('"')):
        raise bad("Idempotency-Key", "must be a key of printable ASCII, or such a key in quotes")
    return replace(request, idempotency_key=value)


def _one_of(fields: Mapping[str, Any], names: tuple[str, ...], at: str) -> str:
    given = [name for name in names if name in fields]
    if len(given) != 1:
        problem = "none is given" if not given else f"given are {', '.join(given)}"
        raise bad(f"{at}{given[1] if given else names[0]}", f"exactly one of {', '.join(names)} is needed, {problem}")
    return given[0]


def _channel(fields: Mapping[str, Any], at: str) -> str:
    name = _one_of(fields, ADDRESSES, at)
    value = text(fields[name], f"{at}{name}")
    if not value:
        raise bad(f"{at}{name}", "must not be empty")
    if name == "topic" and value.startswith(OWNED_PREFIXES):
        raise bad(f"{at}topic", "is no topic; use the fields device, user or channel")
    return value if name in ("channel", "topic") else f"{name}:{value}"


def _payload(fields: Mapping[str, Any], at: str) -> tuple[bytes, str]:
    """The payload and its content type by default."""
    name = _one_of(fields, PAYLOADS, at)
    value = fields[name]
    if name == "json":
        return _compact(value, f"{at}json"), JSON
    value = text(value, f"{at}{name}")
    if name == "payload":
        return value.encode("utf-8"), ""
    try:
        return base64.b64decode(value.encode("ascii"), validate=True), ""
    except (binascii.Error, UnicodeEncodeError):
        raise bad(f"{at}payload_base64", "is not base64 (RFC 4648 section 4)") from None


def json_object(value: Any, field: str) -> str:
    """A JSON object as text, in the fewest bytes. Raises Problem 400."""
    if not isinstance(value, dict):
        raise bad(field, "must be an object")
    if is_nested_too_deeply(value):
        raise bad(field, f"is nested too deeply: more than {MAX_NESTING} levels")
    return _compact(value, field).decode()


def _compact(value: Any, field: str) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise bad(field, "holds a lone surrogate, which UTF-8 cannot carry") from None
    except ValueError:
        raise bad(field, "holds a number that is out of range") from None
    except RecursionError:
        raise bad(field, "is nested too deeply") from None


def alert(fields: Mapping[str, Any], at: str) -> Alert | None:
    """`alert` is what is shown; `background` wakes the app instead: true, or an object. Raises Problem 400."""
    given = [name for name in ALERTS if name in fields]
    if not given:
        return None
    if len(given) > 1:
        raise bad(f"{at}background", "contradicts alert: give one of them")
    name, value = given[0], fields[given[0]]
    if name == "background" and isinstance(value, bool):
        return Alert(background=True) if value else None
    if not isinstance(value, dict):
        raise bad(f"{at}{name}", "must be an object" if name == "alert" else "must be true or an object")
    within = f"{at}{name}."
    only(value, ALERT_FIELDS if name == "alert" else BACKGROUND_FIELDS, within)
    return Alert(
        **{each: text(value[each], within + each) for each in ALERT_TEXTS if each in value},
        badge=integer(value, "badge", within, "a number", least=0) if "badge" in value else None,
        mutable_content=flag(value, "mutable_content", within),
        relevance_score=_relevance(value, within),
        custom=_custom(value, within),
        background=name == "background",
        fallback_after_ms=_fallback_after_ms(value, within),
        only_when_away=flag(value, "only_when_away", within),
    )


def _relevance(fields: Mapping[str, Any], at: str) -> float | None:
    if "relevance_score" not in fields:
        return None
    value = fields["relevance_score"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise bad(f"{at}relevance_score", "must be a number from 0.0 to 1.0")
    return float(value)


def _custom(fields: Mapping[str, Any], at: str) -> str:
    if "custom" not in fields:
        return ""
    return json_object(fields["custom"], f"{at}custom")


def _fallback_after_ms(fields: Mapping[str, Any], at: str) -> int:
    """Given in seconds; the least is a millisecond."""
    if "fallback_after" not in fields:
        return 0
    value = fields["fallback_after"]
    most = MAX_FALLBACK_AFTER_MS // 1000
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.001 <= value <= most:
        raise bad(f"{at}fallback_after", f"must be a number of seconds from 0.001 to {most}")
    return round(value * 1000)


def _headers(value: Any, field: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad(field, "must be an object of strings")
    return {text(name, field): text(content, f"{field}.{_shown(name)}") for name, content in value.items()}


def _shown(name: str) -> str:
    """A name that the client chose, fit for an error."""
    return name.encode("ascii", "backslashreplace").decode("ascii")[:100]


def seconds(value: Any, field: str) -> float:
    """A length of time. Raises Problem 400."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad(field, "must be a number of seconds")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise bad(field, "must be a number of seconds, 0 or more")
    return number


def _name(fields: Mapping[str, Any], name: str, at: str, names: tuple[str, ...]) -> str:
    """One of the names; UNSPECIFIED if the field is not there."""
    if name not in fields:
        return "UNSPECIFIED"
    value = fields[name]
    if not isinstance(value, str) or value not in names:
        raise bad(f"{at}{name}", f"must be one of {', '.join(names)}")
    return value


def integer(fields: Mapping[str, Any], name: str, at: str, what: str, *, least: int) -> int:
    """A whole number; 0 if the field is not there. `what` it must be, for the error. Raises Problem 400."""
    if name not in fields:
        return 0
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_INTEGER:
        raise bad(f"{at}{name}", f"must be {what}, a whole number from {least} to {MAX_INTEGER}")
    return value


def flag(fields: Mapping[str, Any], name: str, at: str = "") -> bool:
    """True or false; false if the field is not there. Raises Problem 400."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise bad(f"{at}{name}", "must be true or false")
    return value


def _idempotency_key(fields: Mapping[str, Any], at: str) -> str:
    if "idempotency_key" not in fields:
        return ""
    key = text(fields["idempotency_key"], f"{at}idempotency_key")
    if not key:
        raise bad(f"{at}idempotency_key", "must not be empty")
    return key


def batch(fields: Mapping[str, Any], max_batch: int) -> list[Any]:
    """The messages of a batch, not yet looked at. Raises Problem 400, or 413 for too many."""
    only(fields, ("messages",))
    messages = fields.get("messages")
    if not isinstance(messages, list):
        raise bad("messages", "must be a list of messages")
    if not messages:
        raise bad("messages", "must not be empty")
    if len(messages) > max_batch:
        raise Problem(413, f"messages: {len(messages)} messages, the limit is {max_batch}", field="messages")
    return messages


def push_token(fields: Mapping[str, Any]) -> PushToken:
    """A push token as a backend registers it. Raises Problem 400, and Refused as push.push_tokens does; neither shows the token."""
    only(fields, PUSH_TOKEN_FIELDS)
    for name in PUSH_TOKEN_FIELDS[:2]:
        if name not in fields:
            raise bad(name, "is missing")
    digits, topic = text(fields["token"], "token"), text(fields["topic"], "topic")
    if not digits:
        raise bad("token", "is empty; DELETE takes a token back")
    if not _HEX.fullmatch(digits):
        raise bad("token", "is not hexadecimal: give the bytes as two digits each, without spaces or brackets")
    if len(digits) % 2:
        raise bad("token", f"has {len(digits)} hexadecimal digits, an odd number: it is cut short")
    environment = fields.get("environment", ENVIRONMENTS[0])
    if environment not in ENVIRONMENTS:
        raise bad("environment", f"must be one of {', '.join(ENVIRONMENTS)}")
    return registrable(bytes.fromhex(digits), topic, sandbox=environment == "sandbox")


def disconnect_detail(fields: Mapping[str, Any]) -> str:
    """What the device is told. Raises Problem 400."""
    only(fields, ("detail",))
    detail = text(fields.get("detail", "disconnected over the REST API"), "detail")
    if len(detail) > MAX_DETAIL or not detail.isprintable():
        raise bad("detail", f"must be at most {MAX_DETAIL} printable characters")
    return detail
