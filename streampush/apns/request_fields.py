"""A request as Twisted's IAgent is given it, as the fields of HTTP/2: RFC 9113 sections 8.2 and 8.3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted.web.client import URI
from twisted.web.http_headers import Headers

from streampush.apns.agent_errors import BadRequest
from streampush.apns.http2 import hpack

MAX_FIELDS: Final = 64 * 1024
"""Bytes of a request's encoded fields; servers take 8 to 64 KiB."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_HOST = re.compile(rb"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")

_OF_HTTP_1 = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings"})
"""What belongs to a connection of HTTP/1; dropped, as RFC 9113 section 8.2.2 asks of who translates."""

_OURS = frozenset({b"host", b"content-length", b"expect"})
"""What the agent says itself, or does not do (100-continue)."""

_SECRET = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `host` without brackets; `authority` and `path` as the server is told."""

    host: str
    port: int
    authority: bytes
    path: bytes


def target_of(uri: bytes) -> Target:
    """Raises BadRequest for what is no `https` address, or has user and password in it."""
    if any(octet <= 32 or octet >= 127 for octet in uri):
        raise BadRequest("the address has a character that must be percent-encoded")
    parsed = URI.fromBytes(uri)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
    if parsed.scheme.lower() != b"https":
        raise BadRequest("the address is not an https one")
    if b"@" in parsed.netloc:
        raise BadRequest("the address has a user in it: give an authorization field instead")
    if not _HOST.fullmatch(parsed.host) or not 0 < parsed.port < 65536:
        raise BadRequest("the address has no usable host and port")
    path = parsed.originForm or b"/"
    if not _TARGET.fullmatch(path):
        raise BadRequest("the address has no usable path")
    authority = parsed.host if parsed.port == 443 else b"%b:%d" % (parsed.host, parsed.port)
    return Target(parsed.host.strip(b"[]").decode("ascii").lower(), parsed.port, authority, path)


def encode_request(method: bytes, target: Target, headers: Headers | None, length: int | None) -> bytes:
    """The field block. `length`: of the body; None: not known, or no body. Raises BadRequest."""
    if not _TOKEN.fullmatch(method) or method == b"CONNECT":
        raise BadRequest("a method that cannot be sent")
    given = [] if headers is None else [(name.lower(), values) for name, values in headers.getAllRawHeaders()]
    authority = next((values[-1] for name, values in given if name == b"host" and values), target.authority)
    if not _VALUE.fullmatch(authority) or not authority:
        raise BadRequest("a host field that cannot be sent")
    parts = [hpack.block([(b":method", method), (b":scheme", b"https")])]
    parts += [hpack.literal(b":authority", authority), hpack.literal(b":path", target.path)]
    dropped = _OF_HTTP_1 | _OURS | _named_by_connection(given)
    for name, values in given:
        if not _TOKEN.fullmatch(name):
            raise BadRequest("a field name that cannot be sent")
        if name in dropped:
            continue
        for raw in values:
            value = raw.strip(b" \t")
            if not _VALUE.fullmatch(value):
                raise BadRequest(f"the field {name.decode('ascii')} has a value that cannot be sent")
            if name == b"te" and value.lower() != b"trailers":
                continue
            parts.append(hpack.literal(name, value, never_indexed=name in _SECRET))
    if length is not None:
        parts.append(hpack.literal(b"content-length", b"%d" % length))
    block = b"".join(parts)
    if len(block) > MAX_FIELDS:
        raise BadRequest(f"the fields take {len(block)} bytes, more than {MAX_FIELDS}")
    return block


def _named_by_connection(given: Sequence[tuple[bytes, Sequence[bytes]]]) -> frozenset[bytes]:
    """The fields that a Connection field names belong to it: RFC 9110 section 7.6.1."""
    named = (value for name, values in given if name == b"connection" for value in values)
    return frozenset(each.strip().lower() for value in named for each in value.split(b","))
