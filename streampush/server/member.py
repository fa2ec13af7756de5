"""What this node says of itself to the others, and what it does when an operator wishes it to drain, to serve, or to make room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.logger import Logger

from streampush.push.values import NodeOrder, NodeRecord, NodeState
from streampush.server.admission import Admission
from streampush.server.governor import Governor
from streampush.server.leaving import DRAINED, Leaving, Why


class NodeMember:
    """See membership.Member. `identity`: what never changes; `address` gives host and port for devices, once they are known.

    `ready`: whether the node is, but for a drain; `drained` is told why it is not ready because of one, empty: it is no longer
    drained. A drained node goes on listening, and refuses: it may have to serve again at once, what waits in its accept queue is
    answered, and a port that it shares with other workers stays complete.
    """

    _log = Logger(namespace="streampush")

    def __init__(
        self,
        identity: NodeRecord,
        *,
        address: Callable[[], str],
        admission: Admission,
        governor: Governor,
        leaving: Leaving,
        ready: Callable[[], bool],
        drained: Callable[[str], object],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._address = address
        self._admission = admission
        self._governor = governor
        self._leaving = leaving
        self._ready = ready
        self._drained = drained
        self._clock = clock
        self._obeyed = NodeOrder()

    def describe(self) -> NodeRecord:
        """See membership.Member."""
        now = self._clock()
        capacity = self._governor.capacity
        return replace(
            self._identity,
            state=self._state(),
            address=self._address(),
            connections=self._admission.connections,
            cap=self._admission.cap,
            handshakes_per_second=round(capacity.per_second, 1),
            free_per_second=round(capacity.free(now), 1),
            is_measured=capacity.is_measured,
            leaving=self._leaving.left,
        )

    def _state(self) -> NodeState:
        if self._admission.draining:
            return NodeState.DRAINING
        return NodeState.SERVING if self._ready() else NodeState.STARTING

    def heard(self, others: Sequence[NodeRecord]) -> None:
        """See membership.Member."""
        self._governor.heard(others)

    def obey(self, order: NodeOrder) -> None:
        """See membership.Member. A node that is being stopped obeys nobody any more."""
        before, self._obeyed = self._obeyed, order
        if self._leaving.why is Why.STOP:
            return
        if order.drain and not before.drain:
            self._log.info("told to drain: no new connections are taken")
            self._admission.draining = True
            self._drained(DRAINED)
            self._leaving.drain()
        elif before.drain and not order.drain:
            self._log.info("told to serve again")
            self._admission.draining = False
            self._drained("")
            self._leaving.cease()
        if order.move_id and order.move_id != before.move_id:
            self._leaving.shrink(order.keep)
