"""The HTTP API of the nodes: which there are and how they stand, drain, serve again, rebalance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from streampush.push.nodes import UnknownNode
from streampush.push.values import KnownNode, NodeState
from streampush.rest import fields
from streampush.rest.calls import Call, Operation, Route
from streampush.rest.ports import NodesApi
from streampush.rest.problems import Answer, Problem, json_answer

ROUTES = (
    Route("GET", "/v1/nodes", "list_nodes", "nodes"),
    Route("POST", "/v1/nodes/<string:name>/drain", "drain_node", "nodes"),
    Route("POST", "/v1/nodes/<string:name>/undrain", "undrain_node", "nodes"),
    Route("POST", "/v1/nodes/rebalance", "rebalance", "nodes"),
)


class NodeOperations:
    """One instance serves all requests. The methods raise Problem and Refused."""

    def __init__(self, nodes: NodesApi) -> None:
        self._nodes = nodes

    def operations(self) -> dict[str, Operation]:
        """The methods by the names of their routes."""
        return {
            "list_nodes": self._list,
            "drain_node": self._drain,
            "undrain_node": self._undrain,
            "rebalance": self._rebalance,
        }

    async def _list(self, call: Call) -> Answer:
        return json_answer({"nodes": [document(node) for node in await self._nodes.all()]})

    async def _drain(self, call: Call) -> Answer:
        try:
            return json_answer(document(await self._nodes.drain(call.arguments["name"])))
        except UnknownNode as error:
            raise _unknown(error) from error

    async def _undrain(self, call: Call) -> Answer:
        try:
            return json_answer(document(await self._nodes.undrain(call.arguments["name"])))
        except UnknownNode as error:
            raise _unknown(error) from error

    async def _rebalance(self, call: Call) -> Answer:
        given = fields.parse_object(call.body) if call.body else {}
        fields.only(given, ("dry_run",))
        dry_run = fields.flag(given, "dry_run")
        moves = await self._nodes.rebalance(dry_run=dry_run)
        return json_answer({"moves": [asdict(move) for move in moves], "dry_run": dry_run})


def document(node: KnownNode) -> dict[str, Any]:
    """In the words of the schema Node. `drain` is what is wished: a node hears of it some seconds later."""
    record = node.record
    return {
        "name": record.name,
        "state": record.state.value,
        "drain": node.order.drain,
        "address": record.address,
        "version": record.version,
        "started_at_ms": record.started_at_ms,
        "connections": record.connections,
        "cap": record.cap,
        "leaving": record.connections if record.state is NodeState.DRAINING else record.leaving,
        "handshakes_per_second": record.handshakes_per_second,
        "free_per_second": record.free_per_second,
        "is_measured": record.is_measured,
        "namesakes": [{"address": one.address, "started_at_ms": one.started_at_ms} for one in node.namesakes],
    }


def _unknown(error: UnknownNode) -> Problem:
    meant = f"; did you mean {' or '.join(error.near)}?" if error.near else ""
    workers = f"; its workers do, each as a node: {', '.join(error.workers)}" if error.workers else ""
    together = f"; `streampush` commands take them all as '{error.name}-*'" if error.workers else ""
    return Problem(404, f"no node of this name lives{workers}{together}{meant}", field="name")
