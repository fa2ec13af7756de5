"""Values of the nodes of a deployment: what a node says of itself, and what is wished of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


def run_name(node: str, run_id: str) -> str:
    """The name of one run of a node, from the start of a process to its end; `run_id` is of random letters and digits.

    The processes of an upgrade have one node name, and are two runs: each has its own connections.
    """
    return f"{node}/{run_id}"


def node_of(run: str) -> str:
    """The name of the node that the run is of."""
    node, slash, _ = run.rpartition("/")
    return node if slash else run


class NodeState(enum.StrEnum):
    """How a node stands, as it says itself."""

    STARTING = "starting"  # takes connections, and is not ready
    SERVING = "serving"
    DRAINING = "draining"  # takes no new connections, and sends its own elsewhere


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a node says of itself. `started_at_ms` tells one run of the node from the next.

    `address`: host and port for devices. `connections` of at most `cap`. `handshakes_per_second`: how many it can make;
    `free_per_second`: what is left of that beside those that it makes now. `is_measured`: these come from handshakes that it has
    made, not from an assumption. `leaving`: connections that it is sending elsewhere, or wants to.
    """

    name: str
    started_at_ms: int
    state: NodeState = NodeState.SERVING
    address: str = ""
    version: str = ""
    connections: int = 0
    cap: int = 0
    handshakes_per_second: float = 0.0
    free_per_second: float = 0.0
    is_measured: bool = False
    leaving: int = 0


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """What is wished of one run of a node: whether it is to drain, and how many connections it is to keep when it rebalances.

    `move_id` tells one rebalancing from the next; empty: there was none. What is kept is named, not what is sent elsewhere, so that
    an order that is given twice does not move twice.
    """

    drain: bool = False
    move_id: str = ""
    keep: int = 0


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node that lives, with what is wished of it. `namesakes`: runs of its name that began earlier, and still say that they take
    connections. During an upgrade there is one for seconds; else two processes were given one name by mistake."""

    record: NodeRecord
    order: NodeOrder = NodeOrder()
    namesakes: tuple[NodeRecord, ...] = ()
