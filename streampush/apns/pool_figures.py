"""What there is in a pool at a moment, for metrics and `streampush apns status`."""

from __future__ import annotations

from dataclasses import dataclass

from streampush.apns.link import Link
from streampush.apns.link_state import LinkState
from streampush.apns.timeline import Moment


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """A connection now. `round_trip`: seconds of the last PING, None if there was none. `moments`: its timeline."""

    number: int
    address: str
    state: LinkState
    in_flight: int
    sent: int
    answers: int
    round_trip: float | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """A pool now. `resting`: refused requests that wait for their next try. `fault`: why there is no connection, or empty;
    `permanent`: it will be the same again unless somebody changes something. `failures`: tries to connect in a row."""

    queued: int
    queued_bytes: int
    resting: int
    in_flight: int
    room: int
    fault: str
    permanent: bool
    failures: int
    links: tuple[LinkFigures, ...]
    past: tuple[LinkFigures, ...]


def figures_of(link: Link) -> LinkFigures:
    """Of one connection."""
    return LinkFigures(
        number=link.number,
        address=link.address,
        state=link.state,
        in_flight=link.in_flight,
        sent=link.sent,
        answers=link.answers,
        round_trip=link.round_trip,
        moments=link.timeline.moments(),
    )
