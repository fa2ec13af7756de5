"""A node without a reactor: the real service and store, turns and pauses that the test runs, links that record."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred

from streampush.config import DeliveryConfig, PublishConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.bus import Bus, NoBus
from streampush.push.delivery import Attachment
from streampush.push.ports import PushSender
from streampush.push.service import PushService
from streampush.push.shared_rates import RateStore
from streampush.push.steady import NANOSECONDS, SteadyClock
from streampush.push.store_ports import Store
from streampush.push.surroundings import Surroundings
from streampush.push.values import (
    ChannelRules,
    ConnectionInfo,
    Principal,
    Publication,
    Published,
    PublishRequest,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)
from streampush.store.memory import MemoryStore

T = TypeVar("T")

ANYTHING = ChannelRules(("*",))
PUBLISHER = Principal("publisher", "backend", may_publish=ANYTHING)


def device(device_id: str, user_id: str = "", topics: tuple[str, ...] = ("*",)) -> Principal:
    return Principal("device", device_id, user_id, may_subscribe=ChannelRules(topics))


@contextmanager
def refuses(code: Code) -> Iterator[None]:
    """What is done inside is refused with this code."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code is code


@dataclass(frozen=True, slots=True)
class Frame:
    """What a link reads out of the bytes it is given."""

    channel: str
    offset: int
    message_id: str
    size: int


def encode(publication: Publication) -> bytes:
    """The frame of these tests: a line of JSON."""
    fields = [publication.channel, publication.offset, publication.message_id, publication.payload.hex()]
    return json.dumps(fields).encode() + b"\n"


def decode(frames: bytes) -> list[Frame]:
    lines = frames.splitlines(keepends=True)
    return [Frame(*json.loads(line)[:3], len(line)) for line in lines]


class RecordingMetrics:
    """Every call as a tuple, its name first."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    def published(self, kind: str, size: int) -> None:
        self.calls.append(("published", kind, size))

    def refused(self, code: Code) -> None:
        self.calls.append(("refused", code))

    def not_published(self, reason: str) -> None:
        self.calls.append(("not_published", reason))

    def fired(self, publications: int, late: float) -> None:
        self.calls.append(("fired", publications, late))

    def schedule_stalled(self) -> None:
        self.calls.append(("schedule_stalled",))

    def recalled(self, was: str) -> None:
        self.calls.append(("recalled", was))

    def fanned_out(self, deliveries: int, publications: int, oldest_wait: float) -> None:
        self.calls.append(("fanned_out", deliveries, publications, oldest_wait))

    def read_from_log(self, deliveries: int) -> None:
        self.calls.append(("read_from_log", deliveries))

    def acknowledged(self, outcome: str) -> None:
        self.calls.append(("acknowledged", outcome))

    def acknowledgement_ignored(self, reason: str) -> None:
        self.calls.append(("acknowledgement_ignored", reason))

    def redelivered(self, reason: str) -> None:
        self.calls.append(("redelivered", reason))

    def dead_lettered(self, reason: str) -> None:
        self.calls.append(("dead_lettered", reason))

    def positions_lost(self, reason: str) -> None:
        self.calls.append(("positions_lost", reason))

    def fell_back(self, outcome: str, count: int) -> None:
        self.calls.append(("fell_back", str(outcome), count))

    def fallback_stalled(self) -> None:
        self.calls.append(("fallback_stalled",))

    def left_behind(self, count: int) -> None:
        self.calls.append(("left_behind", count))

    def marks_dropped(self, count: int) -> None:
        self.calls.append(("marks_dropped", count))


class RecordingLink:
    """See push.ports.Link. `writes` are the bytes objects, `events` everything in order; `hook` runs inside each deliver."""

    def __init__(self) -> None:
        self.room = True
        self.hook: Callable[[], object] = lambda: None
        self.writes: list[bytes] = []
        self.events: list[tuple[Any, ...]] = []
        self.closed: tuple[Code, str] | None = None
        self.deadlines: list[float] = []

    @property
    def frames(self) -> list[Frame]:
        return [frame for write in self.writes for frame in decode(write)]

    def offsets(self, channel: str) -> list[int]:
        return [frame.offset for frame in self.frames if frame.channel == channel]

    def deliver(self, frames: bytes, messages: int) -> None:
        assert self.closed is None
        assert len(decode(frames)) == messages
        self.writes.append(frames)
        self.events.append(("deliver", messages))
        self.hook()

    def has_room(self) -> bool:
        return self.room

    def backlog_end(self, channel: str, offset: int) -> None:
        self.events.append(("backlog_end", channel, offset))

    def wake_by(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    def repositioned(self, subscription: Subscription | SubscriptionRefused) -> None:
        self.events.append(("repositioned", subscription))

    def close(self, code: Code, detail: str) -> None:
        self.closed = code, detail


@dataclass(eq=False, slots=True)
class Timer:
    """See push.ports.Timer."""

    timers: list[Timer] = field(repr=False)
    deadline: float
    work: Callable[[], None]

    def cancel(self) -> None:
        self.timers.remove(self)


class World:
    """One node. `store` may be given; else it is `memory`, of the world's own making."""

    def __init__(
        self,
        *,
        store: Store | None = None,
        limits: StoreConfig | None = None,
        publish: PublishConfig | None = None,
        delivery: DeliveryConfig | None = None,
        encoder: Callable[[Publication], bytes] = encode,
        sender: PushSender | None = None,
        node: str = "node",
        bus: Bus | None = None,
        rates: RateStore | None = None,
    ) -> None:
        self._node = node
        self.now = 1000.0
        self.system_ahead = 0.0  # seconds by which somebody has set the wall clock
        self.steady = SteadyClock(lambda: self._nanoseconds(self.now + self.system_ahead), lambda: self._nanoseconds(self.now))
        self.encoded: list[Publication] = []
        self.turns: list[Callable[[], None]] = []
        self.later: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        self.failures: list[BaseException] = []
        self.metrics = RecordingMetrics()
        self.ids = 0
        self.epochs = 0
        self.memory = MemoryStore(limits or StoreConfig(), self.wall_ms, self.new_epoch)
        self._encoder = encoder
        around = Surroundings(
            store=store or self.memory,
            encode=self.encode,
            metrics=self.metrics,
            clock=lambda: self.now,
            wall_ms=self.wall_ms,
            new_id=self.new_id,
            call_soon=self.turns.append,
            call_later=self.call_later,
            retry_later=self.later.append,
            spawn=self.spawn,
            run=node,
            sender=sender,
            bus=bus or NoBus(),
            rates=rates,
        )
        self.service = PushService(around, publish or PublishConfig(), delivery or DeliveryConfig())
        self.fanout = self.service.fanout

    @staticmethod
    def _nanoseconds(seconds: float) -> int:
        return round(seconds * NANOSECONDS)

    def wall_ms(self) -> int:
        return self.steady.wall_ms()

    def new_id(self, now_ms: int) -> str:
        self.ids += 1
        return f"id{self.ids}" if self._node == "node" else f"{self._node}-id{self.ids}"

    def new_epoch(self) -> str:
        self.epochs += 1
        return f"epoch{self.epochs}"

    def encode(self, publication: Publication) -> bytes:
        self.encoded.append(publication)
        return self._encoder(publication)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: self.failures.append(failure.value))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that does not have to wait."""
        results: list[T] = []
        done = Deferred.fromCoroutine(work)
        done.addCallback(results.append)
        failures: list[BaseException] = []
        done.addErrback(lambda failure: failures.append(failure.value))
        if failures:
            raise failures[0]
        assert results, "it waits"
        return results[0]

    def turn(self) -> None:
        """One turn of the reactor."""
        turns, self.turns[:] = list(self.turns), []
        for work in turns:
            work()

    def settle(self) -> None:
        """Turns until nothing is left to do."""
        for _ in range(10_000):
            if not self.turns:
                return
            self.turn()
        raise AssertionError("it never comes to rest")

    def call_later(self, delay: float, work: Callable[[], None]) -> Timer:
        timer = Timer(self.timers, self.now + delay, work)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Time passes; what is due happens, each at its moment."""
        end = self.now + seconds
        self.settle()
        while due := [timer for timer in self.timers if timer.deadline <= end]:
            timer = min(due, key=lambda timer: timer.deadline)
            self.now = max(self.now, timer.deadline)
            timer.cancel()
            timer.work()
            self.settle()
        self.now = end

    def pause(self) -> None:
        """What waits for a while is tried again."""
        later, self.later[:] = list(self.later), []
        for work in later:
            work()
        self.settle()

    def passes(self, seconds: float, *attachments: Attachment) -> None:
        """Time passes, and the wheel looks at these attachments."""
        self.now += seconds
        for attachment in attachments:
            if attachment.deadline <= self.now:
                attachment.tick(self.now)
        self.settle()

    # ------------------------------------------------------------------------------------------------------ what tests do

    def publish(self, channel: str, payload: bytes = b"", ttl: float = 0.0) -> Published:
        return self.run(self.service.publish(PUBLISHER, PublishRequest(channel, payload, ttl=ttl)))

    def publish_many(self, count: int, channel: str, payload: bytes = b"", ttl: float = 0.0) -> None:
        """So many publications, one after the other, and all that comes of them."""
        for _ in range(count):
            self.publish(channel, payload, ttl)
        self.settle()

    def attach(self, principal: Principal, messages: int = 100, size: int = 100_000) -> tuple[Attachment, RecordingLink]:
        """A connected device that follows nothing yet."""
        link = RecordingLink()
        attachment = self.service.attach(principal, link, ConnectionInfo("session", "192.0.2.1", messages, size))
        self.run(self.service.remember(principal))
        attachment.begin()
        return attachment, link

    def connected(self, principal: Principal, *wanted: SubscribeRequest) -> tuple[Attachment, RecordingLink]:
        """A connected device that was welcomed and follows what it should, told as `events` of its link: ("welcome", results)."""
        link = RecordingLink()
        attachment = self.service.attach(principal, link, ConnectionInfo("session", "192.0.2.1", 100, 100_000))
        self.run(self.service.remember(principal))
        results = self.run(self.service.resume(attachment, wanted))
        link.events.append(("welcome", results))
        attachment.begin()
        return attachment, link

    def subscribe(self, attachment: Attachment, channel: str, **wanted: Any) -> Subscription:
        subscription = self.run(self.service.subscribe(attachment, SubscribeRequest(channel, **wanted)))
        attachment.follow(subscription)
        return subscription

    def follower(self, device_id: str, channel: str, messages: int = 100, size: int = 100_000) -> tuple[Attachment, RecordingLink]:
        """A device that follows one topic, live."""
        attachment, link = self.attach(device(device_id), messages, size)
        self.subscribe(attachment, channel)
        self.settle()
        assert attachment.feeds[channel].live
        return attachment, link
