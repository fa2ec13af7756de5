"""apple.js: a server of Node's own HTTP/2 in Apple's place, and what it saw."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from twisted.trial.unittest import TestCase

from streampush.apns.simulator import When
from streampush.apns.simulator.orders import Freeze, GoAway, OneStreamFirst, Order, RefuseStream, Reject
from tests.apns.peers.running import NODE, PeerProcess, server_files, start

SCRIPT = Path(__file__).with_name("apple.js")


@dataclass(frozen=True, slots=True)
class NodeLedger:
    """See the simulator's Ledger. What is over a limit Node refuses itself, unseen."""

    connections: int
    requests: int
    accepted: Counter[str]
    rejected: Counter[str]
    faults: list[str]
    over_limit: int = field(default=0, init=False)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter({"": self.accepted.total(), **self.rejected})

    def times_accepted(self, apns_id: str) -> int:
        return self.accepted[apns_id]


class NodeApple:
    """`port`: where it listens, on 127.0.0.1."""

    def __init__(self, peer: PeerProcess, port: int) -> None:
        self.port = port
        self._peer = peer

    async def ledger(self) -> NodeLedger:
        """What it has seen so far."""
        seen = json.loads(await self._peer.ask(b""))
        accepted, rejected = Counter(seen.pop("accepted")), Counter(seen.pop("rejected"))
        return NodeLedger(accepted=accepted, rejected=rejected, **seen)


async def start_node_apple(test: TestCase, orders: tuple[Order, ...]) -> NodeApple:
    """Ends with the test. Raises ValueError for an order that it does not know."""
    assert NODE is not None
    ordered = json.dumps(dict(_in_its_words(order) for order in orders))
    peer = start(test, [NODE, SCRIPT, *server_files(test), ordered])
    return NodeApple(peer, int(await peer.line()))


def _in_its_words(order: Order) -> tuple[str, object]:
    match order:
        case RefuseStream(When(every=every)) if every:
            return "refuseEvery", every
        case GoAway(When(at=at), code=0):
            return "goAwayAt", at
        case OneStreamFirst(streams=1):
            return "oneStreamFirst", True
        case Reject(reason):
            return "reject", {"status": reason.status, "reason": reason.word}
        case Freeze(When(at=at)):
            return "freezeAt", at
    raise ValueError(f"Node's server does not know {order}")
