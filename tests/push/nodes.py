"""Several nodes without a reactor, and one store in memory, which tells a bus what the store in Redis does; the test says when the
bus carries it on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from streampush.config import DeliveryConfig, PublishConfig, StoreConfig
from streampush.protocol.codes import Code
from streampush.protocol.terms import Outcome
from streampush.push.bus import Order, OrderKind
from streampush.push.hearing import NodeHearing
from streampush.push.values import (
    Accepted,
    Appended,
    ConnectionInfo,
    CursorMove,
    Draft,
    Mark,
    Published,
    Session,
    SubscribeRequest,
    Undeliverable,
)
from streampush.store.memory import MemoryStore
from tests.push.world import RecordingLink, World, device
from tests.store.slow import Call, SlowStore

T = TypeVar("T")
Hint = Appended | tuple[str, Order] | str
"""A publication, an order for a node, or the id of a message that something became of."""


class TellingStore(MemoryStore):
    """Notes what is new, and which session was replaced by that of another node."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hints: list[Hint] = []
        self._ids: dict[tuple[str, int], str] = {}

    async def append(self, draft: Draft) -> Accepted:
        accepted = await super().append(draft)
        if accepted.appended is not None:
            self.hints.append(accepted.appended)
            self._ids[accepted.channel, accepted.offset] = accepted.message_id
        return accepted

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        notices = await super().record(moves, marks, undeliverable)
        places = [(move.channel, 1, move.offset) for move in moves]
        places += [(mark.channel, mark.first, mark.last) for mark in marks]
        for channel, first, last in places:
            self.hints += [self._ids[channel, offset] for offset in range(first, last + 1) if (channel, offset) in self._ids]
        return notices

    async def begin_session(self, session: Session, age_ms: int = 0) -> int:
        older = await self.session(session.device_id)
        generation = await super().begin_session(session, age_ms)
        if generation and older is not None and older.run != session.run:
            self.hints.append((older.run, Order(OrderKind.REPLACED, session.device_id, number=generation)))
        return generation


class NodeBus:
    """See push.bus.Bus."""

    shared = True

    def __init__(self, hints: list[Hint]) -> None:
        self.followed: set[str] = set()
        self.watched: set[str] = set()
        self._hints = hints

    def interest(self, channel: str, follows: bool) -> None:
        assert (channel in self.followed) is not follows
        (self.followed.add if follows else self.followed.discard)(channel)

    def watch(self, message_id: str, watched: bool) -> None:
        assert (message_id in self.watched) is not watched
        (self.watched.add if watched else self.watched.discard)(message_id)

    def tell(self, run: str, order: Order) -> None:
        self._hints.append((run, order))


class Phone:
    """A device that was welcomed by a node, and acknowledges nothing by itself."""

    def __init__(self, node: Node, device_id: str, user_id: str, channels: tuple[str, ...]) -> None:
        world = self._world = node.world
        self._link = RecordingLink()
        principal = device(device_id, user_id)
        info = ConnectionInfo(f"session of {node.name}", "192.0.2.1:1", 100, 100_000, "demo")
        self._attachment = node.service.attach(principal, self._link, info)
        known = world.run(node.service.remember(principal))
        world.run(node.service.resume(self._attachment, [SubscribeRequest(channel) for channel in channels]))
        assert known
        self._attachment.begin()
        world.settle()

    @property
    def payloads(self) -> list[bytes]:
        stored = {one.message_id: one.payload for one in self._world.encoded}
        return [stored[frame.message_id] for frame in self._link.frames]

    @property
    def closed(self) -> Code | None:
        return None if self._link.closed is None else self._link.closed[0]

    def acknowledge(self, channel: str, offset: int) -> None:
        self._attachment.acknowledge(channel, offset, Outcome.DELIVERED)
        self._world.settle()

    def leave(self) -> None:
        self._world.service.detach(self._attachment, 0, "")
        self._world.settle()


class Node:
    """One of them."""

    def __init__(self, name: str, store: TellingStore, slow: SlowStore | None, publish: PublishConfig | None) -> None:
        self.name = name
        self.bus = NodeBus(store.hints)
        self.world = World(store=slow or store, node=name, bus=self.bus, delivery=DeliveryConfig(subscribe=("*",)), publish=publish)
        self.service = self.world.service
        self.hearing = NodeHearing(
            self.service,
            slow or store,
            clock=lambda: self.world.now,
            spawn=self.world.spawn,
            retry_later=self.world.later.append,
        )

    @property
    def followed(self) -> set[str]:
        return self.bus.followed

    def connect(self, device_id: str, *channels: str, user_id: str = "") -> Phone:
        return Phone(self, device_id, user_id, channels)

    def publish(self, channel: str, payload: bytes) -> Published:
        return self.world.publish(channel, payload)


class Nodes:
    """All of them, by name. `presence_answers` False: sessions begin at once, and nodes are told by `answer_presence`."""

    def __init__(self, *names: str, presence_answers: bool = True, publish: PublishConfig | None = None) -> None:
        self.store = TellingStore(StoreConfig(), lambda: 1_000_000, lambda: "epoch")
        self._held: list[Call] = []
        self._nodes = {name: Node(name, self.store, None if presence_answers else self._slow(), publish) for name in names}

    def _slow(self) -> SlowStore:
        def begun(call: Call) -> None:
            slow.calls.remove(call)
            if call.name == "begin_session":
                call.act()
                self._held.append(call)
            else:
                call.finish()

        slow = SlowStore(self.store, begun)
        return slow

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return next(iter(self)).world.run(work)

    def settle(self) -> None:
        """Turns of all until nothing is left to do."""
        while any(node.world.turns for node in self):
            for node in self:
                node.world.settle()
        assert [node.world.failures for node in self] == [[] for _ in self]

    def answer_presence(self) -> None:
        """The nodes are told the generations of their sessions."""
        held, self._held = self._held, []
        for call in held:
            call.finish()
        self.settle()

    def take(self) -> list[Hint]:
        """What the bus would carry, which is not carried then."""
        self.settle()
        hints, self.store.hints[:] = list(self.store.hints), []
        return hints

    def drop(self) -> None:
        """All that the bus would carry is lost."""
        self.take()

    def give(self, hints: list[Hint]) -> None:
        """Carries these."""
        for hint in hints:
            self._give(hint)
            self.settle()

    def _give(self, hint: Hint) -> None:
        if isinstance(hint, Appended):
            listeners: list[Callable[[Appended], None]] = [
                node.hearing.heard for node in self if hint.publication.channel in node.followed
            ]
            for heard in listeners:
                heard(hint)
        elif isinstance(hint, str):
            for node in self:
                if hint in node.bus.watched:
                    node.hearing.changed(hint)
        else:
            self._nodes[hint[0]].hearing.ordered(hint[1])

    def carry(self) -> None:
        """Carries all, and what comes of it."""
        while hints := self.take():
            self.give(hints)
