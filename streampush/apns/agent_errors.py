"""How a request of the agent fails."""

from __future__ import annotations

from streampush.apns.exchange import Fault
from streampush.apns.http2 import Verdict
from streampush.apns.outcome import Why


class BadRequest(ValueError):
    """A request that HTTP/2 or this agent does not allow; nothing was sent. The text holds no field's value."""


class RequestFailed(Exception):
    """There is no answer. `fault`: why, and what the server can have made of the request."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.why.value}: {fault.text}")
        self.fault = fault


class RequestNotSent(RequestFailed):
    """Not a byte of it was written: it can be made again."""


class RequestRefused(RequestFailed):
    """The server did not and will not act on it: it can be made again."""


class AnswerNeverCame(RequestFailed):
    """It was written, and nobody knows what became of it."""


class BodyFailed(Exception):
    """The producer of the request's body failed, or wrote more or less than its length; the request was taken back or reset."""


_KINDS = {
    Verdict.NOT_WRITTEN: RequestNotSent,
    Verdict.REFUSED: RequestRefused,
    Verdict.UNKNOWN: AnswerNeverCame,
}


def failure_of(fault: Fault) -> RequestFailed:
    """The exception for a fault."""
    return _KINDS[fault.verdict](fault)


def broken(text: str) -> RequestFailed:
    """The exception for an answer that is none."""
    return AnswerNeverCame(Fault(Verdict.UNKNOWN, Why.BAD_ANSWER, text))
