"""What the commands of the nodes print; the commands themselves are in tests/integration/test_draining.py."""

from __future__ import annotations

from typing import Any

import pytest

from streampush.cli.nodes import outlook, render_moves, render_nodes

NODE: dict[str, Any] = {
    "name": "node-1",
    "state": "serving",
    "drain": False,
    "address": "n1:7443",
    "version": "1",
    "started_at_ms": 7,
    "connections": 1200,
    "cap": 10000,
    "leaving": 0,
    "handshakes_per_second": 480.2,
    "free_per_second": 470.0,
    "is_measured": True,
    "namesakes": [],
}


def test_nodes_are_a_table() -> None:
    rows = [NODE, NODE | {"name": "b", "is_measured": False, "connections": 3}]
    assert list(render_nodes(rows)) == [
        "name    state    connections    cap  leaving  handshakes/s  free/s  address",
        "node-1  serving         1200  10000        0           480     470  n1:7443",
        "b       serving            3  10000        0          480*     470  n1:7443",
    ]


def test_a_second_process_of_one_name_is_said() -> None:
    row = NODE | {"namesakes": [{"address": "\x1bn2:7443", "started_at_ms": 5}]}
    assert list(render_nodes([row]))[2:] == [
        'another process serves as node-1, started earlier: "\\u001bn2:7443".'
        " If no upgrade is under way, set node.name of one of them"
    ]


def test_no_node_is_said() -> None:
    assert list(render_nodes([]))[-1] == "no node has announced itself"


def test_an_order_that_was_not_heard_yet_is_shown() -> None:
    told = [NODE | {"drain": True}, NODE | {"state": "draining"}, NODE | {"state": "draining", "drain": True}]
    states = [line.partition("node-1")[2].split("  ")[1] for line in list(render_nodes(told))[1:]]
    assert states == ["serving, told to drain", "draining, told to serve", "draining"]


def test_nothing_of_a_server_goes_to_the_terminal_as_it_is() -> None:
    assert all(line.isprintable() for line in render_nodes([NODE | {"name": "\x1b[2J", "state": "\x07", "address": "\n"}]))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "no other node takes connections: they stay until one does, or until the node is stopped"),
        ([NODE | {"state": "draining"}], "no other node takes connections: they stay until one does, or until the node is stopped"),
        ([NODE], "the others take 470 a second: about 3 s"),
        ([NODE | {"cap": 2000}], "the others have room for 800: the rest stays until there is more"),
        ([NODE | {"free_per_second": 0.0}], "the others take slowly, they are busy"),
    ],
)
def test_what_a_drain_will_take_is_said(others: list[dict[str, Any]], said: str) -> None:
    assert outlook(NODE["connections"], others) == said


def test_a_plan_is_told_from_what_is_done() -> None:
    moves = [{"node": "node-1", "connections": 1}]
    assert list(render_moves({"moves": moves, "dry_run": True})) == ["node-1 would send 1 connection elsewhere"]
    assert list(render_moves({"moves": moves, "dry_run": False})) == ["node-1 sends 1 connection elsewhere"]
