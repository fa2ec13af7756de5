"""The nodes of the deployment as an operator sees and orders them: drain, serve again, and a fair share for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streampush.push.near_names import MAX_NEAR, near_names
from streampush.push.store_ports import NodeStore
from streampush.push.values import KnownNode, NodeRecord, NodeState

MAX_WORKERS_NAMED = 5
"""Workers that are named when somebody asks for the node that they are of."""


class UnknownNode(Exception):
    """No node of this name lives. `near`: names that it may have been meant for; `workers`: nodes that are the workers of a node of
    this name."""

    def __init__(self, name: str, near: Sequence[str], workers: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.name = name
        self.near = tuple(near)
        self.workers = tuple(workers)


@dataclass(frozen=True, slots=True)
class Move:
    """A node has so many connections more than its share, which is `keep`."""

    node: str
    connections: int
    keep: int


class Nodes:
    """`wall_ms` gives Unix milliseconds, `new_id` a random id. The methods raise StoreUnavailable."""

    def __init__(self, store: NodeStore, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id

    async def all(self) -> Sequence[KnownNode]:
        """Those that live, in order of their names."""
        return await self._store.nodes()

    async def drain(self, name: str) -> KnownNode:
        """The node is to take no new connections, and to send its own elsewhere, until `undrain`, or until it starts anew. Raises
        UnknownNode."""
        return await self._ordered(name, drain=True)

    async def undrain(self, name: str) -> KnownNode:
        """The node is to serve again; who has left it stays where it is. Raises UnknownNode."""
        return await self._ordered(name, drain=False)

    async def rebalance(self, *, dry_run: bool) -> Sequence[Move]:
        """Orders, unless `dry_run`, each node that has more than its share to send the surplus elsewhere; gives what that is."""
        moves = plan([known.record for known in await self._store.nodes()])
        if moves and not dry_run:
            move_id = self._new_id()
            for move in moves:
                await self._store.order_move(move.node, move_id, move.keep)
        return moves

    async def _ordered(self, name: str, *, drain: bool) -> KnownNode:
        told = await self._store.order_drain(name, drain=drain)
        known = await self._store.nodes()
        found = next((node for node in known if node.record.name == name), None)
        if not told or found is None:
            names = [node.record.name for node in known]
            workers = [other for other in names if _is_worker(other, name)]
            raise UnknownNode(name, near_names(name, names, MAX_NEAR), workers[:MAX_WORKERS_NAMED])
        return found


def _is_worker(name: str, node: str) -> bool:
    """Whether a supervisor named this node for a worker of that one: NODE-1, NODE-2 and so on."""
    beginning, dash, number = name.rpartition("-")
    return bool(dash) and beginning == node and number.isdecimal()


def plan(nodes: Sequence[NodeRecord]) -> list[Move]:
    """What each node that serves has above its share of all their connections. Shares are by the nodes' caps.

    No more than those below their shares lack, and none from a node that is above by less than one connection.
    """
    serving = [node for node in nodes if node.state is NodeState.SERVING and node.cap > 0]
    connections, caps = sum(node.connections for node in serving), sum(node.cap for node in serving)
    surplus = {node.name: node.connections - _ceil(connections * node.cap, caps) for node in serving}
    wanting = sum(max(0, connections * node.cap // caps - node.connections) for node in serving)
    there = {node.name: node.connections for node in serving}
    moves = []
    for name, above in sorted(surplus.items(), key=lambda item: (-item[1], item[0])):
        number = min(above, wanting)
        if number > 0:
            wanting -= number
            moves.append(Move(name, number, there[name] - number))
    return moves


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
