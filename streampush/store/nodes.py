"""The nodes of a store that one process has for itself: there is one, which tells and is told through here all the same.

Both stores of one process answer push.store_ports.NodeStore from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from streampush.push.values import KnownNode, NodeOrder, NodeRecord, NodeState


class OneProcessNodes:
    """push.store_ports.NodeStore, for the store of one process to inherit. `wall_ms` gives Unix milliseconds."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._node_clock = wall_ms
        self._nodes: dict[str, tuple[KnownNode, int]] = {}  # with the time until which it lives
        self._namesakes: dict[tuple[str, int], tuple[NodeRecord, int]] = {}  # by name and start; likewise

    async def announce_node(self, record: NodeRecord, until_ms: int) -> NodeOrder:
        known = self._living().get(record.name)
        order = NodeOrder(drain=record.state is NodeState.DRAINING)
        self._namesakes.pop((record.name, record.started_at_ms), None)
        if known is not None:
            if known.record.started_at_ms > record.started_at_ms:
                if record.state is not NodeState.DRAINING:
                    self._namesakes[record.name, record.started_at_ms] = record, until_ms
                return NodeOrder()
            if known.record.started_at_ms == record.started_at_ms:
                order = known.order
        self._nodes[record.name] = KnownNode(record, order), until_ms
        return order

    async def retire_node(self, name: str, started_at_ms: int) -> None:
        self._namesakes.pop((name, started_at_ms), None)
        known = self._living().get(name)
        if known is not None and known.record.started_at_ms == started_at_ms:
            del self._nodes[name]

    async def nodes(self) -> Sequence[KnownNode]:
        now_ms = self._node_clock()
        self._namesakes = {key: entry for key, entry in self._namesakes.items() if entry[1] > now_ms}
        living = sorted(self._living().items())
        return [
            replace(known, namesakes=tuple(record for (of, _), (record, _) in sorted(self._namesakes.items()) if of == name))
            for name, known in living
        ]

    async def order_drain(self, name: str, *, drain: bool) -> bool:
        return self._order(name, lambda order: replace(order, drain=drain))

    async def order_move(self, name: str, move_id: str, keep: int) -> bool:
        return self._order(name, lambda order: replace(order, move_id=move_id, keep=keep))

    def _order(self, name: str, change: Callable[[NodeOrder], NodeOrder]) -> bool:
        known = self._living().get(name)
        if known is None:
            return False
        _, until_ms = self._nodes[name]
        self._nodes[name] = replace(known, order=change(known.order)), until_ms
        return True

    def _living(self) -> dict[str, KnownNode]:
        """Those that live, by name; the others are forgotten."""
        now_ms = self._node_clock()
        self._nodes = {name: entry for name, entry in self._nodes.items() if entry[1] > now_ms}
        return {name: known for name, (known, _) in self._nodes.items()}
