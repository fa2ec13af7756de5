"""What a publish request must keep to: docs/protocol.md sections 10.3 and 10.6."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from streampush.config import PublishConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.channels import Kind
from streampush.push.values import PublishRequest

MAX_CONTENT_TYPE_BYTES = 128

MAX_IDEMPOTENCY_KEY_BYTES = 128
"""Printable ASCII; enough for four UUIDs."""

MAX_VERSION = (1 << 63) - 1
"""What every store and every language can hold as a signed integer."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half a character, as JSON may hold; no frame can carry it."""

_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def check_fields(request: PublishRequest, kind: Kind, limits: PublishConfig) -> None:
    """Everything that is the same at any time of day. Raises Refused: SERIALIZATION_ERROR for what makes no sense,
    PAYLOAD_TOO_LARGE for what is above a limit."""
    _check_texts(request)
    _check_sizes(request, limits)
    if not 0 <= request.version <= MAX_VERSION:
        raise _senseless(request, f"version must be 0 to {MAX_VERSION}")
    if request.ttl and request.expires_at_ms:
        raise _senseless(request, "ttl and expires_at contradict each other: give one of them")
    if request.clear_on_processed and kind is not Kind.USER:
        raise _senseless(request, "clear_on_processed is for user: channels, where there are other devices to clear it from")


def _senseless(request: PublishRequest, detail: str) -> Refused:
    return Refused(Code.SERIALIZATION_ERROR, detail, channel=request.channel)


def _too_large(request: PublishRequest, detail: str) -> Refused:
    return Refused(Code.PAYLOAD_TOO_LARGE, detail, channel=request.channel)


def _check_texts(request: PublishRequest) -> None:
    headers = request.headers
    if headers or request.content_type or request.collapse_key:  # most have none of them
        texts = [request.content_type, request.collapse_key, *headers.keys(), *headers.values()]
        if any(map(_SURROGATE.search, texts)):
            raise _senseless(request, "content type, collapse key and headers must be Unicode text")
    key = request.idempotency_key
    if len(key) > MAX_IDEMPOTENCY_KEY_BYTES:
        raise _too_large(request, f"idempotency key of {len(key)} characters, the limit is {MAX_IDEMPOTENCY_KEY_BYTES}")
    if key and not _PRINTABLE.fullmatch(key):
        raise _senseless(request, "an idempotency key is printable ASCII, without a space at either end")


def _check_sizes(request: PublishRequest, limits: PublishConfig) -> None:
    if len(request.payload) > limits.max_payload:
        raise _too_large(request, f"payload of {len(request.payload)} bytes, the limit is {limits.max_payload}")
    if request.headers:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in request.headers.items())
        if len(request.headers) > limits.max_headers or size > limits.max_headers_bytes:
            detail = f"{len(request.headers)} headers of {size} bytes, the limits are {limits.max_headers} and "
            raise _too_large(request, f"{detail}{limits.max_headers_bytes}")
    if request.content_type and len(request.content_type.encode()) > MAX_CONTENT_TYPE_BYTES:
        raise _too_large(request, f"content type above {MAX_CONTENT_TYPE_BYTES} bytes")
    if request.collapse_key:
        size = len(request.collapse_key.encode())
        if size > limits.max_collapse_key:
            detail = f"collapse key of {size} bytes, the limit is {limits.max_collapse_key} (publish.max_collapse_key)"
            raise _too_large(request, detail)


def expiry_ms(request: PublishRequest, limits: PublishConfig, now_ms: int) -> int:
    """When the message expires, Unix milliseconds, 0: never. Its life begins when it is to be delivered.

    Raises Refused(MESSAGE_EXPIRED) for times that have passed already, or are too far away.
    """
    channel, deliver_at_ms = request.channel, request.deliver_at_ms
    if not request.ttl >= 0:  # also "not a number"
        raise Refused(Code.MESSAGE_EXPIRED, "ttl is negative or not a number: expired on arrival", channel=channel)
    if request.ttl > limits.max_ttl:
        detail = f"ttl of {request.ttl:.0f} s, the limit is {limits.max_ttl:.0f} s (publish.max_ttl)"
        raise Refused(Code.MESSAGE_EXPIRED, detail, channel=channel)
    if deliver_at_ms and deliver_at_ms < now_ms:
        raise Refused(Code.MESSAGE_EXPIRED, f"deliver_at passed {_seconds(now_ms - deliver_at_ms)} s ago", channel=channel)
    if deliver_at_ms - now_ms > limits.max_delay * 1000:
        detail = (
            f"deliver_at is {_seconds(deliver_at_ms - now_ms)} s away, the limit is {limits.max_delay:.0f} s (publish.max_delay)"
        )
        raise Refused(Code.MESSAGE_EXPIRED, detail, channel=channel)
    begins_ms = deliver_at_ms or now_ms
    if not request.expires_at_ms:
        return begins_ms + max(1, int(request.ttl * 1000)) if request.ttl else 0
    if request.expires_at_ms <= begins_ms:
        moment = "deliver_at" if deliver_at_ms else "now"
        detail = f"expires_at is {_seconds(begins_ms - request.expires_at_ms)} s before {moment}: expired on arrival"
        raise Refused(Code.MESSAGE_EXPIRED, detail, channel=channel)
    if request.expires_at_ms - begins_ms > limits.max_ttl * 1000:
        life = _seconds(request.expires_at_ms - begins_ms)
        detail = f"expires_at is {life} s away, the limit is {limits.max_ttl:.0f} s (publish.max_ttl)"
        raise Refused(Code.MESSAGE_EXPIRED, detail, channel=channel)
    return request.expires_at_ms


def _seconds(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds}.{rest:03}"


def fingerprint(request: PublishRequest, alert: bytes = b"") -> bytes:
    """Stands for all that was asked for but the idempotency key: another fingerprint is another request.

    `alert`: the canonical form of the request's. Without one the fingerprint is what it was before there were alerts: keys that
    are known from then stay good.
    """
    digest = hashlib.sha256()
    for part in (*_parts(request), *([alert] if alert else ())):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _parts(request: PublishRequest) -> Iterator[bytes]:
    yield request.channel.encode()
    yield request.payload
    yield request.content_type.encode()
    for name in sorted(request.headers):
        yield name.encode()
        yield request.headers[name].encode()
    yield request.collapse_key.encode()
    times = (request.ttl, request.expires_at_ms, request.deliver_at_ms)
    wishes = (int(request.durability), int(request.priority), request.version, request.want_receipt, request.clear_on_processed)
    yield repr((*times, *wishes)).encode()
