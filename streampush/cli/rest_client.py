"""A client of the REST API for the commands: one question, one answer, over connections that are kept open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate
from twisted.python.failure import Failure as TwistedFailure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from streampush.cli.exits import BadCredentials, Failure, NoConnection

CONNECT_TIMEOUT = 10.0
REPLY_TIMEOUT = 60.0
MAX_REPLY_BYTES = 1024 * 1024


class RestClient:
    """Asks with a key.

    `ca_pem`: the CA that signed the server's certificate, for https; empty: what the platform trusts. `reactor`: the running one.
    """

    def __init__(self, reactor: Any, url: str, key: str, ca_pem: bytes) -> None:
        self.url = url
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor)  # type: ignore[no-untyped-call]  # Twisted has no types here
        trust = Certificate.loadPEM(ca_pem) if ca_pem else None
        policy = BrowserLikePolicyForHTTPS(trust)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._agent = Agent(reactor, policy, connectTimeout=CONNECT_TIMEOUT, pool=self._pool)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._headers = {"Authorization": [f"Bearer {key}"], "User-Agent": ["streampush"]}

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Status and the object that was answered, empty if it was none. `body` is sent as JSON. Raises Failure."""
        headers = Headers(self._headers)
        data = None
        if body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
            data = _Body(json.dumps(body).encode())
        response = await self._explained(self._agent.request(method.encode(), (self.url + path).encode(), headers, data))
        return response.code, _object(await self._explained(_read_body(response)))

    async def stream(self, path: str, reader: Protocol, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Asks for an answer that has no end by itself: a success goes to `reader` as it comes, and the object is empty.

        Anything else is given as `ask` gives it. Raises Failure until the answer begins; behind that `reader` is told.
        """
        wanted = Headers(self._headers)
        for name, value in headers.items():
            wanted.setRawHeaders(name, [value])
        response = await self._explained(self._agent.request(b"GET", (self.url + path).encode(), wanted))
        if response.code != 200:
            return response.code, _object(await self._explained(_read_body(response)))
        response.deliverBody(reader)
        return response.code, {}

    async def _explained(self, waiting: Deferred[Any]) -> Any:
        """What comes of it in time. Raises Failure."""
        try:
            return await waiting.addTimeout(REPLY_TIMEOUT, self._reactor)
        except Exception as error:
            explained = _explain(self.url, error)
            if explained is None:
                raise
            raise explained from error

    async def close(self) -> None:
        """Ends what is open."""
        await self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]  # Twisted has no types here


def _object(raw: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(raw)
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


@implementer(IBodyProducer)
class _Body:
    """A request's body that is in memory already."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is all written."""

    def resumeProducing(self) -> None:
        """It is all written."""

    def stopProducing(self) -> None:
        """It is all written."""


class _BoundedBody(Protocol):
    """Collects a reply's body, and gives up on one that is too long."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_REPLY_BYTES:
            self._parts.append(data)
        elif self.transport is not None:
            self._parts.clear()
            self.transport.loseConnection()

    def connectionLost(self, reason: TwistedFailure = connectionDone) -> None:
        if self._size > MAX_REPLY_BYTES:
            self.done.errback(Failure(f"the server's answer is longer than {MAX_REPLY_BYTES} bytes"))
        elif isinstance(reason.value, (ResponseDone, PotentialDataLoss)):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


def _read_body(response: IResponse) -> Deferred[bytes]:
    body = _BoundedBody()
    response.deliverBody(body)  # type: ignore[no-untyped-call]  # Twisted has no types here
    return body.done


def _explain(url: str, error: Exception) -> Exception | None:
    """What an exception of the connection means for the user; None: it is none of those."""
    if isinstance(error, (ResponseFailed, ResponseNeverReceived)):
        reasons: list[BaseException] = [failure.value for failure in error.reasons]
        if any(isinstance(reason, SSL.Error) for reason in reasons):
            return BadCredentials(f"{url}: the server's certificate is not accepted")
        return NoConnection(f"{url}: the connection ended before the answer")
    if isinstance(error, SSL.Error):
        return BadCredentials(f"{url}: the server's certificate is not accepted")
    if isinstance(error, (ConnectError, DNSLookupError, ConnectionDone, ConnectionLost)):
        return NoConnection(f"{url}: {_reason(error)}; is the server running?")
    if isinstance(error, DeferredTimeout):
        return NoConnection(f"{url}: no answer in {REPLY_TIMEOUT:g} s")
    return None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
