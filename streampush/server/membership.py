"""This node among the others: says how it stands, hears what is wished of it, knows who else is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from streampush.errors import StoreUnavailable
from streampush.push.ports import Delayer, Spawner, Timer
from streampush.push.store_ports import NodeStore
from streampush.push.values import KnownNode, NodeOrder, NodeRecord, NodeState
from streampush.server.governor import ANNOUNCED_EVERY
from streampush.server.namesakes import Namesakes

LEASE: Final = 4 * ANNOUNCED_EVERY
"""Seconds for which a node that says nothing counts as there: some announcements may be late, or lost."""


class Member(Protocol):
    """What a node says, and what it does with what it hears."""

    def describe(self) -> NodeRecord:
        """How the node stands now."""

    def heard(self, others: Sequence[NodeRecord]) -> None:
        """The other nodes that live."""

    def obey(self, order: NodeOrder) -> None:
        """What is wished of the node; the same again and again, until it changes."""


class Membership:
    """Announces the node every ANNOUNCED_EVERY seconds. While the store is away, what was heard last stays true.

    `wall_ms` gives Unix milliseconds, `call_later` calls a function after so many seconds.
    """

    def __init__(
        self,
        store: NodeStore,
        member: Member,
        namesakes: Namesakes,
        *,
        wall_ms: Callable[[], int],
        call_later: Delayer,
        spawn: Spawner,
    ) -> None:
        self._store = store
        self._member = member
        self._namesakes = namesakes
        self._wall_ms = wall_ms
        self._call_later = call_later
        self._spawn = spawn
        self._call: Timer | None = None
        self._stopped = False
        self._announcing = False

    def start(self) -> None:
        """Announces the node now, and then again and again."""
        if self._stopped:
            return
        self._call = self._call_later(ANNOUNCED_EVERY, self.start)
        if not self._announcing:  # a store that is slow gets one question at a time
            self._announcing = True
            self._spawn(self._announce())

    async def stop(self, *, tells: bool = True) -> None:
        """The node is no longer there. Leaves no timer behind. `tells`: the store is asked to forget it now, for as long as a write
        may take; else its time runs out by itself."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if not tells:
            return
        record = self._member.describe()
        try:
            await self._store.retire_node(record.name, record.started_at_ms)
        except StoreUnavailable:
            return

    async def _announce(self) -> None:
        record = self._member.describe()
        try:
            order = await self._store.announce_node(record, self._wall_ms() + int(LEASE * 1000))
            known = await self._store.nodes()
        except StoreUnavailable:
            return
        finally:
            self._announcing = False
        if not self._stopped:
            self._namesakes.look(record, known)
            self._member.heard([_as_wished(node) for node in known if node.record.name != record.name])
            self._member.obey(order)


def _as_wished(node: KnownNode) -> NodeRecord:
    """How a node stands, or will in a moment: one that is told to drain and has not heard so yet takes nobody from others."""
    return replace(node.record, state=NodeState.DRAINING) if node.order.drain else node.record
