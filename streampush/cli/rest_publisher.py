"""Publishing over the REST API with `twisted.web.client.Agent`."""

from __future__ import annotations

import base64
import json
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
from streampush.cli.outgoing import Outgoing, PublishRefused, Sent
from streampush.protocol.codes import CODES, Advice, Code

CONNECT_TIMEOUT = 10.0
REPLY_TIMEOUT = 60.0
MAX_REPLY_BYTES = 1024 * 1024


class RestPublisher:
    """Publishes with a key over connections that are kept open.

    `ca_pem`: the CA that signed the server's certificate, for https. `reactor`: the running one.
    """

    def __init__(self, reactor: Any, url: str, key: str, ca_pem: bytes) -> None:
        self._reactor = reactor
        self._url = url
        self._pool = HTTPConnectionPool(reactor)  # type: ignore[no-untyped-call]  # Twisted has no types here
        trust = Certificate.loadPEM(ca_pem) if ca_pem else None  # None: what the platform trusts
        policy = BrowserLikePolicyForHTTPS(trust)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._agent = Agent(reactor, policy, connectTimeout=CONNECT_TIMEOUT, pool=self._pool)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._headers = Headers(
            {"Authorization": [f"Bearer {key}"], "Content-Type": ["application/json"], "User-Agent": ["streampush"]}
        )

    async def publish(self, message: Outgoing) -> Sent:
        status, reply = await self._post("/v1/publish", json.dumps(_fields(message)).encode())
        if status != 200:
            raise _refusal(status, reply)
        try:
            return _sent(reply)
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(f"{self._url} answers like no streampush server") from error

    async def _post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        request = self._agent.request(b"POST", (self._url + path).encode(), self._headers, _Body(body))
        try:
            response: IResponse = await request.addTimeout(REPLY_TIMEOUT, self._reactor)
            raw = await _read_body(response).addTimeout(REPLY_TIMEOUT, self._reactor)
        except Exception as error:
            explained = _explain(self._url, error)
            if explained is None:
                raise
            raise explained from error
        try:
            reply = json.loads(raw)
        except ValueError:
            reply = {}
        return response.code, reply if isinstance(reply, dict) else {}

    async def close(self) -> None:
        await self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]  # Twisted has no types here


def _fields(message: Outgoing) -> dict[str, Any]:
    """The body of the request: only what is asked for."""
    wishes: dict[str, Any] = {
        "content_type": message.content_type,
        "headers": dict(message.headers),
        "ttl": message.ttl,
        "expires_at": message.expires_at_ms,
        "deliver_at": message.deliver_at_ms,
        "priority": message.priority.name if message.priority else "",
        "collapse_key": message.collapse_key,
        "version": message.version,
        "want_receipt": message.want_receipt,
        "clear_on_processed": message.clear_on_processed,
        "idempotency_key": message.idempotency_key,
    }
    needed = {"channel": message.channel, "payload_base64": base64.b64encode(message.payload).decode()}
    return needed | {name: value for name, value in wishes.items() if value}


def _sent(reply: dict[str, Any]) -> Sent:
    """The answer to a publish. Raises KeyError, TypeError or ValueError if it is none."""
    return Sent(
        str(reply["message_id"]),
        str(reply["channel"]),
        int(reply["offset"]),
        int(reply["connections"]),
        bool(reply.get("duplicate")),
        bool(reply.get("superseded")),
        int(reply.get("deliver_at", 0)),
    )


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


def _refusal(status: int, reply: dict[str, Any]) -> Exception:
    """The exception for an answer that is no success: a problem of RFC 9457 with our code, if the server wrote it."""
    detail = str(reply.get("detail") or reply.get("title") or f"HTTP status {status}")
    if status == 401:
        return BadCredentials(f"the server does not know the REST key: {detail}")
    number = reply.get("code")
    if not isinstance(number, int):
        return Failure(f"the server answers {status}: {detail}")
    advice = CODES[Code(number)].advice if number in CODES else Advice.UNSPECIFIED
    wait = reply.get("retry_after", 0)
    return PublishRefused(number, advice, detail, float(wait) if isinstance(wait, (int, float)) else 0.0)


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
