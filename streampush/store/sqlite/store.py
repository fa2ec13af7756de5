"""See push.store_ports.Store: everything in one SQLite file, written by one thread and read by another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import StoreUnavailable
from streampush.push.values import (
    Accepted,
    Appended,
    Close,
    Cursor,
    CursorMove,
    DeadLetter,
    DeviceRecord,
    Draft,
    DurableSubscription,
    Head,
    Idempotency,
    Mark,
    MessageReach,
    MessageRecord,
    OutboxEntry,
    OutboxWork,
    Page,
    PushRecord,
    Reach,
    StoreStatus,
    Survey,
    Undeliverable,
    Want,
)
from streampush.store.nodes import OneProcessNodes
from streampush.store.presence import OneProcessPresence
from streampush.store.sqlite.appending import DURABILITY
from streampush.store.sqlite.batches import APPEND, RECORD, RECORD_PUSHES, make_reader, make_writer
from streampush.store.sqlite.file import Abandoned, FileLock, identity, prepare
from streampush.store.sqlite.worker import Executor, InlineExecutor, Observer, ReactorThreads, Report, ThreadExecutor


def _ignore(report: Report, waiting: int) -> None:
    """For a store that nobody watches."""


class SqliteStore(OneProcessPresence, OneProcessNodes):
    """The store of one process. `wall_ms` gives Unix milliseconds; `new_epoch` a random id.

    With a `reactor` the work is done in threads between `open` and `stop`; without one at once, in the calling thread.
    `observe_writes` and `observe_reads` are told what came of each batch. `abandoned`, after `open`: the run before this one, if
    it did not end by a stop.
    """

    durability = DURABILITY

    def __init__(
        self,
        path: str,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        reactor: ReactorThreads | None = None,
        *,
        max_dead_letters: int = DeliveryConfig().max_dead_letters,
        max_cursors: int = DeliveryConfig().max_subscriptions,
        observe_writes: Observer = _ignore,
        observe_reads: Observer = _ignore,
    ) -> None:
        OneProcessPresence.__init__(self, wall_ms)
        OneProcessNodes.__init__(self, wall_ms)
        self._path = path
        self._wall_ms = wall_ms
        self._new_epoch = new_epoch
        self._lock = FileLock(path)
        self._identity = (0, 0)  # of the file that was opened
        self._gone = ""  # why nothing is written, if the file is not where it was
        self.abandoned: Abandoned | None = None
        self._writer: Executor
        self._reader: Executor
        limits = limits.sized()
        self.max_queue = limits.max_queue
        writer, reader = make_writer(path, limits, max_dead_letters, max_cursors), make_reader(path)
        if reactor is None:
            self._writer = InlineExecutor(writer, observe_writes)
            self._reader = InlineExecutor(reader, observe_reads)
        else:
            queue, batch = limits.max_queue, limits.max_batch
            self._writer = ThreadExecutor(
                "writer", writer, observe_writes, reactor, max_queue=queue, max_batch=batch, patient=(RECORD, RECORD_PUSHES)
            )
            self._reader = ThreadExecutor("reader", reader, observe_reads, reactor, max_queue=queue, max_batch=batch)

    # ------------------------------------------------------------------------------------------------------ open and stop

    def open(self) -> None:
        """Takes the file, makes it if it is not there, and starts to work. Blocks on the disk.

        Raises FileFault, or its subclass Locked if another server has the file.
        """
        self._lock.take()
        self.abandoned = self._lock.look_back()
        try:
            prepare(self._path, self._new_epoch, self._wall_ms())
            self._identity = identity(self._path)
        except BaseException:
            self._lock.release(unchanged=True)
            raise
        self._writer.start()
        self._reader.start()

    async def stop(self) -> bool:
        """Finishes what waits, and lets go of the file. False if the disk did not answer in time."""
        read = await self._reader.stop()
        written = await self._writer.stop()  # the last connection copies the write-ahead log into the file
        if read and written:
            self._lock.release()
        return read and written

    @property
    def writer(self) -> Executor:
        """For whoever watches it."""
        return self._writer

    @property
    def reader(self) -> Executor:
        """For whoever watches it."""
        return self._reader

    def sweep(self) -> Deferred[bool]:
        """Drops and frees a bounded number of things that are too old; whether there is more to do."""
        return self._write("sweep", self._wall_ms())

    def files(self) -> Deferred[tuple[int, int]]:
        """Bytes of the file, and of the write-ahead log."""
        return self._read("files", self._path)

    async def look(self) -> str:
        """Looks whether the file is where it was when it was opened, with its write-ahead log; "" if it is, else what is wrong.

        From then on nothing is written until it is there again: it would be lost at the end of the process. What was stored
        can be read on.
        """
        found, has_log = await self._writer.submit("place", self._path)
        if found == self._identity:
            self._gone = "" if has_log else "the write-ahead log of the store's file was deleted"
        elif found == (0, 0):
            self._gone = "the store's file was deleted or moved away"
        else:
            self._gone = "another file is in the place of the store's file"
        return self._gone

    def touch(self) -> Deferred[None]:
        """Writes something, to see whether that can be done, and whether there is room for more."""
        return self._write("touch")

    def _write(self, kind: str, *arguments: Any) -> Deferred[Any]:
        if self._gone:
            return fail(StoreUnavailable(self._gone))
        return self._writer.submit(kind, *arguments)

    def _read(self, kind: str, *arguments: Any) -> Deferred[Any]:
        return self._reader.submit(kind, *arguments)

    # ------------------------------------------------------------------------------------------------------------- logs

    async def append(self, draft: Draft) -> Accepted:
        if self._gone:
            raise StoreUnavailable(self._gone)
        accepted: Accepted = await self._writer.submit(APPEND, draft, self._wall_ms())
        return accepted

    async def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        known: Accepted | None = await self._write("first_answer", idempotency, self._wall_ms())
        return known

    async def head(self, channel: str) -> Head:
        head: Head = await self._read("head", channel)
        return head

    async def peek(self, channel: str) -> Head | None:
        head: Head | None = await self._read("peek", channel)
        return head

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        page: Page = await self._read("read", channel, after, max_messages, max_bytes, self._wall_ms())
        return page

    async def survey(self, device_id: str, wants: Sequence[Want]) -> Sequence[Survey]:
        surveys: list[Survey] = await self._read("survey", device_id, tuple(wants), self._wall_ms())
        return surveys

    async def count_readable(self, spans: Sequence[tuple[str, int, int]]) -> Sequence[int]:
        counts: list[int] = await self._read("count_readable", tuple(spans), self._wall_ms())
        return counts

    async def take_trimmed(self, limit: int) -> Sequence[tuple[str, int]]:
        trimmed: list[tuple[str, int]] = await self._write("take_trimmed", limit)
        return trimmed

    async def next_due_ms(self) -> int | None:
        due: int | None = await self._read("next_due_ms")
        return due

    async def fire_due(self, now_ms: int, limit: int) -> Sequence[Appended]:
        fired: list[Appended] = await self._write("fire_due", now_ms, limit)
        return fired

    async def status(self) -> StoreStatus:
        status: StoreStatus = await self._read("status")
        return status

    # ---------------------------------------------------------------------------------------------------------- cursors

    async def cursors(self, device_id: str) -> Mapping[str, Cursor]:
        cursors: dict[str, Cursor] = await self._read("cursors", device_id)
        return cursors

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        notices: list[Appended] = await self._write(RECORD, tuple(moves), tuple(marks), tuple(undeliverable), self._wall_ms())
        return notices

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        await self._write("forget_cursor", device_id, channel)

    async def add_subscription(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        return bool(await self._write("add_subscription", device_id, channel, at_ms, at_most))

    async def remove_subscription(self, device_id: str, channel: str) -> bool:
        return bool(await self._write("remove_subscription", device_id, channel))

    async def subscriptions(self, device_id: str) -> Sequence[DurableSubscription]:
        found: list[DurableSubscription] = await self._read("subscriptions", device_id)
        return found

    async def subscribers(self, channel: str, after: str, limit: int) -> Sequence[str]:
        names: list[str] = await self._read("subscribers", channel, after, limit)
        return names

    # ---------------------------------------------------------------------------------------------------------- devices

    async def device(self, device_id: str) -> DeviceRecord | None:
        record: DeviceRecord | None = await self._read("device", device_id)
        return record

    async def remember_device(self, record: DeviceRecord) -> None:
        await self._write("remember_device", record)

    async def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        return bool(await self._write("drop_token", device_id, token, at_ms))

    async def device_of_token(self, token: bytes) -> DeviceRecord | None:
        record: DeviceRecord | None = await self._read("device_of_token", token)
        return record

    async def forget_device(self, device_id: str) -> bool:
        while (known := await self._write("forget_device", device_id)) is None:
            pass  # others have their turn
        return bool(known)

    async def devices_of_user(self, user_id: str, limit: int) -> Sequence[DeviceRecord]:
        found: list[DeviceRecord] = await self._read("devices_of_user", user_id, limit)
        return found

    async def reach(self, channel: str, device_ids: Sequence[str]) -> Sequence[Reach]:
        found: list[Reach] = await self._read("reach", channel, device_ids)
        return self._located(found)

    def _located(self, reaches: Sequence[Reach]) -> Sequence[Reach]:
        """With the runs of nodes where the devices are connected, which the file does not know. Most are away."""
        runs = [self._presence.run(one.device_id) for one in reaches]
        if not any(runs):
            return reaches
        return [replace(one, run=run) for one, run in zip(reaches, runs, strict=True)]

    async def devices_named(self, prefix: str, limit: int) -> Sequence[str]:
        names: list[str] = await self._read("devices_named", prefix, limit)
        return names

    async def dead_letters(self, device_id: str, before_ms: int, limit: int) -> Sequence[DeadLetter]:
        found: list[DeadLetter] = await self._read("dead_letters", device_id, before_ms, limit)
        return found

    async def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        letter: DeadLetter | None = await self._read("dead_letter", device_id, message_id)
        return letter

    async def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        return bool(await self._write("drop_dead_letter", device_id, message_id))

    # --------------------------------------------------------------------------------------------------------- messages

    async def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        record: MessageRecord | None = await self._read("message", message_id, max_devices)
        return record

    async def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], *, results: bool) -> Sequence[MessageReach | None]:
        return self._all_located(await self._read("reach_with", asked, results))

    async def reach_users(self, message_ids: Sequence[str], limit: int, *, results: bool) -> Sequence[MessageReach | None]:
        return self._all_located(await self._read("reach_users", tuple(message_ids), limit, results))

    def _all_located(self, found: list[MessageReach | None]) -> Sequence[MessageReach | None]:
        for number, one in enumerate(found):
            if one is not None and (located := self._located(one.reaches)) is not one.reaches:
                found[number] = replace(one, reaches=tuple(located))
        return found

    async def recall(self, message_id: str, notice_id: str, at_ms: int) -> Appended | None:
        appended: Appended | None = await self._write("recall", message_id, notice_id, at_ms, self._wall_ms())
        return appended

    async def record_pushes(self, records: Sequence[PushRecord]) -> None:
        await self._write(RECORD_PUSHES, tuple(records))

    async def push_of(self, apns_id: str) -> PushRecord | None:
        found: PushRecord | None = await self._read("push_of", apns_id)
        return found

    # --------------------------------------------------------------------------------------------------------- presence

    async def _keep_close(self, device_id: str, close: Close) -> None:
        await self._write("closed", device_id, close)

    # ----------------------------------------------------------------------------------------------------------- outbox

    async def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        return bool(await self._write("outbox_add", kind, key, body, not_before_ms))

    async def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> Sequence[OutboxEntry]:
        leased: list[OutboxEntry] = await self._write("outbox_lease", kind, limit, now_ms, lease_ms)
        return leased

    async def outbox_complete(self, token: str) -> bool:
        return bool(await self._write("outbox_complete", token))

    async def outbox_release(self, token: str, not_before_ms: int) -> bool:
        return bool(await self._write("outbox_release", token, not_before_ms))

    async def outbox_hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        await self._write("outbox_hasten", kind, tuple(keys), not_before_ms)

    async def outbox_replace(self, token: str, works: Sequence[OutboxWork], records: Sequence[PushRecord] = ()) -> bool:
        return bool(await self._write("outbox_replace", token, tuple(works), tuple(records)))

    async def outbox_branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        follows: str | None = await self._write("outbox_branch", token, body, tuple(works))
        return follows

    async def outbox_next_ms(self, kind: str) -> int | None:
        due: int | None = await self._read("outbox_next_ms", kind)
        return due
