"""Which nodes there are, and what is wished of them, in Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streampush.push.values import KnownNode, NodeOrder, NodeRecord, NodeState
from streampush.store.redis.scripts import Scripts


class RedisNodes:
    """push.store_ports.NodeStore."""

    _scripts: Scripts
    _wall_ms: Callable[[], int]

    async def announce_node(self, record: NodeRecord, until_ms: int) -> NodeOrder:
        facts = (
            record.state.value,
            record.address,
            record.version,
            record.connections,
            record.cap,
            record.handshakes_per_second,
            record.free_per_second,
            record.is_measured,
            record.leaving,
        )
        drains = record.state is NodeState.DRAINING
        announced = (record.name, record.started_at_ms, facts, until_ms, self._wall_ms(), drains)
        return _order(*await self._scripts.run("announce_node", *announced))

    async def retire_node(self, name: str, started_at_ms: int) -> None:
        await self._scripts.run("retire_node", name, started_at_ms, self._wall_ms())

    async def nodes(self) -> Sequence[KnownNode]:
        found = [_known(name.decode(), *rest) for name, *rest in await self._scripts.run("nodes", self._wall_ms())]
        return sorted(found, key=lambda known: known.record.name)

    async def order_drain(self, name: str, *, drain: bool) -> bool:
        return bool(await self._scripts.run("order_drain", name, drain, self._wall_ms()))

    async def order_move(self, name: str, move_id: str, keep: int) -> bool:
        return bool(await self._scripts.run("order_move", name, move_id, keep, self._wall_ms()))


def _known(name: str, started_at_ms: int, facts: Sequence[Any], namesakes: Sequence[Any], *order: Any) -> KnownNode:
    others = sorted(namesakes, key=lambda one: int(one[0]))
    named = tuple(_record(name, started, *facts_of) for started, facts_of in others)
    return KnownNode(_record(name, started_at_ms, *facts), _order(*order), named)


def _order(drain: bool, move_id: bytes, keep: int) -> NodeOrder:
    return NodeOrder(drain, move_id.decode(), keep)


def _record(name: str, started_at_ms: int, state: bytes, address: bytes, version: bytes, *figures: Any) -> NodeRecord:
    connections, cap, handshakes, free, is_measured, leaving = figures
    return NodeRecord(
        name,
        started_at_ms,
        NodeState(state.decode()),
        address.decode(),
        version.decode(),
        connections,
        cap,
        float(handshakes),
        float(free),
        is_measured,
        leaving,
    )
