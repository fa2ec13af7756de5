"""Misbehaviour on order: frozen values that compose, the same every time for the same seed.

An order says what goes wrong and, in its `When`, at which requests. Requests are counted when their headers arrive, from 1, over
all connections or for each connection (`When.per_connection`). Orders of a connection's beginning (`GoAwayAtOnce`, `Http11`) count
connections instead. Of the orders that decide how one request ends the first that applies wins; delays and what befalls the
connection come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final, TypeAlias

from streampush.apns.simulator.reasons import Reason

ALL_STREAMS: Final = 2**31 - 1
"""The last stream id of a GOAWAY that only announces (RFC 9113 section 6.8)."""


@dataclass(frozen=True, slots=True)
class When:
    """At which numbers (1, 2, ...) an order applies: with no field set, at all.

    `at`: at this one. `every`: at each n-th. `chance`: at each with this probability, by the seed. `after`: not up to this one.
    `until`: not behind this one; 0: no end. `per_connection`: the numbers begin at 1 on every connection.
    """

    at: int = 0
    every: int = 0
    chance: float = 1.0
    after: int = 0
    until: int = 0
    per_connection: bool = False

    def __post_init__(self) -> None:
        if min(self.at, self.every, self.after, self.until) < 0:
            raise ValueError("at, every, after and until are numbers from 0")
        if not 0.0 <= self.chance <= 1.0:
            raise ValueError("chance is a number from 0 to 1")

    def applies(self, number: int, random: Random) -> bool:
        """Whether at this number. Draws from `random` only when nothing else speaks against it."""
        if (self.at and number != self.at) or (self.every and number % self.every):
            return False
        if number <= self.after or (self.until and number > self.until):
            return False
        return self.chance >= 1.0 or random.random() < self.chance


ALWAYS: Final = When()


# ---------------------------------------------------------------------------------------------------- how one request ends


@dataclass(frozen=True, slots=True)
class RefuseStream:
    """RST_STREAM REFUSED_STREAM when the headers arrive: certainly not processed (RFC 9113 section 8.7)."""

    when: When = ALWAYS


@dataclass(frozen=True, slots=True)
class ResetStream:
    """RST_STREAM when the whole request is there. `processed`: the push was delivered all the same. `code`: 8 is CANCEL."""

    when: When = ALWAYS
    code: int = 8
    processed: bool = True


@dataclass(frozen=True, slots=True)
class Stall:
    """The request is never answered; the rest of the connection goes on."""

    when: When = ALWAYS
    processed: bool = True


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejection that validation would not have given, such as 410, 429, 500, 503.

    `ago`: with 410, how many seconds before now the token became inactive. `retry_after`: seconds, as a `retry-after` header; None:
    no such header.
    """

    reason: Reason
    when: When = ALWAYS
    ago: float = 60.0
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class OddAnswer:
    """An answer as a proxy or a broken server gives it: any status, any body. Nothing is processed."""

    when: When = ALWAYS
    status: int = 502
    body: bytes = b"<html><body>Bad Gateway</body></html>"
    content_type: str = "text/html"


@dataclass(frozen=True, slots=True)
class EndlessHeaders:
    """The answer begins and its header block never ends: CONTINUATION frames, `size` bytes in all, without END_HEADERS."""

    when: When = ALWAYS
    size: int = 1024 * 1024
    frame_size: int = 16384


@dataclass(frozen=True, slots=True)
class HugeHeaders:
    """The answer has a header field of `size` bytes; a correct block, more than a client need take."""

    when: When = ALWAYS
    size: int = 128 * 1024


@dataclass(frozen=True, slots=True)
class UnusualAnswer:
    """The right answer in legal frames that are seldom seen: padding, PRIORITY, CONTINUATION, 103, unknown types, trailers."""

    when: When = ALWAYS


@dataclass(frozen=True, slots=True)
class Garbage:
    """In place of the answer, `size` random bytes that are no frames."""

    when: When = ALWAYS
    size: int = 4096


# ------------------------------------------------------------------------------------------------------------ on top of it


class Spread(Enum):
    """How delays are distributed around their mean."""

    CONSTANT = "constant"
    UNIFORM = "uniform"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer comes later: after `mean` seconds, or between 0 and twice as much, or exponentially distributed."""

    mean: float
    when: When = ALWAYS
    spread: Spread = Spread.CONSTANT

    def draw(self, random: Random) -> float:
        """Seconds to wait."""
        if self.spread is Spread.UNIFORM:
            return random.uniform(0.0, 2 * self.mean)
        if self.spread is Spread.EXPONENTIAL:
            return random.expovariate(1 / self.mean) if self.mean else 0.0
        return self.mean


# ------------------------------------------------------------------------------------------------- what befalls a connection


@dataclass(frozen=True, slots=True)
class GoAway:
    """GOAWAY when the request arrives.

    Without `code` it is orderly: the requests up to this one are answered, then the connection is closed; later ones are not
    looked at. With a code nothing is answered any more: the last stream id is that of the last request processed, and the
    connection is closed at once. `reason`: as JSON in the debug data, as Apple does. `twice`: first one that names no stream
    (RFC 9113 section 6.8), the real one `pause` seconds later, with the streams that came meanwhile. `linger`: seconds that an
    orderly one waits for answers that are late; then the connection is closed all the same.
    """

    when: When
    code: int = 0
    reason: str = ""
    twice: bool = False
    pause: float = 0.1
    linger: float = 30.0


@dataclass(frozen=True, slots=True)
class Close:
    """The connection ends without a word when the request is complete. `processed`: this one was. `reset`: TCP's reset."""

    when: When
    processed: bool = True
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Freeze:
    """From this request on the connection is dead but open: everything is read, nothing is answered, no PING either."""

    when: When


@dataclass(frozen=True, slots=True)
class StopReading:
    """From this request on nothing is read from the connection, so that the client's writing stops too."""

    when: When


class FloodOf(Enum):
    """Frames that bring nothing."""

    SETTINGS = "settings"
    PING = "ping"
    WINDOW_UPDATE = "window-update"
    PRIORITY = "priority"
    UNKNOWN = "unknown"
    RST_STREAM = "rst-stream"
    """The request is refused, again and again."""
    MIXED = "mixed"
    """Each of them but RST_STREAM, by the seed."""


@dataclass(frozen=True, slots=True)
class Flood:
    """At the request so many `frames` come at once that bring nothing; then the connection goes on as if nothing had happened. A
    client must bear a few, and leave when there are too many."""

    when: When
    what: FloodOf = FloodOf.MIXED
    frames: int = 5000


# ------------------------------------------------------------------------------------------------------ how connections begin


@dataclass(frozen=True, slots=True)
class OneStreamFirst:
    """Only `streams` at once until the first request with a good provider token; Apple does so."""

    streams: int = 1


@dataclass(frozen=True, slots=True)
class DropLimit:
    """After a rejection only `streams` at once, for `seconds`; Apple throttles connections that send to bad tokens."""

    streams: int = 1
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class TinyWindows:
    """A stream may carry `window` bytes of body until a WINDOW_UPDATE, which comes `pause` seconds after they were taken."""

    window: int = 64
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class UseTable:
    """Answers use a dynamic table of 4096 bytes, whatever SETTINGS_HEADER_TABLE_SIZE the client announced."""


@dataclass(frozen=True, slots=True)
class AgeEnd:
    """A connection ends with an orderly GOAWAY when it is so many seconds old; see `GoAway` for the rest."""

    seconds: float
    reason: str = ""
    linger: float = 30.0


@dataclass(frozen=True, slots=True)
class IdleEnd:
    """A connection without a request for so many seconds ends with GOAWAY and Apple's reason IdleTimeout."""

    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class GoAwayAtOnce:
    """GOAWAY in place of SETTINGS, then the end. Counts connections."""

    when: When = ALWAYS
    code: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Http11:
    """The server speaks HTTP/1.1: no ALPN `h2`, a 400 for whatever comes. Counts connections."""

    when: When = ALWAYS


RequestOrder: TypeAlias = (
    RefuseStream | ResetStream | Stall | Reject | OddAnswer | EndlessHeaders | HugeHeaders | UnusualAnswer | Garbage
)
ConnectionOrder: TypeAlias = GoAway | Close | Freeze | StopReading | Flood
BeginningOrder: TypeAlias = OneStreamFirst | DropLimit | TinyWindows | UseTable | AgeEnd | IdleEnd | GoAwayAtOnce | Http11
Order: TypeAlias = RequestOrder | Delay | ConnectionOrder | BeginningOrder


@dataclass(frozen=True, slots=True)
class Orders:
    """All that shall go wrong. `seed` decides what chance decides."""

    orders: tuple[Order, ...] = ()
    seed: int = 0

    def __add__(self, other: Orders) -> Orders:
        """Both, with the seed of the left one."""
        return Orders(self.orders + other.orders, self.seed)


_EVERY_TENTH: Final = When(every=10)
_TWENTIETH: Final = When(at=20, per_connection=True)


@dataclass(frozen=True, slots=True)
class Preset:
    """Orders with a name. `about`: one line on what the client sees."""

    about: str
    orders: Orders


def _preset(about: str, *orders: Order) -> Preset:
    return Preset(about, Orders(orders))


PRESETS: Final[dict[str, Preset]] = {
    "none": _preset("everything as it should be"),
    "cold": _preset("one stream at once until the first good provider token", OneStreamFirst()),
    "throttle": _preset("after a rejection one stream at once for a second", DropLimit()),
    "goaway": _preset("GOAWAY at every 20th request of a connection, answers, close", GoAway(_TWENTIETH)),
    "goaway-error": _preset(
        "GOAWAY INTERNAL_ERROR at the 20th request of a connection, nothing answered",
        GoAway(_TWENTIETH, code=2),
    ),
    "goaway-twice": _preset("GOAWAY announced, then meant", GoAway(_TWENTIETH, twice=True)),
    "goaway-first": _preset("the first connection gets GOAWAY in place of SETTINGS", GoAwayAtOnce(When(at=1))),
    "goaway-reason": _preset("GOAWAY with Apple's JSON reason as debug data", GoAway(_TWENTIETH, reason="Shutdown")),
    "refuse": _preset("every tenth stream is refused", RefuseStream(_EVERY_TENTH)),
    "cancel": _preset("every tenth stream is cancelled after its body, processed", ResetStream(_EVERY_TENTH)),
    "stall": _preset("every tenth request is never answered", Stall(_EVERY_TENTH)),
    "freeze": _preset("from the 20th request of a connection on nothing is answered", Freeze(_TWENTIETH)),
    "stop-reading": _preset("from the 20th request of a connection on nothing is read", StopReading(_TWENTIETH)),
    "tiny-windows": _preset("64 bytes of body at a time", TinyWindows()),
    "slow": _preset("answers after 200 ms, exponentially distributed", Delay(0.2, spread=Spread.EXPONENTIAL)),
    "gone": _preset("every tenth device token is inactive since a minute", Reject(Reason.UNREGISTERED, _EVERY_TENTH)),
    "too-many": _preset("every tenth request is one too many for its device", Reject(Reason.TOO_MANY_REQUESTS, _EVERY_TENTH)),
    "error": _preset("every tenth answer is an internal error", Reject(Reason.INTERNAL_SERVER_ERROR, _EVERY_TENTH)),
    "unavailable": _preset("every tenth answer is 503", Reject(Reason.SERVICE_UNAVAILABLE, _EVERY_TENTH)),
    "retry-after": _preset(
        "every tenth answer is 503 with retry-after: 2", Reject(Reason.SERVICE_UNAVAILABLE, _EVERY_TENTH, retry_after=2)
    ),
    "shutdown": _preset("every tenth answer is 503 Shutdown", Reject(Reason.SHUTDOWN, _EVERY_TENTH)),
    "idle": _preset("a connection without a request for a minute ends with IdleTimeout", IdleEnd(60.0)),
    "close": _preset("the connection ends without a word at its 20th request", Close(_TWENTIETH)),
    "garbage": _preset("every 20th request is answered with bytes that are no frames", Garbage(When(every=20))),
    "endless-headers": _preset("every 20th answer has headers without end", EndlessHeaders(When(every=20))),
    "flood": _preset("every 20th request brings 5000 frames that say nothing", Flood(When(every=20))),
    "huge-headers": _preset("every tenth answer has a header of 128 KiB", HugeHeaders(_EVERY_TENTH)),
    "unusual": _preset("answers in legal frames that are seldom seen", UnusualAnswer()),
    "table": _preset("answers use a dynamic table, whatever the client announced", UseTable()),
    "age": _preset("connections end with GOAWAY after a minute", AgeEnd(60.0)),
    "no-json": _preset("every tenth answer is a proxy's 502 in HTML", OddAnswer(_EVERY_TENTH)),
    "http11": _preset("the server speaks HTTP/1.1 only", Http11()),
}
