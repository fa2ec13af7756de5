"""The reconnect governor: tells those who are sent away when to come back, and how fast others can take them.

Theory of operation. Every node announces how many handshakes per second it has free, and how many connections it has room for
(`membership`). Who is sent elsewhere gets a slot at the rate at which the others together can take clients, who is to come back
here at the rate of this node. Nodes that drain at the same time share what is free. docs/protocol.md section 12.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from streampush.protocol.codes import CODES, Advice, Code
from streampush.push.values import NodeRecord, NodeState
from streampush.server.capacity import HandshakeCapacity
from streampush.server.slots import Slots

RESTART_PAUSE: Final = 2.0
"""Seconds that a node needs at least to be back after a stop: nobody is told to come earlier, if there is no other node."""

LEAST_WAIT: Final = 1.0
"""Seconds that one who is refused waits at least."""

LEAST_SHARE: Final = 0.1
"""Of the others' whole capacity, that is used also if they say that nothing is free: their own clients come back, too."""


ANNOUNCED_EVERY: Final = 2.0
"""Seconds between two announcements of a node."""


class Governor:
    """`others` are the nodes that live beside this one, as they last announced themselves; set by the owner."""

    def __init__(self, capacity: HandshakeCapacity, random: Random) -> None:
        self.capacity = capacity
        self._others: tuple[NodeRecord, ...] = ()
        self._here = Slots(random)
        self._elsewhere = Slots(random)
        self._sent = [0, 0]  # to others: since they last announced themselves, and before that

    @property
    def others(self) -> tuple[NodeRecord, ...]:
        """The other nodes."""
        return self._others

    def heard(self, others: Sequence[NodeRecord]) -> None:
        """The others have announced themselves. Whom they were sent just now is not in their figures yet."""
        self._others = tuple(others)
        self._sent = [0, self._sent[0]]

    # ------------------------------------------------------------------------------------------------------- what others take

    def takers(self) -> tuple[NodeRecord, ...]:
        """Those of the others that take connections."""
        return tuple(node for node in self._others if node.state is NodeState.SERVING)

    def rate_elsewhere(self) -> float:
        """Clients per second that this node may send to the others; 0.0 if nobody takes them."""
        takers = self.takers()
        whole = sum(node.handshakes_per_second for node in takers)
        free = sum(node.free_per_second for node in takers) + self._own_rate()
        return min(whole, max(free, LEAST_SHARE * whole)) / self._leavers()

    def room_elsewhere(self) -> int:
        """Connections that this node may send to the others before they are full, if all that it sent have arrived."""
        room = sum(max(0, node.cap - node.connections) for node in self.takers())
        return max(0, room // self._leavers() - sum(self._sent))

    def _leavers(self) -> int:
        """How many nodes share what is free: this one, and those that are sending connections elsewhere too."""
        return 1 + sum(1 for node in self._others if node.leaving)

    def _own_rate(self) -> float:
        """What the others count as taken because of what this node sends them, about."""
        return float(self._sent[1]) / ANNOUNCED_EVERY if self._sent[1] else 0.0

    # ------------------------------------------------------------------------------------------------------------------ slots

    def wait_elsewhere(self, now: float) -> float:
        """Seconds until the next free slot at the others."""
        return self._elsewhere.wait(now)

    def slot_elsewhere(self, now: float) -> float:
        """Seconds from now to a slot at the others, for one more who is sent to them."""
        self._sent[0] += 1
        return self._elsewhere.take(now, self.rate_elsewhere())

    def wait_here(self, now: float) -> float:
        """Seconds until the next free slot at this node."""
        return self._here.wait(now)

    def slot_here(self, now: float, earliest: float) -> float:
        """Seconds from now to a slot at this node."""
        return self._here.take(now, self.capacity.per_second, earliest)

    def slot_for_refusal(self, code: Code, now: float) -> float:
        """Seconds from now to the slot of one who is refused with this code: at the others, if its advice is to go there and
        there is any."""
        if CODES[code].advice is Advice.RECONNECT_ELSEWHERE and self.takers():
            return self._elsewhere.take(now, self.rate_elsewhere(), LEAST_WAIT)
        return self.slot_here(now, LEAST_WAIT)

    def promised(self, now: float) -> int:
        """About how many clients have a slot that is still to come."""
        return self._here.promised(now) + self._elsewhere.promised(now)
