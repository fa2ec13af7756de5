"""One request on its way through a pool: what is sent, until when, and who is told what becomes of it.

There is one for each push, so it is a plain object with slots, and what happens to it are calls, not Deferreds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streampush.apns.http2 import HeaderList, Verdict
from streampush.apns.outcome import NotSent, Refused, Unknown, Why


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no answer.

    `verdict`: what the server can have made of the request. `text`: English, for log lines and errors; it holds nothing of the
    request and nothing that a server wrote.
    """

    verdict: Verdict
    why: Why
    text: str

    @property
    def repeatable(self) -> bool:
        """Whether the server certainly did not act on it."""
        return self.verdict is not Verdict.UNKNOWN

    @property
    def outcome(self) -> NotSent | Refused | Unknown:
        """How a request that is not repeated has ended."""
        if self.verdict is Verdict.UNKNOWN:
            return Unknown(self.why)
        return Refused(self.why) if self.verdict is Verdict.REFUSED else NotSent(self.why)


class Carrier(Protocol):
    """The connection that an exchange is on, as the exchange sees it. Calls for a stream that is over do nothing.

    `heard_at`: when the bytes came that are being read, in seconds of the pool's clock: the time of an answer.
    """

    heard_at: float

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Goes on with the body; `Exchange.resumed` tells when there is room for more."""

    def writable(self, stream_id: int) -> int:
        """Bytes that would go out at once. After a 0 `Exchange.resumed` is called when that changes."""

    def consumed(self, stream_id: int, size: int) -> None:
        """So many bytes of the answer's body are read; the server may send as many again. Not needed in automatic pools."""

    def cancel(self, exchange: Exchange) -> Verdict | None:
        """For the pool: ends the exchange without calling it."""

    def rest(self, seconds: float) -> None:
        """The connection takes no new requests for so long; those under way go on."""

    def afterwards(self, call: Callable[[], None]) -> None:
        """To be called once when everybody was told of what is being read; in `answered`, `received` and `trailed` only."""

    def drain(self, why: str) -> None:
        """The connection takes no new requests any more, and closes when those under way are over."""

    def deadline_moved(self, deadline: float) -> None:
        """The exchange's deadline is now earlier than it was; for later ones there is no need to say so."""


class Exchange:
    """To be derived from: the methods `answered` to `failed` do nothing here.

    It ends once, with one of: `answered(..., ended=True)`, `received(..., ended=True)`, `trailed`, `failed`. `answered` may be
    called without `ended` before; `failed` may follow that too. What is called must return soon, and may submit other exchanges. If
    it raises, `failed` is called with BAD_ANSWER: a field that cannot be decoded is met when it is read.

    `block`: the request's fields, encoded without a dynamic table (http2.hpack). `body`: all of it, or its beginning if `more`.
    `deadline`: seconds of the pool's clock; it ends by then, and may be moved while it is on its way. `more`: the rest of the body
    comes by `Carrier.send_data`. `repeatable`: it may be sent again when the server certainly did not act on it; to be set to False
    by who has given away a body that cannot be had again. `watched`: `began` is called although there is no `more`.

    The others belong to the pool. `carrier` and `stream_id`: where it is now. `tries`: streams that it had. `waiting`: it is in the
    queue, or about to be.
    """

    __slots__ = ("block", "body", "carrier", "deadline", "more", "repeatable", "stream_id", "tries", "waiting", "watched")

    def __init__(self, block: bytes, body: bytes, deadline: float, *, more: bool = False) -> None:
        self.block = block
        self.body = body
        self.deadline = deadline
        self.more = more
        self.watched = False
        self.repeatable = True
        self.carrier: Carrier | None = None
        self.stream_id = 0
        self.tries = 0
        self.waiting = False

    def __repr__(self) -> str:
        # Never the block: it holds the device token and the provider token.
        return f"<{type(self).__name__} stream={self.stream_id} tries={self.tries}>"

    @property
    def size(self) -> int:
        """Bytes that it keeps while it waits."""
        return len(self.block) + len(self.body)

    def began(self) -> None:
        """For those with `more`, or `watched`: it has a stream, `carrier` and `stream_id` are set. Comes again with another try."""

    def resumed(self) -> None:
        """There is room for more of the body."""

    def answered(self, headers: HeaderList, ended: bool) -> None:
        """The answer began; `ended`: that was all."""

    def received(self, data: bytes, ended: bool) -> None:
        """A part of the answer's body; `ended`: the last one."""

    def trailed(self, headers: HeaderList) -> None:
        """Fields behind the answer's body, which end it."""

    def failed(self, fault: Fault) -> None:
        """There will be no answer, or no more of it."""
