"""What is counted of what nodes tell each other, on an injected Prometheus registry; see observe/metrics.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from streampush.observe.tallies import Tally

HEARD = ("publication", "hint", "receipt", "order", "echo")
"""Kinds of messages that come: with the whole publication, with its place only, that something became of a message that is watched
here, orders about devices, this node's own echo."""

LOST = ("connection", "silent", "refused")
SENT = ("order", "echo", "lost")


class BusFigures:
    """The figures of one node, for the reactor's thread. Raises ValueError if the registry has metrics of these names already."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._heard = Tally("streampush_bus_heard_total", "Messages of nodes, this one too, that came.", ("kind",), (HEARD,))
        self._bytes = Tally("streampush_bus_heard_bytes_total", "Bytes of these messages.", ("kind",), (HEARD,))
        self._sent = Tally("streampush_bus_sent_total", "Orders and echoes that were sent, or lost with Redis.", ("kind",), (SENT,))
        self._lost = Tally("streampush_bus_lost_total", "Times that other nodes could not be heard any more.", ("kind",), (LOST,))
        registry.register(self)

    def bus_heard(self, kind: str, size: int) -> None:
        """A message of so many bytes came."""
        self._heard.add(kind)
        self._bytes.add(kind, amount=size)

    def bus_sent(self, kind: str) -> None:
        """One was sent, or was lost."""
        self._sent.add(kind)

    def bus_lost(self, kind: str) -> None:
        """Nothing is heard any more, or cannot be yet."""
        self._lost.add(kind)

    def describe(self) -> Iterable[Metric]:
        """For the registry, which checks the names at registration."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry, at every scrape."""
        for tally in (self._heard, self._bytes, self._sent, self._lost):
            yield tally.export()
