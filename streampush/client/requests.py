"""The requests that wait for their replies."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NoReturn, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from streampush.client.errors import (
    ClientError,
    InvalidRequest,
    RequestRefused,
    RequestTimeout,
    TooManyRequests,
    UnexpectedReply,
)
from streampush.protocol.errors import LocalProtocolError
from streampush.protocol.messages import Error, Message

R = TypeVar("R")


class OpenRequests:
    """Numbers requests and matches replies. At most `limit` are open at once, each for `timeout` seconds by default."""

    def __init__(self, clock: IReactorTime, random: Random, limit: int, timeout: float) -> None:
        self._clock = clock
        self._random = random
        self._limit = limit
        self._timeout = timeout
        self._last_id = 0
        self._open: dict[int, Deferred[Message]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(
        self, send: Callable[[Message, int], None], request: Message, expected: type[R], timeout: float | None = None
    ) -> R:
        """Sends the request and waits for its reply.

        Raises TooManyRequests, InvalidRequest, RequestRefused, RequestTimeout, UnexpectedReply and what `fail` says.
        """
        if len(self._open) >= self._limit:
            raise TooManyRequests(f"{self._limit} requests are open")
        self._last_id += 1
        request_id = self._last_id
        try:
            send(request, request_id)
        except LocalProtocolError as error:
            raise InvalidRequest(str(error)) from error
        answer = await self._reply(request_id, self._timeout if timeout is None else timeout)
        if isinstance(answer, Error):
            wait = (answer.retry_after_ms + self._random.uniform(0, answer.jitter_ms)) / 1000
            raise RequestRefused(answer.code, answer.advice, answer.detail, wait)
        if not isinstance(answer, expected):
            raise UnexpectedReply(f"{type(answer).__name__} in answer to {type(request).__name__}")
        return answer

    def answer(self, request_id: int, message: Message) -> bool:
        """Gives a reply to whoever waits for it, at once; False if no such request is open (any more)."""
        reply = self._open.pop(request_id, None)
        if reply is None:
            return False
        reply.callback(message)
        return True

    def fail(self, error: type[ClientError], detail: str) -> None:
        """Fails all of them."""
        replies = list(self._open.values())
        self._open.clear()
        for reply in replies:
            reply.errback(error(detail))

    def _reply(self, request_id: int, timeout: float) -> Deferred[Message]:
        def forget(_: Deferred[Message]) -> None:
            self._open.pop(request_id, None)

        reply: Deferred[Message] = Deferred(forget)
        reply.addTimeout(timeout, self._clock, _timed_out)
        self._open[request_id] = reply
        return reply


def _timed_out(_: object, timeout: float) -> NoReturn:
    raise RequestTimeout(f"no reply in {timeout:g} s")
