"""Thousands of clients and a few nodes on virtual time: the product's own admission, capacity, governor, leaving and client policy.

Only what lies between them is made up: a handshake takes a while, and a GoAway arrives at once.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from streampush.client.reconnect import Attempt, Loss, Reconnect
from streampush.config import AdmissionConfig
from streampush.protocol.codes import CODES, Code
from streampush.push.values import NodeRecord, NodeState
from streampush.server.admission import CODE_OF, Admission
from streampush.server.capacity import ASSUMED_REST, MEASURED_AFTER, HandshakeCapacity
from streampush.server.governor import ANNOUNCED_EVERY, Governor
from streampush.server.leaving import Leaving

HANDSHAKE = 0.1
"""Seconds from a client's connect to its Welcome, or to the GoAway in place of it."""

HANDSHAKE_CPU = 0.001
SHARE = 200 * (HANDSHAKE_CPU + ASSUMED_REST)
"""Of a core: each node takes 200 clients a second."""


class _Call:
    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work

    def cancel(self) -> None:
        self.work = None


class HeapClock:
    """Time that passes from call to call; a Clock of Twisted's sorts all calls at each new one."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._calls: list[tuple[float, int, _Call]] = []
        self._numbers = count()

    def seconds(self) -> float:
        return self.now

    def call_later(self, delay: float, work: Callable[[], None]) -> Any:
        call = _Call(work)
        heappush(self._calls, (self.now + delay, next(self._numbers), call))
        return call

    def run(self, seconds: float) -> None:
        """Everything that is due within so many seconds."""
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heappop(self._calls)
            if call.work is not None:
                call.work()
        self.now = end


class Uncounted:
    def sent_elsewhere(self, why: str) -> None:
        """Not counted."""


class StormNode:
    """A node. `admitted` and `tried`: when connections were let in, and when any came."""

    def __init__(self, name: str, clock: HeapClock, random: Random, config: AdmissionConfig) -> None:
        self.name = name
        self.up = True
        self.admission = Admission(config, config.max_connections)
        self.governor = Governor(HandshakeCapacity(SHARE, config.accept_rate, lambda: 0.0), random)
        self.guests: dict[Client, Guest] = {}
        self.admitted: list[float] = []
        self.tried: list[float] = []
        self.told = 0
        self.refused = 0
        self.leaving = Leaving(
            lambda: list(self.guests.values()),
            self.governor,
            Uncounted(),
            clock=clock.seconds,
            call_later=clock.call_later,
            random=random,
        )
        for _ in range(MEASURED_AFTER):
            self.governor.capacity.made(HANDSHAKE_CPU, 0.0, resumed=False)

    def record(self, now: float) -> NodeRecord:
        state = NodeState.DRAINING if self.admission.draining else NodeState.SERVING
        capacity = self.governor.capacity
        return NodeRecord(
            self.name,
            1,
            state,
            connections=self.admission.connections,
            cap=self.admission.cap,
            handshakes_per_second=capacity.per_second,
            free_per_second=capacity.free(now),
            leaving=self.leaving.left,
        )


class Guest:
    """A client's connection at a node, as `leaving` sees it."""

    def __init__(self, client: Client, node: StormNode) -> None:
        self.client = client
        self.node = node
        self.leaving = False

    def drain(self, code: Code, detail: str, retry_after_ms: int = 0, close_after: float | None = None) -> None:
        self.leaving = True
        self.end(Loss(code, CODES[code].advice, detail, retry_after_ms, by_peer=True, lived=100.0))

    def abort(self) -> None:
        self.end(Loss(lived=100.0))

    def end(self, loss: Loss) -> None:
        del self.node.guests[self.client]
        self.node.admission.released(self.client.host)
        self.client.lost(loss)


class Client:
    """A client with an address of its own. `back_at`: when it was welcomed last."""

    def __init__(self, number: int, storm: Storm) -> None:
        self.host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self.back_at: float | None = None
        self.degraded = False
        self._storm = storm
        self._number = number
        self.reconnect = Reconnect(len(storm.nodes), storm.random)

    def settle(self, node: StormNode) -> None:
        """Is connected there from the beginning."""
        node.admission.admit(self.host, -1e9 + self._number)
        node.admission.handshake_done(self.host)
        node.guests[self] = Guest(self, node)
        self.reconnect.welcomed(self._storm.policy)

    def lost(self, loss: Loss) -> None:
        self.back_at = None
        decision = self.reconnect.lost(loss)
        assert isinstance(decision, Attempt)
        self.degraded |= decision.degraded
        self._storm.clock.call_later(decision.delay, lambda: self.connect(decision.address))

    def connect(self, address: int) -> None:
        clock, node = self._storm.clock, self._storm.nodes[address]
        if not node.up:
            self.lost(Loss(detail="refused"))
            return
        node.tried.append(clock.now)
        reason = node.admission.admit(self.host, clock.now)
        if reason is None:
            node.admitted.append(clock.now)
            clock.call_later(HANDSHAKE, lambda: self.welcomed(node))
        elif node.admission.admit_to_tell(reason, self.host, clock.now):
            node.told += 1
            clock.call_later(HANDSHAKE, lambda: self.refused(node, CODE_OF[reason]))
        else:
            node.refused += 1
            self.lost(Loss(detail="reset"))

    def welcomed(self, node: StormNode) -> None:
        clock = self._storm.clock
        node.admission.handshake_done(self.host)
        if not node.up:
            node.admission.released(self.host)
            self.lost(Loss(detail="reset"))
            return
        node.governor.capacity.made(HANDSHAKE_CPU, clock.now, resumed=False)
        node.guests[self] = Guest(self, node)
        self.back_at = clock.now
        self.reconnect.welcomed(self._storm.policy)

    def refused(self, node: StormNode, code: Code) -> None:
        now = self._storm.clock.now
        node.admission.handshake_done(self.host)
        node.admission.released(self.host, told=True)
        wait = node.governor.slot_for_refusal(code, now)
        self.lost(Loss(code, CODES[code].advice, "", int(wait * 1000), by_peer=True))


class Storm:
    """`clients` are connected to the first node; the nodes announce themselves to each other."""

    def __init__(self, clients: int, *configs: AdmissionConfig, policy: Any) -> None:
        self.clock = HeapClock()
        self.random = Random(5)
        self.policy = policy
        self.nodes = [StormNode(f"n{number}", self.clock, self.random, config) for number, config in enumerate(configs)]
        self.clients = [Client(number, self) for number in range(clients)]
        first = self.nodes[0]
        for client in self.clients:
            client.settle(first)
        self._announce()

    def _announce(self) -> None:
        now = self.clock.now
        for node in self.nodes:
            if node.up:
                node.governor.heard([other.record(now) for other in self.nodes if other is not node and other.up])
        self.clock.call_later(ANNOUNCED_EVERY, self._announce)

    def cut(self, node: StormNode) -> None:
        """All of its connections are lost without a word, as when its process is killed or a switch fails."""
        for guest in list(node.guests.values()):
            guest.abort()

    @property
    def away(self) -> int:
        """How many clients have no connection."""
        return len(self.clients) - sum(len(node.guests) for node in self.nodes)

    def run_until_back(self, at_most: float) -> float:
        """Until all clients are connected; gives the seconds that this took."""
        began = self.clock.now
        while self.away:
            self.clock.run(0.5)
            assert self.clock.now - began <= at_most, f"{self.away} clients are still away after {at_most} s"
        return self.clock.now - began


def busiest(times: list[float], window: float) -> int:
    """The most that came within so many seconds."""
    times = sorted(times)
    first = most = 0
    for last, time in enumerate(times):
        while times[first] <= time - window:
            first += 1
        most = max(most, last - first + 1)
    return most
