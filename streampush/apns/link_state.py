"""The life of a connection, and how one ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class LinkState(Enum):
    """Only forward: see `may_follow`."""

    CONNECTING = "connecting"
    """Names, TCP, proxy, TLS."""
    PROBING = "probing"
    """HTTP/2 began; few requests until the first answer."""
    OPEN = "open"
    DRAINING = "draining"
    """No new requests; those under way go on to their answers."""
    CLOSED = "closed"


_NEXT: dict[LinkState, frozenset[LinkState]] = {
    LinkState.CONNECTING: frozenset({LinkState.PROBING, LinkState.CLOSED}),
    LinkState.PROBING: frozenset({LinkState.OPEN, LinkState.DRAINING, LinkState.CLOSED}),
    LinkState.OPEN: frozenset({LinkState.DRAINING, LinkState.CLOSED}),
    LinkState.DRAINING: frozenset({LinkState.CLOSED}),
    LinkState.CLOSED: frozenset(),
}


def may_follow(old: LinkState, new: LinkState) -> bool:
    """Whether a connection may go from one to the other."""
    return new in _NEXT[old]


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Why a connection is over. `text`: safe to log.

    `permanent`: it will be the same the next time, unless somebody changes something: a certificate, a host that speaks no HTTP/2.
    `answered`: it was of use: at least one answer came. `ours`: we wanted it to end.
    """

    text: str
    permanent: bool = False
    answered: bool = False
    ours: bool = False
