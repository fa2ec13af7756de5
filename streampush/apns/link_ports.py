"""What a connection asks of those around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure

from streampush.apns.exchange import Exchange, Fault
from streampush.apns.link_state import LinkEnd, LinkState

if TYPE_CHECKING:
    from streampush.apns.link import Link


class Security(Protocol):
    """Whether the other side is who it should be, and what a failed handshake means."""

    def check(self, transport: ITransport) -> str | None:
        """After the handshake: what is wrong with the server, or None."""

    def explain(self, reason: Failure) -> LinkEnd | None:
        """What the end of a connection says about certificates and TLS; None: nothing."""


class LinkOwner(Protocol):
    """What a link asks of its pool. All but `exchange_returned` come at the end of a turn, and may call the link."""

    def link_ready(self) -> None:
        """There may be room for more."""

    def link_moved(self, link: Link, old: LinkState) -> None:
        """Its state changed."""

    def link_worn(self, link: Link, why: str) -> None:
        """It should be replaced: it is old, or its stream ids come to an end. Told once."""

    def link_idle(self, link: Link) -> None:
        """It was not used for `PoolLimits.idle_timeout`. Comes again."""

    def link_gone_away(self, link: Link, code: int) -> None:
        """The server sent GOAWAY."""

    def link_closed(self, link: Link, end: LinkEnd) -> None:
        """It is over; the last call. All its exchanges were returned."""

    def exchange_returned(self, exchange: Exchange, fault: Fault) -> None:
        """It ended without an answer; the owner tells the exchange, or sends it again."""
