"""What a connection reports: past tense, core to shell.

Every stream ends with exactly one of these: an answer that is complete (`ended`), StreamReset, or its place in the `streams` of
GoneAway, ConnectionFailed or ConnectionEnded. Only `ClientConnection.reset` ends a stream without an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from streampush.apns.http2.header_list import HeaderList


class Verdict(Enum):
    """What is known about a request that ended without a complete answer."""

    NOT_WRITTEN = "not_written"
    """No byte of it left the outbound buffer, nor ever will: it can be sent again."""
    REFUSED = "refused"
    """The server says that it did not and will not act on it (RFC 9113 section 8.7): it can be sent again."""
    UNKNOWN = "unknown"
    """The server may have acted on it."""


EndedStreams: TypeAlias = tuple[tuple[int, Verdict], ...]
"""Stream ids, rising, with their verdicts."""


@dataclass(slots=True)
class ResponseReceived:
    """The final answer began; 1xx answers are not reported.

    Not frozen, nor is DataReceived: there is one for each push, and a frozen one takes three times as long to make.
    """

    stream_id: int
    headers: HeaderList
    ended: bool


@dataclass(slots=True)
class DataReceived:
    """A part of the body, without padding; empty only if it is the last."""

    stream_id: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class TrailersReceived:
    """Fields behind the body; they end the answer."""

    stream_id: int
    headers: HeaderList


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream is over without a complete answer. `text` is empty if the server reset it, else what it did wrong there.

    `code`: an ErrorCode or another number; `errors.error_name` gives its name.
    """

    stream_id: int
    code: int
    verdict: Verdict
    text: str = ""


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """`writable` of this stream was 0, or `send_data` had to keep something; now there is room and nothing kept."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The server's SETTINGS came. `max_streams`: how many may be open at once from now on, our own bound included."""

    max_streams: int


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """`ping_id`: what `ping` gave, or one of the core's own. `seconds`: from the call or tick to the answer."""

    ping_id: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The server takes no new streams. `streams` are over; those up to `last_stream_id` go on to their answers.

    `debug` is the server's text, cut at `Limits.max_debug_size`; it may hold anything.
    """

    last_stream_id: int
    code: int
    debug: bytes
    streams: EndedStreams


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """We end the connection: the server broke the protocol (`code`), passed a limit, or fell silent (NO_ERROR).

    `text` is English and safe to log. The last event of a connection, and `outbound` holds nothing more than a GOAWAY.
    """

    code: int
    text: str
    streams: EndedStreams


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """The transport is gone. The last event of a connection."""

    streams: EndedStreams


Event: TypeAlias = (
    ResponseReceived
    | DataReceived
    | TrailersReceived
    | StreamReset
    | WindowOpened
    | SettingsChanged
    | PingAnswered
    | GoneAway
    | ConnectionFailed
    | ConnectionEnded
)
