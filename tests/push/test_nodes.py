"""Orders to nodes, and who has more than its share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.push.nodes import Move, Nodes, UnknownNode, plan
from streampush.push.values import NodeOrder, NodeRecord, NodeState
from streampush.store.memory import MemoryStore


def node(name: str, connections: int, cap: int = 100, state: NodeState = NodeState.SERVING) -> NodeRecord:
    return NodeRecord(name, 1, state, connections=connections, cap=cap)


@pytest.mark.parametrize(
    ("nodes", "moves"),
    [
        ([], []),
        ([node("a", 50)], []),
        ([node("a", 50), node("b", 50)], []),
        ([node("a", 60), node("b", 0)], [Move("a", 30, 30)]),
        ([node("a", 51), node("b", 50)], []),
        ([node("a", 90, 300), node("b", 0, 100)], [Move("a", 22, 68)]),
        ([node("a", 90), node("b", 90), node("c", 0)], [Move("a", 30, 60), Move("b", 30, 60)]),
        ([node("a", 60), node("b", 0, state=NodeState.DRAINING)], []),
        ([node("a", 60), node("b", 0, state=NodeState.STARTING)], []),
        ([node("a", 60), node("b", 0, cap=0)], []),
    ],
)
def test_who_is_above_its_share_sends_the_surplus(nodes: list[NodeRecord], moves: list[Move]) -> None:
    assert plan(nodes) == moves


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 500)), max_size=8))
def test_a_plan_never_moves_more_than_needed(sizes: list[tuple[int, int]]) -> None:
    nodes = [node(f"n{number}", min(connections, cap), cap) for number, (connections, cap) in enumerate(sizes)]
    total, caps = sum(one.connections for one in nodes), sum(one.cap for one in nodes)
    moves = {move.node: move.connections for move in plan(nodes)}
    for one in nodes:
        share = total * one.cap / caps
        left = one.connections - moves.get(one.name, 0)
        assert one.name not in moves or left >= share - 1e-6
        assert left <= max(one.connections, share + 1)
    lacking = sum(max(0.0, total * one.cap / caps - one.connections) for one in nodes)
    assert sum(moves.values()) <= lacking + 1e-6


class NodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore(StoreConfig(), lambda: 0, lambda: "e")
        self.nodes = Nodes(self.store, lambda: "id")
        for record in (node("node-1", 60), node("node-2", 0)):
            self.successResultOf(Deferred.fromCoroutine(self.store.announce_node(record, 100)))

    def orders(self) -> list[NodeOrder]:
        return [known.order for known in self.successResultOf(Deferred.fromCoroutine(self.nodes.all()))]

    def test_a_node_is_drained_and_serves_again(self) -> None:
        known = self.successResultOf(Deferred.fromCoroutine(self.nodes.drain("node-2")))
        self.assertEqual((known.record.name, known.order), ("node-2", NodeOrder(drain=True)))
        self.assertEqual(self.orders(), [NodeOrder(), NodeOrder(drain=True)])
        known = self.successResultOf(Deferred.fromCoroutine(self.nodes.undrain("node-2")))
        self.assertEqual(known.order, NodeOrder())

    def test_a_node_that_is_not_there_is_unknown_with_names_that_are_near(self) -> None:
        for order in (self.nodes.drain, self.nodes.undrain):
            failure = self.failureResultOf(Deferred.fromCoroutine(order("node-3")), UnknownNode)
            self.assertEqual(failure.value.near, ("node-1", "node-2"))

    def test_rebalancing_tells_those_above_their_share(self) -> None:
        moves = self.successResultOf(Deferred.fromCoroutine(self.nodes.rebalance(dry_run=False)))
        self.assertEqual(moves, [Move("node-1", 30, 30)])
        self.assertEqual(self.orders(), [NodeOrder(move_id="id", keep=30), NodeOrder()])

    def test_a_dry_run_tells_nobody(self) -> None:
        moves = self.successResultOf(Deferred.fromCoroutine(self.nodes.rebalance(dry_run=True)))
        self.assertEqual(moves, [Move("node-1", 30, 30)])
        self.assertEqual(self.orders(), [NodeOrder(), NodeOrder()])
