"""Several nodes without a reactor, and one store in memory, which tells a bus what the store in Redis does; the test says when the
bus carries it on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from streampush.config import DeliveryConfig, StoreConfig
from streampush.protocol.codes import Code
from streampush.push.bus import Order, OrderKind
from streampush.push.hearing import NodeHearing
from streampush.push.values import Accepted, Appended, ConnectionInfo, Draft, Published, Session, SubscribeRequest
from streampush.store.memory import MemoryStore
from tests.push.world import RecordingLink, World, device
from tests.store.slow import Call, SlowStore

T = TypeVar("T")
Hint = Appended | tuple[str, Order]


class TellingStore(MemoryStore):
    """Notes what is new, and which session was replaced by that of another node."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hints: list[Hint] = []

    async def append(self, draft: Draft) -> Accepted:
        accepted = await super().append(draft)
        if accepted.appended is not None:
            self.hints.append(accepted.appended)
        return accepted

    async def begin_session(self, session: Session) -> int:
        older = await self.session(session.device_id)
        generation = await super().begin_session(session)
        if older is not None and older.node != session.node:
            self.hints.append((older.node, Order(OrderKind.REPLACED, session.device_id, number=generation)))
        return generation


class NodeBus:
    """See push.bus.Bus."""

    shared = True

    def __init__(self, hints: list[Hint]) -> None:
        self.followed: set[str] = set()
        self._hints = hints

    def interest(self, channel: str, follows: bool) -> None:
        assert (channel in self.followed) is not follows
        (self.followed.add if follows else self.followed.discard)(channel)

    def tell(self, node: str, order: Order) -> None:
        self._hints.append((node, order))


class Phone:
    """A device that was welcomed by a node, and acknowledges nothing."""

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

    def leave(self) -> None:
        self._world.service.detach(self._attachment, 0, "")
        self._world.settle()


class Node:
    """One of them."""

    def __init__(self, name: str, store: TellingStore, slow: SlowStore | None) -> None:
        self.name = name
        self.bus = NodeBus(store.hints)
        self.world = World(store=slow or store, node=name, bus=self.bus, delivery=DeliveryConfig(subscribe=("*",)))
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

    def __init__(self, *names: str, presence_answers: bool = True) -> None:
        self.store = TellingStore(StoreConfig(), lambda: 1_000_000, lambda: "epoch")
        self._held: list[Call] = []
        self._nodes = {name: Node(name, self.store, None if presence_answers else self._slow()) for name in names}

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
        else:
            self._nodes[hint[0]].hearing.ordered(hint[1])

    def carry(self) -> None:
        """Carries all, and what comes of it."""
        while hints := self.take():
            self.give(hints)
