"""An HTTP/2 client for Twisted: an IAgent, so that treq and whatever else takes one work over it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from streampush.apns.agent_errors import BadRequest, RequestNotSent
from streampush.apns.agent_exchange import AgentExchange
from streampush.apns.agent_limits import AgentLimits
from streampush.apns.dialing import TlsDialer
from streampush.apns.errors import BadCredential
from streampush.apns.exchange import Fault
from streampush.apns.http2 import Verdict
from streampush.apns.outcome import Why
from streampush.apns.pool import Pool
from streampush.apns.pool_figures import PoolFigures
from streampush.apns.ports import ApnsMetrics
from streampush.apns.proxy import Proxy
from streampush.apns.request_fields import Target, encode_request, target_of
from streampush.apns.response import SentRequest
from streampush.apns.tls import ClientCredential, Http2Tls

_Place: TypeAlias = tuple[str, int]


@implementer(IAgent)
class H2Agent:
    """Requests over TLS and HTTP/2 only (`https`, ALPN `h2`), many on one connection.

    `reactor`: IReactorTCP, IReactorTime and IReactorPluggableNameResolver. `credential`: the client certificate, None: none.
    `trust`: certificates of the authorities in PEM, None: those of the platform. `proxy`: an HTTP proxy (CONNECT).

    The server's certificate must name the host. A request that the server certainly did not act on is made again by itself; each
    ends within its deadline (AgentLimits). Not done: HTTP/1.1, 100-continue, server push.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        credential: ClientCredential | None = None,
        trust: bytes | None = None,
        proxy: Proxy | None = None,
        limits: AgentLimits | None = None,
        metrics: ApnsMetrics | None = None,
    ) -> None:
        self._reactor = reactor
        self._credential = credential
        self._trust = trust
        self._proxy = proxy
        self._limits = limits or AgentLimits()
        self._metrics = metrics
        self._pools: OrderedDict[_Place, Pool] = OrderedDict()  # the one used latest at the end
        self._leaving: set[Pool] = set()
        self._stopping = False

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See IAgent. Connection-specific fields, Content-Length and Expect of the caller are dropped; Host becomes `:authority`.

        Fails with BadRequest, RequestNotSent, RequestRefused, AnswerNeverCame, BodyFailed, or CancelledError; a response whose
        body breaks off ends with ResponseFailed, whose reason is one of them.
        """
        try:
            target = target_of(uri)
            length = _length_of(method, bodyProducer)
            block = encode_request(method, target, headers, length)
            pool = self._pool(target)
        except (BadRequest, RequestNotSent, BadCredential) as error:
            return fail(error)
        sent = SentRequest(method, uri, headers.copy() if headers is not None else Headers())
        exchange = AgentExchange(pool, self._reactor, self._limits, block, sent, bodyProducer)
        exchange.submit()
        return exchange.response

    def figures(self) -> dict[str, PoolFigures]:
        """What there is now, by "host:port"."""
        return {f"{host}:{port}": pool.figures() for (host, port), pool in self._pools.items()}

    def stop(self) -> Deferred[None]:
        """Takes no more requests; fires when all connections are closed. What is under way has some time (drain_timeout)."""
        self._stopping = True
        pools = [*self._pools.values(), *self._leaving]
        self._pools.clear()
        return DeferredList([pool.stop() for pool in pools]).addCallback(lambda _: None)

    def _pool(self, target: Target) -> Pool:
        if self._stopping:
            raise RequestNotSent(Fault(Verdict.NOT_WRITTEN, Why.STOPPING, "the agent is stopping"))
        place = (target.host, target.port)
        pool = self._pools.get(place)
        if pool is None:
            self._make_room()
            pool = self._pools[place] = self._make_pool(target)
        self._pools.move_to_end(place)
        return pool

    def _make_pool(self, target: Target) -> Pool:
        tls = Http2Tls(target.host, self._credential, self._trust)
        limits = self._limits.pool
        dialer = TlsDialer(self._reactor, target.host, target.port, tls, limits.attempt_timeout, self._proxy)
        return Pool(dialer, self._reactor, limits=limits, http2=self._limits.http2, metrics=self._metrics, automatic_windows=False)

    def _make_room(self) -> None:
        """Ends the pool that was not used longest, if there are too many."""
        if len(self._pools) < self._limits.max_hosts:
            return
        for place, pool in self._pools.items():
            if pool.idle:
                del self._pools[place]
                self._leaving.add(pool)
                pool.stop().addCallback(self._left, pool)
                return
        text = f"requests to {self._limits.max_hosts} hosts are under way"
        raise RequestNotSent(Fault(Verdict.NOT_WRITTEN, Why.QUEUE_FULL, text))

    def _left(self, _result: None, pool: Pool) -> None:
        self._leaving.discard(pool)


def _length_of(method: bytes, producer: IBodyProducer | None) -> int | None:
    """What to announce: a request that usually has a body and has none says so (RFC 9110 section 8.6)."""
    if producer is None:
        return 0 if method in (b"POST", b"PUT", b"PATCH") else None
    if producer.length == UNKNOWN_LENGTH:
        return None
    return int(producer.length)
