"""Answers, and what goes wrong as `application/problem+json` (RFC 9457) with the code of the stream protocol, if there is one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from streampush.errors import Refused
from streampush.protocol.codes import CODES, Code

if TYPE_CHECKING:
    from streampush.rest.http import ApiRequest

JSON = "application/json"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"

STATUS_OF: Mapping[Code, int] = MappingProxyType(
    {
        Code.CONNECTION_LIMIT: 503,
        Code.DRAINING: 503,
        Code.OVERLOADED: 503,
        Code.MESSAGE_RATE_EXCEEDED: 429,
        Code.NOT_SUBSCRIBED: 409,
        Code.FORBIDDEN: 403,
        Code.PAYLOAD_TOO_LARGE: 413,
        Code.MESSAGE_EXPIRED: 400,
        Code.UNKNOWN_RECIPIENT: 404,
        Code.QUOTA_EXCEEDED: 507,
        Code.STORE_UNAVAILABLE: 503,
        Code.DUPLICATE: 409,
        Code.POSITION_LOST: 409,
    }
)
"""The HTTP status of a refusal. Other codes are the wire's own; met here they are the request's fault: 400."""

_WAIT = frozenset({429, 503})
_DEFAULT_RETRY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client. `body` is shown by no repr: it may hold what only the client may read."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Stream(Protocol):
    """What writes an answer bit by bit."""

    async def run(self) -> None:
        """Writes, and returns at the end of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed(Answer):
    """An answer whose body has no length and comes bit by bit. `open` is given the request, and may raise Problem."""

    open: Callable[[ApiRequest], Stream]


def json_answer(value: Any, status: int = 200) -> Answer:
    """The value as compact JSON. Raises ValueError for what JSON does not have."""
    return Answer(status, json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii"))


class Problem(Exception):
    """An answer that is no success.

    `detail` is English and safe to show; `field` names what is wrong in the request; `retry_after` is in seconds, 0: no advice.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: Code | None = None,
        field: str = "",
        retry_after: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.code = code
        self.field = field
        self.retry_after = retry_after or (_DEFAULT_RETRY_AFTER if status in _WAIT else 0.0)
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The problem as the members of its JSON object."""
        document: dict[str, Any] = {
            "type": "about:blank" if self.code is None else f"urn:streampush:code:{int(self.code)}",
            "title": HTTPStatus(self.status).phrase if self.code is None else CODES[self.code].meaning,
            "status": self.status,
            "detail": self.detail,
        }
        if self.code is not None:
            document["code"] = int(self.code)
        if self.field:
            document["field"] = self.field
        if self.retry_after:
            document["retry_after"] = self.retry_after
        return document

    def answer(self) -> Answer:
        """The problem as a response. `Retry-After` knows whole seconds only: it is rounded up."""
        headers = dict(self.headers)
        if self.retry_after:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        return Answer(self.status, json_answer(self.document()).body, PROBLEM, headers)


def problem_of(refused: Refused) -> Problem:
    """A refusal of the application as a problem."""
    return Problem(STATUS_OF.get(refused.code, 400), refused.detail, code=refused.code, retry_after=refused.retry_after)


def unexpected() -> Problem:
    """Our own fault. What it was is in the log, not in the answer."""
    return Problem(500, "the server failed to do this; its log says why")
