"""Asks a process of ours over its Unix socket: a bounded HTTP/1.0 answer, within a deadline."""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from streampush.rest.problems import Answer

MAX_HEAD: Final = 4096
"""Bytes of an answer's status line and header: ours take some 150."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class NoAnswer(Exception):
    """Nobody answered in time, or not as they should. `str()` says how, and quotes nothing."""


class Asker:
    """Asks at one Unix socket. `deadline` in seconds for a whole answer, `max_bytes` bounds its body."""

    def __init__(self, reactor: Any, path: str, *, deadline: float, max_bytes: int) -> None:
        self._reactor = reactor
        self._path = path
        self._deadline = deadline
        self._max_bytes = max_bytes

    async def ask(self, route: str) -> Answer:
        """The answer to GET `route`. Raises NoAnswer."""
        answer = _Answered(route, self._max_bytes)
        endpoint = UNIXClientEndpoint(self._reactor, self._path, timeout=self._deadline)  # type: ignore[no-untyped-call]  # not annotated
        begun = self._reactor.seconds()
        try:
            await endpoint.connect(_Quiet(answer))  # type: ignore[no-untyped-call]  # not annotated
        except ConnectError as error:
            raise NoAnswer(f"its socket cannot be reached: {type(error).__name__}") from None
        left = max(0.0, self._deadline - (self._reactor.seconds() - begun))
        try:
            return await answer.whole.addTimeout(left, self._reactor)
        except TimeoutError:
            raise NoAnswer(f"not within {self._deadline:g} s") from None


class _Quiet(Factory):
    """For one question. Twisted's own would be named in the log each time."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


class _Answered(Protocol):
    """Asks, and collects until the other side closes."""

    transport: Any

    def __init__(self, route: str, max_bytes: int) -> None:
        self._route = route
        self._most = max_bytes + MAX_HEAD
        self._got = bytearray()
        self.whole: Deferred[Answer] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(f"GET {self._route} HTTP/1.0\r\n\r\n".encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        self._got += data
        if len(self._got) > self._most:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:  # given up
            return
        try:
            answer = _parse(bytes(self._got))
            if len(self._got) > self._most:
                raise NoAnswer(f"more than {self._most} bytes")
        except NoAnswer as error:
            self.whole.errback(error)
        else:
            self.whole.callback(answer)


def _parse(got: bytes) -> Answer:
    head, _, body = got.partition(b"\r\n\r\n")
    status = _STATUS.match(head)
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if status is None or headers.get("content-length") != str(len(body)):
        raise NoAnswer("its answer is not whole")
    return Answer(int(status[1]), body, headers.get("content-type", ""))
