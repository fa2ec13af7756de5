"""Where a host is: names are resolved by the reactor, and a new connection goes where none is yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

Address = IPv4Address | IPv6Address

MAX_ADDRESSES: Final = 32
"""Of one host. Apple's have some ten; an answer of a name server could hold thousands."""

_REMEMBERED_FAILURES: Final = 64


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self) -> None:
        self.found: list[Address] = []
        self.done: Deferred[list[Address]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Cannot be stopped with Twisted's resolver; what comes too late is not looked at."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address) and address not in self.found and len(self.found) < MAX_ADDRESSES:
            self.found.append(address)

    def resolutionComplete(self) -> None:
        if not self.done.called:
            self.done.callback(self.found)


class HostAddresses:
    """The addresses of one host. `resolver`: the reactor's `nameResolver`; an address in place of a name is passed through."""

    def __init__(self, resolver: IHostnameResolver, host: str, port: int) -> None:
        self._resolver = resolver
        self._host = host
        self._port = port
        self._known: list[Address] = []
        self._failed: list[str] = []  # the latest at the end

    async def find(self) -> list[Address]:
        """All of them; those found before, if the name cannot be resolved now. Empty: it never could be."""
        receiver = _Receiver()
        self._resolver.resolveHostName(receiver, self._host, self._port, transportSemantics="TCP")
        found = await receiver.done
        self._known = found or self._known
        return list(self._known)

    def ranked(self, found: Sequence[Address], in_use: Collection[str]) -> list[Address]:
        """In the order in which to try them: those without a connection first, those that failed lately last."""
        return sorted(found, key=lambda each: (self._failures(each), each.host in in_use))

    def failed(self, address: Address) -> None:
        """It could not be connected to."""
        self.succeeded(address)
        self._failed = [*self._failed[-_REMEMBERED_FAILURES:], address.host]

    def succeeded(self, address: Address) -> None:
        """It could."""
        if address.host in self._failed:
            self._failed.remove(address.host)

    def _failures(self, address: Address) -> int:
        return self._failed.index(address.host) + 1 if address.host in self._failed else 0
