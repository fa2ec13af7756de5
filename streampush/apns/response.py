"""An answer as Twisted's IResponse, and the way of its body to whoever reads it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Port

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import RESPONSES
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IClientRequest, IResponse
from zope.interface import implementer


@implementer(IClientRequest)
@dataclass(frozen=True, slots=True)
class SentRequest:
    """The request of an answer, as the caller made it."""

    method: bytes
    absoluteURI: bytes
    headers: Headers


class BodySource(Port):
    """Where a body comes from."""

    def body_read(self, size: int) -> None:
        """So many bytes were delivered."""

    def body_held(self, held: bool) -> None:
        """The reader wants no more for now, or wants more again."""

    def body_unwanted(self) -> None:
        """The reader went away before the end."""


@implementer(IResponse)
class Http2Response:
    """See twisted.web.iweb.IResponse. What comes before `deliverBody` waits here; the stream's window bounds it."""

    version = (b"HTTP", 2, 0)

    def __init__(self, code: int, headers: Headers, length: int | None, request: SentRequest, source: BodySource) -> None:
        self.code = code
        self.phrase = RESPONSES.get(code, b"")
        self.headers = headers
        self.length: Any = UNKNOWN_LENGTH if length is None else length  # the interface has it so
        self.request: IClientRequest = request
        self.previousResponse: IResponse | None = None
        self._source = source
        self._parts: deque[bytes] = deque()
        self._reader: IProtocol | None = None
        self._claimed = False
        self._held = False
        self._delivering = False
        self._end: Failure | None = None  # how the body ended

    @property
    def claimed(self) -> bool:
        """Whether somebody reads the body."""
        return self._claimed

    def setPreviousResponse(self, response: IResponse) -> None:
        """See IResponse."""
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """See IResponse. Raises RuntimeError the second time."""
        if self._claimed:
            raise RuntimeError("the body of this response has a reader already")
        self._claimed = True
        self._reader = protocol
        transport: Any = _BodyTransport(self)  # as much of a transport as IResponse promises
        protocol.makeConnection(transport)
        self._source.body_held(self._held)
        self._deliver()

    # For the source.

    def take(self, data: bytes) -> None:
        """A part came."""
        if data:
            self._parts.append(data)
            self._deliver()

    def finish(self, error: Exception | None = None) -> None:
        """It is complete, or will never be."""
        if self._end is None:
            self._end = _failure(ResponseDone() if error is None else self._broken(error))
            self._deliver()

    def _broken(self, error: Exception) -> Exception:
        failed: Exception = ResponseFailed([_failure(error)], self)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        return failed

    # For the reader.

    def hold(self, held: bool) -> None:
        """The reader pauses or goes on."""
        if held != self._held:
            self._held = held
            self._source.body_held(held)
            self._deliver()

    def abandon(self) -> None:
        """The reader wants no more."""
        if self._end is None:
            self._source.body_unwanted()
            self._parts.clear()
            self._held = False
            self.finish(ConnectionAborted())

    def _deliver(self) -> None:
        if self._delivering or self._reader is None:
            return  # the loop below goes on with it, or deliverBody will
        self._delivering = True
        try:
            while self._parts and not self._held:
                data = self._parts.popleft()
                self._source.body_read(len(data))
                self._reader.dataReceived(data)
        finally:
            self._delivering = False
        if self._end is not None and not self._parts:
            reader, self._reader = self._reader, None
            reader.connectionLost(self._end)


def _failure(error: Exception) -> Failure:
    return Failure(error)  # type: ignore[no-untyped-call]  # Twisted has not annotated it


@implementer(IPushProducer)
class _BodyTransport:
    """What the reader of a body has for a transport."""

    disconnecting = False

    def __init__(self, response: Http2Response) -> None:
        self._response = response

    def pauseProducing(self) -> None:
        self._response.hold(True)

    def resumeProducing(self) -> None:
        self._response.hold(False)

    def stopProducing(self) -> None:
        self._response.abandon()

    def loseConnection(self) -> None:
        self._response.abandon()

    def abortConnection(self) -> None:
        self._response.abandon()
