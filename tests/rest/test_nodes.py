"""The nodes over the HTTP API."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from streampush.config import StoreConfig
from streampush.push.nodes import Nodes
from streampush.push.values import NodeRecord, NodeState
from streampush.rest.problems import JSON
from streampush.store.memory import MemoryStore
from tests.rest.support import READER, Api
from tests.rest.test_openapi import SCHEMAS, check

SHOWN = {
    "name": "node-1",
    "state": "serving",
    "drain": False,
    "address": "n1:7443",
    "version": "1",
    "started_at_ms": 7,
    "connections": 60,
    "cap": 100,
    "leaving": 2,
    "handshakes_per_second": 300.5,
    "free_per_second": 250.0,
    "is_measured": True,
    "namesakes": [],
}


def api(*others: NodeRecord) -> Api:
    store = MemoryStore(StoreConfig(), lambda: 0, lambda: "e")
    records = (
        NodeRecord("node-1", 7, NodeState.SERVING, "n1:7443", "1", 60, 100, 300.5, 250.0, is_measured=True, leaving=2),
        NodeRecord("node-2", 8, NodeState.DRAINING, connections=20, cap=100),
        NodeRecord("node-3", 9, connections=0, cap=100),
        *others,
    )
    for record in records:
        Deferred.fromCoroutine(store.announce_node(record, 100))
    return Api(nodes=Nodes(store, lambda: "id"))


def test_nodes_are_listed() -> None:
    document = api().request("GET", "/v1/nodes").json()
    check(document, SCHEMAS["Nodes"])
    assert document["nodes"][0] == SHOWN
    assert [(one["name"], one["state"], one["leaving"]) for one in document["nodes"]] == [
        ("node-1", "serving", 2),
        ("node-2", "draining", 20),
        ("node-3", "serving", 0),
    ]


def test_a_node_is_told_to_drain_and_to_serve() -> None:
    there = api()
    drained = there.request("POST", "/v1/nodes/node-1/drain").json()
    check(drained, SCHEMAS["Node"])
    assert drained == SHOWN | {"drain": True}
    assert there.request("POST", "/v1/nodes/node-1/undrain").json() == SHOWN


@pytest.mark.parametrize("order", ["drain", "undrain"])
def test_a_node_that_is_not_there_is_not_found_and_near_names_are_told(order: str) -> None:
    answer = api().request("POST", f"/v1/nodes/node-4/{order}")
    assert answer.status == 404
    problem = answer.json()
    assert problem["detail"] == "no node of this name lives; did you mean node-1 or node-2 or node-3?"
    assert problem["field"] == "name"
    assert api().request("POST", f"/v1/nodes/paris/{order}").json()["detail"] == "no node of this name lives"


@pytest.mark.parametrize("order", ["drain", "undrain"])
def test_whoever_names_a_node_of_workers_is_told_how_they_are_named(order: str) -> None:
    records = [NodeRecord(name, 1, NodeState.SERVING, cap=1) for name in ("n-1-1", "n-1-2", "n-1-x", "n-11-1")]
    answer = api(*records).request("POST", f"/v1/nodes/n-1/{order}")
    assert answer.status == 404
    said = (
        "no node of this name lives; its workers do, each as a node: n-1-1, n-1-2; `streampush` commands take them all as 'n-1-*'"
    )
    assert answer.json()["detail"] == said


def test_a_rebalance_says_what_it_moves() -> None:
    there = api()
    for body, dry_run in (({"dry_run": True}, True), (None, False)):
        document: Any = there.request("POST", "/v1/nodes/rebalance", body).json()
        check(document, SCHEMAS["Rebalanced"])
        assert document == {"moves": [{"node": "node-1", "connections": 30, "keep": 30}], "dry_run": dry_run}


def test_a_rebalance_refuses_what_it_does_not_know() -> None:
    assert api().request("POST", "/v1/nodes/rebalance", {"share": 1}).status == 400


def test_an_operators_scope_is_needed() -> None:
    there = api()
    for method, path in (("GET", "/v1/nodes"), ("POST", "/v1/nodes/node-1/drain"), ("POST", "/v1/nodes/rebalance")):
        assert there.request(method, path, key=READER).status == 403


def test_without_a_store_of_nodes_there_are_none() -> None:
    assert Api().request("GET", "/v1/nodes").json() == {"nodes": []}
    assert Api().request("POST", "/v1/nodes/rebalance").json() == {"moves": [], "dry_run": False}
    assert Api().request("POST", "/v1/nodes/a/drain").status == Api().request("POST", "/v1/nodes/a/undrain").status == 404
    assert Api().request("GET", "/v1/nodes").headers["content-type"] == JSON
