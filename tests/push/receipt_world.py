"""Receipts over the store in memory, on a clock of the test's: what devices do is recorded, and heard of when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from streampush.config import StoreConfig
from streampush.protocol.terms import Milestone
from streampush.push.alarm import Alarm
from streampush.push.progress import MessageProgress
from streampush.push.receipts import Receipts
from streampush.push.store_ports import Store
from streampush.push.values import (
    Accepted,
    Appended,
    CursorMove,
    DeviceRecord,
    Draft,
    Mark,
    Published,
    Undeliverable,
)
from streampush.push.watching import Watch, news_of
from streampush.store.memory import MemoryStore

T = TypeVar("T")

EPOCH = "E1"
ALL = frozenset(Milestone) - {Milestone.UNSPECIFIED}


class Listener:
    """A watcher that notes what it is told, and stops listening at the end."""

    def __init__(self, receipts: Receipts) -> None:
        self.told: list[tuple[str, Milestone]] = []
        self.times: dict[tuple[str, Milestone], int] = {}
        self.progress: list[MessageProgress] = []
        self.lost = False
        self.ended = ""
        self.watch: Watch | None = None
        self._receipts = receipts
        self._known: dict[str, int] = {}

    def progressed(self, progress: MessageProgress) -> None:
        assert not self.ended
        self.progress.append(progress)
        for device_id, milestone, at_ms in news_of(progress, self._known, ALL):
            self._known[device_id] = self._known.get(device_id, 0) | 1 << milestone
            self.told.append((device_id, milestone))
            self.times[device_id, milestone] = at_ms
        self.ended = progress.ending
        if self.ended and self.watch is not None:
            self._receipts.unwatch(self.watch, self)

    def gone(self) -> None:
        self.lost = True

    def milestones(self, device_id: str) -> list[Milestone]:
        return [milestone for name, milestone in self.told if name == device_id]


class ReceiptWorld:
    """The devices phone and tablet of the user ada. `wrap`: what stands between the receipts and the store."""

    def __init__(self, *, wrap: Callable[[Store], Store] = lambda store: store, max_watched: int = 1_000) -> None:
        self.clock = Clock()
        self.clock.advance(1_000.0)
        self.memory = MemoryStore(StoreConfig(), self.wall_ms, lambda: EPOCH)
        self.failures: list[BaseException] = []
        self.later: list[Callable[[], None]] = []
        self.receipts = Receipts(
            wrap(self.memory),
            max_watched=max_watched,
            clock=self.clock.seconds,
            wall_ms=self.wall_ms,
            spawn=self.spawn,
            alarm=Alarm(self.clock.seconds, self.clock.callLater),
            retry_later=self.later.append,
        )
        self.numbers = 0
        for device_id in ("phone", "tablet"):
            self.run(self.memory.remember_device(DeviceRecord(device_id, "ada")))

    def wall_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: self.failures.append(failure.value))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that does not have to wait."""
        results: list[T] = []
        failures: list[BaseException] = []
        Deferred.fromCoroutine(work).addCallbacks(results.append, lambda failure: failures.append(failure.value))
        if failures:
            raise failures[0]
        assert results, "it waits"
        return results[0]

    def pause(self, seconds: float = 0.1) -> None:
        """Time goes by, in steps of at most a tenth of a second."""
        while seconds > 0:
            self.clock.advance(min(seconds, 0.1))
            seconds -= 0.1

    # ------------------------------------------------------------------------------------------------------- publishing

    def append(self, channel: str = "user:ada", **fields: Any) -> Accepted:
        """Publishes, and says so to nobody."""
        self.numbers += 1
        return self.run(self.memory.append(Draft(channel, f"M{self.numbers}", b"payload", self.wall_ms(), **fields)))

    def heard(self, appended: Appended | None) -> None:
        if appended is not None:
            self.receipts.appended(appended)

    def publish(self, channel: str = "user:ada", **fields: Any) -> Accepted:
        accepted = self.append(channel, **fields)
        self.heard(accepted.appended)
        return accepted

    def watch_published(self, accepted: Accepted, expires_at_ms: int = 0) -> Listener:
        """Watched as the publisher's connection does it."""
        where = accepted.message_id, accepted.channel, accepted.offset, accepted.epoch
        published = Published(*where, accepted.durability, 0, deliver_at_ms=accepted.deliver_at_ms)
        listener = Listener(self.receipts)
        listener.watch = self.receipts.watch_published(published, expires_at_ms, listener)
        return listener

    def watch(self, message_id: str) -> Listener:
        """Watched as an event stream does it."""
        listener = Listener(self.receipts)
        listener.watch = self.receipts.watch(message_id, listener)
        return listener

    def recall(self, message_id: str) -> None:
        self.numbers += 1
        self.heard(self.run(self.memory.recall(message_id, f"M{self.numbers}", self.wall_ms())))
        self.receipts.changed(message_id)

    # ---------------------------------------------------------------------------------------------------------- devices

    def record(
        self, moves: Sequence[CursorMove] = (), marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> None:
        self.run(self.memory.record(moves, marks, undeliverable))
        self.receipts.recorded(moves, marks, undeliverable)

    def move(self, device_id: str, channel: str, offset: int, processed: int = 0) -> CursorMove:
        return CursorMove(device_id, channel, EPOCH, offset, processed, 0, self.wall_ms())

    def mark(self, device_id: str, channel: str, first: int, last: int, milestone: Milestone = Milestone.WRITTEN) -> Mark:
        return Mark(device_id, channel, EPOCH, first, last, milestone, self.wall_ms())

    def written(self, device_id: str, offset: int, channel: str = "user:ada") -> None:
        self.record(marks=[self.mark(device_id, channel, offset, offset)])

    def delivered(self, device_id: str, offset: int, channel: str = "user:ada") -> None:
        self.record([self.move(device_id, channel, offset)])

    def processed(self, device_id: str, offset: int, channel: str = "user:ada") -> None:
        self.record([self.move(device_id, channel, offset, offset)])
