"""How many handshakes a node can make, and whom it has told when to come back, on an injected Prometheus registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Capacity(Protocol):
    """`server.capacity.HandshakeCapacity` is one."""

    @property
    def full_cost(self) -> float: ...

    @property
    def resumed_cost(self) -> float: ...

    @property
    def rest_cost(self) -> float: ...

    @property
    def per_second(self) -> float: ...

    def free(self, now: float) -> float: ...


class Promises(Protocol):
    """`server.governor.Governor` is one."""

    @property
    def capacity(self) -> Capacity: ...

    def promised(self, now: float) -> int: ...


class Door(Protocol):
    """`server.admission.Admission` is one."""

    @property
    def draining(self) -> bool: ...

    @property
    def cap(self) -> int: ...


class OneName(Protocol):
    """`server.namesakes.Namesakes` is one."""

    @property
    def number(self) -> int: ...


class NodeFigures(Collector):
    """`clock` gives monotonic seconds."""

    def __init__(self, governor: Promises, door: Door, one_name: OneName, clock: Callable[[], float]) -> None:
        self._governor = governor
        self._door = door
        self._one_name = one_name
        self._clock = clock

    def describe(self) -> Iterator[Metric]:
        """Names and labels do not change."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        now = self._clock()
        capacity = self._governor.capacity
        cost = GaugeMetricFamily("streampush_handshake_cpu_seconds", "CPU time of a handshake, and of the rest.", labels=("kind",))
        cost.add_metric(("full",), capacity.full_cost)
        cost.add_metric(("resumed",), capacity.resumed_cost)
        cost.add_metric(("rest",), capacity.rest_cost)
        yield cost
        for name, text, value in (
            ("handshake_capacity", "Clients that the node can take in a second.", capacity.per_second),
            ("handshakes_free", "What is left of that beside those of the last seconds.", capacity.free(now)),
            ("slots_promised", "Clients that were told when to come back, and have not had to yet.", self._governor.promised(now)),
            ("node_draining", "Whether the node takes no new connections.", int(self._door.draining)),
            ("connections_cap", "Connections that the node takes at most.", self._door.cap),
            ("node_namesakes", "Other processes that serve under the name of this node.", self._one_name.number),
        ):
            yield GaugeMetricFamily(f"streampush_{name}", text, value)
