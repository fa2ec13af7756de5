"""A node whose messages with an alert are followed up: a World with a sender that the test answers for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from twisted.internet.defer import Deferred

from streampush.config import DeliveryConfig, StoreConfig
from streampush.protocol.terms import Outcome
from streampush.push.bus import Bus
from streampush.push.delivery import Attachment
from streampush.push.due import RETRY_PAUSE
from streampush.push.leasing import LEASE
from streampush.push.store_ports import Store
from streampush.push.values import (
    Alert,
    DeviceRecord,
    MessageRecord,
    Published,
    PublishRequest,
    PushAnswer,
    PushOrder,
    PushOutcome,
    PushResult,
    PushToken,
)
from streampush.store.memory import MemoryStore
from tests.push.world import PUBLISHER, RecordingLink, World, device
from tests.store.slow import SlowStore

TAKEN = PushAnswer(PushOutcome.DELIVERED, apns_id="apns")
WITHDRAWN = PushAnswer(PushOutcome.NOT_SENT, "cancelled", again_in=0.0)
LATER = PushAnswer(PushOutcome.NOT_SENT, "no connection", again_in=7.0)
DEAD = PushAnswer(PushOutcome.REJECTED, "Unregistered", "id", token_dead_at_ms=1_000_000)
ALERT = Alert(title="Hello")


@dataclass
class FakeSender:
    """See push.ports.PushSender. Answers at once from `answers`, or else with `usual`; with `slow`, when the test says."""

    usual: PushAnswer = TAKEN
    slow: bool = False
    max_in_flight: int = 1000
    ready: bool = True
    after: float = 5.0
    busy: set[str] = field(default_factory=set)  # topics of apps that have had their share
    orders: list[PushOrder] = field(default_factory=list)
    answers: deque[PushAnswer | Exception] = field(default_factory=deque)
    waiting: deque[Deferred[PushAnswer]] = field(default_factory=deque)
    mended: Callable[[], None] = lambda: None
    unwritten: dict[str, Deferred[PushAnswer]] = field(default_factory=dict)  # of `waiting`: what can still be taken back
    writes: bool = True

    def fallback_after(self, token: PushToken) -> float:
        return self.after

    def watch(self, mended: Callable[[], None]) -> None:
        self.mended = mended

    def has_room(self, token: PushToken) -> bool:
        return token.topic not in self.busy

    def withdraw(self, push_id: str) -> None:
        waiting = self.unwritten.pop(push_id, None)
        if waiting is not None:
            self.waiting.remove(waiting)
            waiting.callback(WITHDRAWN)

    async def send(self, order: PushOrder) -> PushAnswer:
        if order.token.topic in self.busy:
            return PushAnswer(PushOutcome.NOT_SENT, "busy", again_in=5.0)
        self.orders.append(order)
        if self.slow:
            self.waiting.append(Deferred())
            if not self.writes:
                self.unwritten[order.push_id] = self.waiting[-1]
            return await self.waiting[-1]
        answer = self.answers.popleft() if self.answers else self.usual
        if isinstance(answer, Exception):
            raise answer
        return answer


class FallbackWorld(World):
    """`sender` is what pushes go to. Devices have a token when `known`."""

    def __init__(
        self, *, store: Store | None = None, sender: FakeSender | None = None, start: bool = True, bus: Bus | None = None
    ) -> None:
        self.sender = sender or FakeSender()
        super().__init__(store=store, sender=self.sender, delivery=DeliveryConfig(subscribe=("*",)), bus=bus)
        if start:
            self.service.start()
            self.settle()

    def known(self, device_id: str, user_id: str = "", token: bytes = b"token", app: str = "app") -> None:
        """The device is known, and away."""
        push_token = PushToken(token + device_id.encode(), app, sandbox=False) if token else None
        self.run(self.memory.remember_device(DeviceRecord(device_id, user_id, push_token=push_token)))

    def alert(self, channel: str, alert: Alert = ALERT, **wishes: object) -> Published:
        """Publishes a message with an alert, and lets what follows happen at once."""
        request = replace(PublishRequest(channel, b"x", alert=alert), **wishes)  # type: ignore[arg-type]  # any field
        published = self.run(self.service.publish(PUBLISHER, request))
        self.advance(0.0)
        return published

    def answer(self, answer: PushAnswer = TAKEN) -> None:
        """The oldest push that waits has its answer."""
        self.sender.waiting.popleft().callback(answer)
        self.settle()

    def fail_once(self, store: SlowStore, name: str, *, behind: bool) -> None:
        """The call of this name that waits fails, or is done and its answer lost; then the store works, and leases run out."""
        call = store.take(name)
        if behind:
            call.lose()
        else:
            call.fail()
        self.settle()
        self.pause()
        for _ in range(4):
            for _ in range(9):
                while store.calls:
                    store.finish()
                    self.settle()
                self.advance(RETRY_PAUSE)
            self.advance(LEASE)

    def online(self, device_id: str, user_id: str = "") -> tuple[Attachment, RecordingLink]:
        """The device connects and follows what it should."""
        attachment, link = self.connected(device(device_id, user_id))
        self.settle()
        return attachment, link

    def offline(self, attachment: Attachment) -> None:
        self.service.detach(attachment, 2001, "lost")
        self.settle()

    def acknowledge(self, attachment: Attachment, channel: str, offset: int, outcome: Outcome = Outcome.DELIVERED) -> None:
        attachment.acknowledge(channel, offset, outcome)

    def record(self, published: Published) -> MessageRecord:
        record = self.run(self.memory.message(published.message_id, 1000))
        assert record is not None
        return record

    def result(self, published: Published, device_id: str) -> PushResult | None:
        """How the push of the message to the device ended, as stored."""
        return {row.device_id: row.push for row in self.record(published).devices}.get(device_id)

    def outcome(self, published: Published, device_id: str) -> tuple[str, str]:
        result = self.result(published, device_id)
        return ("", "") if result is None else (str(result.outcome), result.reason)

    def pushed(self) -> list[str]:
        """Whom was pushed to, in order."""
        return [order.device_id for order in self.sender.orders]

    def work(self) -> int:
        """How much work the outbox has."""
        return self.run(self.memory.status()).outbox


def with_small_outbox(max_outbox: int) -> FallbackWorld:
    """A store that keeps so many pieces of work, and a sender whose answers the test gives."""
    worlds: list[FallbackWorld] = []
    memory = MemoryStore(StoreConfig(max_outbox=max_outbox), lambda: worlds[0].wall_ms(), lambda: "epoch")
    world = FallbackWorld(store=memory, sender=FakeSender(slow=True), start=False)
    worlds.append(world)
    world.memory = memory
    world.service.start()
    return world
