"""The requests that wait for their replies."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred
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
        self._late: dict[int, tuple[str, Callable[[Message], bool]]] = {}  # what nobody waits for any more, the oldest first

    def __len__(self) -> int:
        return len(self._open)

    async def ask(
        self,
        send: Callable[[Message, int], None],
        request: Message,
        expected: type[R],
        timeout: float | None = None,
        *,
        late: Callable[[R], None] | None = None,
        about: str = "",
    ) -> R:
        """Sends the request and waits for its reply. `late` is given a reply of the expected type that comes on this connection
        when nobody waits for it any more: the server has done what was asked. Not so behind `no_longer(about)`.

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
        try:
            answer = await self._reply(request_id, self._timeout if timeout is None else timeout)
        except (RequestTimeout, CancelledError):
            if late is not None:
                self._await_late(request_id, about, expected, late)
            raise
        if isinstance(answer, Error):
            wait = (answer.retry_after_ms + self._random.uniform(0, answer.jitter_ms)) / 1000
            raise RequestRefused(answer.code, answer.advice, answer.detail, wait)
        if not isinstance(answer, expected):
            raise UnexpectedReply(f"{type(answer).__name__} in answer to {type(request).__name__}")
        return answer

    def answer(self, request_id: int, message: Message) -> bool:
        """Gives a reply to whoever waits for it, at once; False if no such request is open (any more)."""
        reply = self._open.pop(request_id, None)
        if reply is not None:
            reply.callback(message)
            return True
        _, late = self._late.pop(request_id, ("", None))
        return late is not None and late(message)

    def no_longer(self, about: str) -> None:
        """Late replies to requests about this are wanted no longer."""
        self._late = {request_id: late for request_id, late in self._late.items() if late[0] != about}

    def fail(self, error: type[ClientError], detail: str) -> None:
        """Fails all of them: the connection is gone."""
        replies = list(self._open.values())
        self._open.clear()
        self._late.clear()
        for reply in replies:
            reply.errback(error(detail))

    def _reply(self, request_id: int, timeout: float) -> Deferred[Message]:
        def forget(_: Deferred[Message]) -> None:
            self._open.pop(request_id, None)

        reply: Deferred[Message] = Deferred(forget)
        reply.addTimeout(timeout, self._clock, _timed_out)
        self._open[request_id] = reply
        return reply

    def _await_late(self, request_id: int, about: str, expected: type[R], late: Callable[[R], None]) -> None:
        def take(message: Message) -> bool:
            if not isinstance(message, expected):
                return False
            late(message)
            return True

        self._late[request_id] = about, take
        if len(self._late) > self._limit:
            del self._late[next(iter(self._late))]


def _timed_out(_: object, timeout: float) -> NoReturn:
    raise RequestTimeout(f"no reply in {timeout:g} s")
