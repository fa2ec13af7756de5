"""What a client did on a connection, as ServerWire tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from streampush.apns.http2.errors import ErrorCode

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A request began."""

    stream_id: int
    fields: Fields = field(repr=False)


@dataclass(frozen=True, slots=True)
class Completed:
    """The whole request is there. `size`: bytes of its body; `body` may be cut at stream.MAX_BODY."""

    stream_id: int
    fields: Fields = field(repr=False)
    body: bytes = field(repr=False)
    size: int


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The client reset the stream; it wants no answer."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The client broke the protocol. `stream_id` 0: the connection is over, GOAWAY is on its way; else that stream was reset."""

    stream_id: int
    code: ErrorCode
    text: str


WireEvent: TypeAlias = Opened | Completed | Abandoned | Broken
