"""One request about a channel on its way through a pool, with its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

from streampush.apns.broadcast import MAX_ANSWER, Request
from streampush.apns.exchange import Exchange, Fault
from streampush.apns.http2 import HeaderList, hpack
from streampush.apns.outcome import NotSent, Refused, Unknown, Why
from streampush.apns.pool import Pool


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: those that are looked at, by name."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


class Asking(Exchange):
    """`ended` fires by the deadline, and is no error unless it is cancelled.

    Of an answer at most MAX_ANSWER bytes are kept; a longer one is none of Apple's.
    """

    __slots__ = ("_headers", "_pool", "_received", "ended")

    def __init__(self, block: bytes, body: bytes, deadline: float, pool: Pool) -> None:
        super().__init__(block, body, deadline)
        self.ended: Deferred[Answer | NotSent | Refused | Unknown] = Deferred(self._cancelled)
        self._pool = pool
        self._headers: HeaderList | None = None
        self._received = bytearray()

    def answered(self, headers: HeaderList, ended: bool) -> None:
        self._headers = headers
        self._received.clear()
        if ended:
            self._whole()

    def received(self, data: bytes, ended: bool) -> None:
        if len(self._received) + len(data) > MAX_ANSWER:
            self._pool.cancel(self)
            self._end(Unknown(Why.BAD_ANSWER))
            return
        self._received += data
        if ended:
            self._whole()

    def trailed(self, headers: HeaderList) -> None:
        self._whole()

    def failed(self, fault: Fault) -> None:
        self._end(fault.outcome)

    def _cancelled(self, _ended: Deferred[Answer | NotSent | Refused | Unknown]) -> None:
        self._pool.cancel(self)

    def _whole(self) -> None:
        if self._headers is not None:
            found = {name: self._headers.get(name.encode()) for name in ("apns-channel-id", "apns-request-id", "retry-after")}
            headers = {name: value.decode("latin-1") for name, value in found.items() if value is not None}
            self._end(Answer(self._headers.status, headers, bytes(self._received)))

    def _end(self, answer: Answer | NotSent | Refused | Unknown) -> None:
        self._headers = None
        if not self.ended.called:
            self.ended.callback(answer)


def request_block(request: Request, authority: str, bearer: bytes) -> bytes:
    """The request's fields, as HEADERS carries them. `bearer`: empty if the connection's certificate says who asks."""
    pseudo = [(b":method", request.method.encode()), (b":scheme", b"https"), (b":authority", authority.encode())]
    block = hpack.block([*pseudo, (b":path", request.path.encode())])
    if bearer:
        block += hpack.literal(b"authorization", bearer, never_indexed=True)
    return block + hpack.block((name.encode(), value.encode()) for name, value in request.headers)
