"""The orders at work: which of them apply to this connection, to this request."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar

from streampush.apns.simulator.floods import flood
from streampush.apns.simulator.orders import (
    AgeEnd,
    Close,
    ConnectionOrder,
    Delay,
    DropLimit,
    Flood,
    Freeze,
    GoAway,
    GoAwayAtOnce,
    Http11,
    IdleEnd,
    OneStreamFirst,
    Order,
    Orders,
    RequestOrder,
    StopReading,
    TinyWindows,
    UseTable,
    When,
)

_OF_CONNECTIONS: Final = (GoAway, Close, Freeze, StopReading, Flood)
_OF_BEGINNINGS: Final = (OneStreamFirst, DropLimit, TinyWindows, UseTable, AgeEnd, IdleEnd, GoAwayAtOnce, Http11)

_Kind = TypeVar("_Kind", bound=Order)


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a connection is to begin, and what holds as long as it lasts. `number`: the connection's, from 1."""

    number: int
    http11: bool = False
    go_away: GoAwayAtOnce | None = None
    one_stream: OneStreamFirst | None = None
    drop_limit: DropLimit | None = None
    tiny_windows: TinyWindows | None = None
    idle: IdleEnd | None = None
    age: AgeEnd | None = None
    use_table: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen to one request: how it ends (None: as it should), seconds later, and what befalls its connection."""

    ending: RequestOrder | None = None
    delay: float = 0.0
    events: tuple[ConnectionOrder, ...] = ()


_AS_IT_SHOULD: Final = Plan()


class OrderBook:
    """Counts connections and requests and says what is ordered for each.

    Every order draws from a source of its own, so that one more order does not change what the others do.
    """

    __slots__ = ("_connections", "_draws", "_orders", "_requests", "_whens")

    def __init__(self, orders: Orders) -> None:
        self._orders = orders.orders
        self._whens = [Random(f"{orders.seed} {index} when") for index in range(len(self._orders))]  # noqa: S311  # must repeat
        self._draws = [Random(f"{orders.seed} {index} draw") for index in range(len(self._orders))]  # noqa: S311
        self._connections = 0
        self._requests = 0

    def begin_connection(self) -> Beginning:
        """The next connection."""
        self._connections += 1
        return Beginning(
            number=self._connections,
            http11=self._first(Http11) is not None,
            go_away=self._first(GoAwayAtOnce),
            one_stream=self._first(OneStreamFirst),
            drop_limit=self._first(DropLimit),
            tiny_windows=self._first(TinyWindows),
            idle=self._first(IdleEnd),
            age=self._first(AgeEnd),
            use_table=self._first(UseTable) is not None,
        )

    def begin_request(self, on_connection: int) -> Plan:
        """The next request, which is that of its connection with the number `on_connection`."""
        self._requests += 1
        if not self._orders:
            return _AS_IT_SHOULD
        ending: RequestOrder | None = None
        delay = 0.0
        events: list[ConnectionOrder] = []
        for index, order in enumerate(self._orders):
            if isinstance(order, _OF_BEGINNINGS) or not self._applies(index, order.when, on_connection):
                continue
            if isinstance(order, Delay):
                delay += order.draw(self._draws[index])
            elif isinstance(order, _OF_CONNECTIONS):
                events.append(order)
            else:
                ending = ending or order
        return Plan(ending, delay, tuple(events))

    def garbage(self, size: int) -> bytes:
        """Random bytes of the seed that no reader takes for frames: they announce one that is longer than any limit."""
        return b"\xff\xff\xff" + Random(f"{size} garbage").randbytes(max(size - 3, 0))  # noqa: S311

    def flood(self, order: Flood, stream_id: int) -> bytes:
        """The frames of this one of the orders."""
        return flood(order, stream_id, self._draws[self._orders.index(order)])

    def _applies(self, index: int, when: When, on_connection: int) -> bool:
        return when.applies(on_connection if when.per_connection else self._requests, self._whens[index])

    def _first(self, kind: type[_Kind]) -> _Kind | None:
        """The first order of that kind that applies to this connection."""
        for index, order in enumerate(self._orders):
            if isinstance(order, kind):
                when = getattr(order, "when", None)
                if when is None or when.applies(self._connections, self._whens[index]):
                    return order
        return None
