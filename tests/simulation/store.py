"""A store that survives its process as SQLite in WAL mode does: one writer, many operations to one commit, a prefix survives.

Theory of operation. `Disk` is what is durable: a MemoryStore that holds exactly what was committed. `SimulatedStore` is what one
server process has of it. Its writes wait in a queue; the writer takes all that waits as a batch, and when the commit is through,
some virtual time later, the batch is applied to the disk at once and its callers are told together. Reads look at the disk as it
is committed. When the process dies, what waits is gone and nobody hears of it; the batch under way is on the disk or is not.

Every applied write is kept in the disk's journal, so that an older state of the disk (a backup) can be had by doing it again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from streampush.config import StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.terms import Durability
from streampush.push.values import Accepted, Appended, MessageReach, MessageRecord
from streampush.store.memory import MemoryStore

READS = frozenset(
    {
        "head",
        "peek",
        "read",
        "survey",
        "count_readable",
        "next_due_ms",
        "status",
        "cursors",
        "subscriptions",
        "subscribers",
        "device",
        "device_of_token",
        "devices_of_user",
        "devices_named",
        "reach",
        "reach_with",
        "reach_users",
        "dead_letters",
        "dead_letter",
        "first_answer",
        "message",
        "push_of",
        "session",
        "newer_sessions",
        "user_sessions",
        "channel_presence",
        "nodes",
        "outbox_next_ms",
    }
)
"""What changes nothing; every other operation is a write."""

NODE = "node"
"""The name of the node whose processes these are."""

Observer = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]
"""Hears of every write that the disk has taken: the operation's name, its arguments and its result."""


def completed(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds at most. `commit` None: an operation takes effect at once, as in memory."""

    commit: float | None = 0.01
    read: float = 0.0
    batch: int = 64


@dataclass(frozen=True, slots=True)
class _Entry:
    """A write that was applied, and the wall clock then."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    wall_ms: int


class Disk:
    """What outlives processes. `full`: nothing can be written. `broken`: nothing can be read either."""

    def __init__(
        self,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        durability: Durability = Durability.LOCAL_FSYNC,
        observe: Observer = lambda name, args, options, result: None,
    ) -> None:
        self.full = False
        self.broken = False
        self.durability = durability
        self._limits = limits
        self._wall_ms = wall_ms
        self._new_epoch = new_epoch
        self._observe = observe
        self._journal: list[_Entry] = []
        self._epochs: list[str] = []
        self._replaying: list[str] = []
        self._replayed_ms: int | None = None
        self.state = self._empty()

    def _empty(self) -> MemoryStore:
        return MemoryStore(self._limits, self._now_ms, self._epoch)

    def _now_ms(self) -> int:
        return self._wall_ms() if self._replayed_ms is None else self._replayed_ms

    def _epoch(self) -> str:
        epoch = self._replaying.pop(0) if self._replaying else self._new_epoch()
        self._epochs.append(epoch)
        return epoch

    @property
    def writes(self) -> int:
        """How many operations have changed the disk."""
        return len(self._journal)

    def _durable(self, result: Any) -> Any:
        """The result as this disk gives it."""
        if isinstance(result, list):
            return [self._durable(one) for one in result]
        if isinstance(result, MessageReach):
            return replace(result, record=self._durable(result.record))
        if isinstance(result, Accepted):
            return replace(result, durability=self.durability, appended=self._durable(result.appended))
        return replace(result, durability=self.durability) if isinstance(result, Appended | MessageRecord) else result

    def apply(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Does the operation; gives its result, or raises its refusal."""
        result = self._durable(completed(getattr(self.state, name)(*args, **options)))
        self._journal.append(_Entry(name, args, options, self._wall_ms()))
        self._observe(name, args, options, result)
        return result

    def disconnected(self) -> None:
        """The process that had the connections is gone."""
        completed(self.state.forget_run(NODE))

    def has_work(self, kind: str, key: str) -> bool:
        """Whether there is such work, leased or not."""
        return (kind, key) in self.state._outbox._work

    @property
    def works(self) -> int:
        """How much is left to do."""
        return len(self.state._outbox)

    def look(self, name: str, args: tuple[Any, ...], **options: Any) -> Any:
        """The result of an operation that changes nothing."""
        return self._durable(completed(getattr(self.state, name)(*args, **options)))

    def sweep(self, channels: int) -> None:
        """See MemoryStore.sweep. It is not in the journal: a backup that is swept later holds more."""
        self.state.sweep(channels)

    def wipe(self) -> None:
        """Everything is lost, as when the process of a store in memory ends."""
        self._journal.clear()
        self._epochs.clear()
        self.state = self._empty()

    def restore(self, writes: int) -> None:
        """Puts back the state after so many writes: a backup."""
        journal = self._journal[:writes]
        self._replaying, self._epochs = self._epochs, []
        try:
            self.state = self._empty()
            for entry in journal:
                self._replayed_ms = entry.wall_ms
                completed(getattr(self.state, entry.name)(*entry.args, **entry.options))
        finally:
            self._replayed_ms = None
            self._replaying = []
        self._journal = journal


@dataclass(slots=True)
class _Write:
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    done: Deferred[Any]


class SimulatedStore:
    """See push.store_ports.Store: what one process has of a disk. `random` gives the times, `clock` passes them."""

    def __init__(self, disk: Disk, clock: IReactorTime, random: Random, pace: Pace) -> None:
        self.dead = False
        self._disk = disk
        self._clock = clock
        self._random = random
        self._pace = pace
        self._waiting: list[_Write] = []
        self._under_way: list[_Write] = []
        self._awake = False  # the writer has something to do
        self._unheard: list[Deferred[Any]] = []  # of callers that died with the process

    @property
    def durability(self) -> Durability:
        return self._disk.durability

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self._waiting or self._under_way)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_") or not hasattr(MemoryStore, name):
            raise AttributeError(name)
        reads = name in READS

        async def operation(*args: Any, **options: Any) -> Any:
            return await (self._read(name, args, options) if reads else self._write(name, args, options))

        setattr(self, name, operation)
        return operation

    def sweep(self, channels: int) -> None:
        """See MemoryStore.sweep."""
        self._disk.sweep(channels)

    def die(self) -> bool:
        """The process ends at once. Of what waits nothing is done, and nobody hears. Whether the batch under way is on the disk."""
        self.dead = True
        batch, self._under_way = self._under_way, []
        waiting, self._waiting = self._waiting, []
        self._unheard += [write.done for write in (*batch, *waiting)]
        survives = bool(batch) and not self._disk.full and self._random.random() < 0.5
        if survives:
            self._apply(batch)
        self._disk.disconnected()
        return survives

    # ------------------------------------------------------------------------------------------------------------- inside

    async def _read(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._pace.read:
            await self._pass(self._random.uniform(0.0, self._pace.read))
        if self._disk.broken:
            raise StoreUnavailable("the disk cannot be read")
        return self._disk.look(name, args, **options)

    async def _write(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._pace.commit is None:
            if self._disk.full:
                raise StoreUnavailable("the disk is full")
            return self._disk.apply(name, args, options)
        write = _Write(name, args, options, Deferred())
        self._waiting.append(write)
        self._wake()
        return await write.done

    def _wake(self) -> None:
        if self._waiting and not self._awake:
            self._awake = True
            self._clock.callLater(0.0, self._begin)

    def _begin(self) -> None:
        batch, self._waiting = self._waiting[: self._pace.batch], self._waiting[self._pace.batch :]
        self._under_way = batch
        assert self._pace.commit is not None
        self._clock.callLater(self._random.uniform(0.0, self._pace.commit), self._commit)

    def _commit(self) -> None:
        batch, self._under_way = self._under_way, []
        self._awake = False
        if self._disk.full:
            results: list[Any] = [StoreUnavailable("the disk is full") for _ in batch]
        else:
            results = self._apply(batch)
        self._wake()
        for write, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                write.done.errback(result)
            else:
                write.done.callback(result)

    def _apply(self, batch: list[_Write]) -> list[Any]:
        """Results and refusals in the order of the batch."""
        results: list[Any] = []
        for write in batch:
            try:
                results.append(self._disk.apply(write.name, write.args, write.options))
            except Refused as refused:
                results.append(refused)
        return results

    async def _pass(self, seconds: float) -> None:
        done: Deferred[None] = Deferred()
        self._unheard.append(done)
        self._clock.callLater(seconds, self._over, done)
        await done

    def _over(self, done: Deferred[None]) -> None:
        self._unheard.remove(done)
        done.callback(None)
