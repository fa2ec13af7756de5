"""How a connection comes about: names, TCP, perhaps a proxy, TLS."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final
from typing import Protocol as Port

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from streampush.apns.addresses import Address, HostAddresses
from streampush.apns.link import Link
from streampush.apns.link_ports import Security
from streampush.apns.link_state import LinkEnd
from streampush.apns.proxy import Proxy, ProxyRefused, Tunnel
from streampush.apns.tls import Http2Tls

_log: Final = Logger()

WRITE_AHEAD: Final = 512 * 1024
"""Bytes that the transport holds before its connection takes no more requests: some nine hundred pushes, about what one turn of the
reactor brings at full speed. What it holds cannot be taken back when the connection ends; Twisted's own 64 KiB sent three of four
pushes through the queue."""

_PERMANENT_STATUSES: Final = frozenset({401, 403, 405, 407})
"""With which a proxy says that it will not, whoever asks again."""


class Dialer(Port):
    """Makes transports for links."""

    security: Security

    def dial(self, link: Link, in_use: Collection[str]) -> Deferred[None]:
        """Begins; never fails: the link is told. To cancel it ends what has begun. `in_use`: addresses that have a connection."""


class _OneProtocol(Factory):
    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol


class TlsDialer:
    """The real one. `reactor`: IReactorTCP, IReactorTime and IReactorPluggableNameResolver. `attempt_timeout`: seconds, see
    PoolLimits.
    """

    def __init__(
        self, reactor: Any, host: str, port: int, tls: Http2Tls, attempt_timeout: float, proxy: Proxy | None = None
    ) -> None:
        self.security: Security = tls
        self._reactor = reactor
        self._host = host
        self._port = port
        self._creator = tls.creator
        self._attempt_timeout = attempt_timeout
        self._proxy = proxy
        near = (proxy.host, proxy.port) if proxy is not None else (host, port)
        self._addresses = HostAddresses(reactor.nameResolver, *near)

    def dial(self, link: Link, in_use: Collection[str]) -> Deferred[None]:
        dialing = Deferred.fromCoroutine(self._dial(link, in_use))
        dialing.addErrback(self._broken, link)
        return dialing

    def _broken(self, reason: Failure, link: Link) -> None:
        if not isinstance(reason.value, CancelledError | ConnectingCancelledError):
            _log.failure("A connection could not be begun", failure=reason)
            link.dialing_failed(LinkEnd("the connection could not be begun"))

    async def _dial(self, link: Link, in_use: Collection[str]) -> None:
        near = self._proxy.host if self._proxy is not None else self._host
        try:
            found = await self._addresses.find()
        except DNSLookupError:
            found = []
        if not found:
            link.dialing_failed(LinkEnd(f"{near}: no address"))
            return
        text = ""
        for address in self._addresses.ranked(found, in_use):
            link.address = address.host
            try:
                await self._attempt(link, address)
            except ConnectError as error:
                self._addresses.failed(address)
                text = f"{near} ({address.host} port {address.port}): {type(error).__doc__ or type(error).__name__}"
            except ProxyRefused as error:
                link.dialing_failed(LinkEnd(str(error), permanent=error.status in _PERMANENT_STATUSES))
                return
            else:
                self._addresses.succeeded(address)
                return
        link.dialing_failed(LinkEnd(text))

    async def _attempt(self, link: Link, address: Address) -> None:
        tls = TLSMemoryBIOFactory(self._creator, True, _OneProtocol(link), clock=self._reactor)
        kind = TCP4ClientEndpoint if address.type == "TCP" and ":" not in address.host else TCP6ClientEndpoint
        endpoint = kind(self._reactor, address.host, address.port, timeout=self._attempt_timeout)
        if self._proxy is None:
            secure: Any = await endpoint.connect(tls)
            secure.transport.bufferSize = WRITE_AHEAD
            return
        inner = tls.buildProtocol(address)
        tunnel = Tunnel(self._proxy.request(self._host, self._port), inner)
        await endpoint.connect(_OneProtocol(tunnel))
        transport: Any = tunnel.transport
        transport.bufferSize = WRITE_AHEAD
        await tunnel.opened
