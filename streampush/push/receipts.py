"""Receipts: who wants to know what becomes of a message is told, from what the store has.

Theory of operation. What connections, recalls and newer versions do to messages is heard of here *after* it is stored, and only
as a hint: the message is read again, and its watchers get the whole of its progress. A watcher tells what it has not told yet.
So a lost, repeated or reordered hint does no harm, nothing is told that is not stored, and a watcher without room just looks
later. Of what other nodes do the bus gives hints, which is told what is watched here. Hints of a moment are gathered, and a message
that many hints are about is read once; a few reads run at a time, so a slow store makes receipts late, not memory large. While
nobody watches, a hint costs one look at an empty table.

A message's time runs out without a hint: for that there is an alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.push.alarm import Alarm
from streampush.push.channels import Kind, kind_of
from streampush.push.ports import Spawner
from streampush.push.progress import EXPIRY_GRACE_MS, MessageProgress, progress_of
from streampush.push.store_ports import Store
from streampush.push.values import Appended, CursorMove, Mark, Published, PushRecord, Undeliverable
from streampush.push.watching import Reached, Watch, WatchedLog, Watcher

MAX_DEVICES = 1_000
"""Devices of one message that are looked at, shown and told of."""

GATHER = 0.05
"""Seconds between the first hint and the reading: a delivery and its acknowledgement then take one read."""

COUNTS_INTERVAL = 1.0
"""Seconds between two looks at the counts of a topic's message, which may change with every acknowledgement."""

READS = 4
"""Messages read at the same time."""


class Receipts:
    """What became of messages, on demand and as it happens. `max_watched`: messages watched at once on this node.

    `clock` gives monotonic seconds, `wall_ms` Unix milliseconds, `alarm` belongs to this object alone. `watching` is told of each
    message that begins and ends to be watched: see bus.Bus.watch.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_watched: int,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        spawn: Spawner,
        alarm: Alarm,
        retry_later: Callable[[Callable[[], None]], object],
        watching: Callable[[str, bool], None] = lambda message_id, watched: None,
    ) -> None:
        self._store = store
        self._max_watched = max_watched
        self._clock = clock
        self._wall_ms = wall_ms
        self._spawn = spawn
        self._alarm = alarm
        self._retry_later = retry_later
        self._watching = watching
        self._by_id: dict[str, Watch] = {}
        self._logs: dict[tuple[str, str], WatchedLog] = {}
        self._due: dict[str, None] = {}  # message ids, in the order of their first hints
        self._readers = 0
        self._gathering = False
        self._waiting = False  # for the store
        self._stopped = False
        alarm.ring = self._look

    # ------------------------------------------------------------------------------------------------------------- asking

    async def progress(self, message_id: str) -> MessageProgress:
        """What became of a message, as of now. Raises Refused: UNKNOWN_RECIPIENT, STORE_UNAVAILABLE."""
        found = await self._read(message_id)
        if found is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        return found

    async def push(self, apns_id: str) -> PushRecord:
        """What became of the last push of a message to a device; ids of a push are the same in capitals.

        Raises Refused: UNKNOWN_RECIPIENT, STORE_UNAVAILABLE.
        """
        found = await self._store.push_of(apns_id.lower())
        if found is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no push to a device has this id, or its message has left the log")
        return found

    async def _read(self, message_id: str) -> MessageProgress | None:
        asked_ms = self._wall_ms()  # behind that an answer may be stored that the record lacks: the message has not expired by it
        record = await self._store.message(message_id, MAX_DEVICES + 1)
        if record is None:
            return None
        kind, name = kind_of(record.channel)
        meant: Sequence[str] = (name,) if kind is Kind.DEVICE else ()
        if kind is Kind.USER:
            meant = [device.device_id for device in await self._store.devices_of_user(name, MAX_DEVICES + 1)]
        return progress_of(record, meant, asked_ms, MAX_DEVICES)

    # ----------------------------------------------------------------------------------------------------------- watching

    @property
    def watched(self) -> int:
        """Messages that are watched now."""
        return len(self._by_id)

    def watch(self, message_id: str, watcher: Watcher) -> Watch:
        """The watcher is told of what is there already, soon, and then of what happens, until `unwatch`.

        Raises Refused(OVERLOADED) if too many messages are watched.
        """
        watch = self._enter(message_id, watcher)
        self._hint(watch)
        return watch

    def watch_published(self, published: Published, expires_at_ms: int, watcher: Watcher) -> Watch:
        """As `watch`, for a message that was published just now: nothing is read before something has happened to it.

        `expires_at_ms` need not be exact, 0: it does not expire.
        """
        watch = self._enter(published.message_id, watcher)
        if not watch.offset:
            self._locate(watch, published.channel, published.epoch, published.offset)
            self._arm(watch, expires_at_ms, published.deliver_at_ms, self._wall_ms())
        return watch

    def _enter(self, message_id: str, watcher: Watcher) -> Watch:
        watch = self._by_id.get(message_id)
        if watch is None:
            if len(self._by_id) >= self._max_watched:
                raise Refused(Code.OVERLOADED, f"{self._max_watched} messages are watched on this node", retry_after=1.0)
            watch = self._by_id[message_id] = Watch(message_id)
            self._watching(message_id, True)
        watch.watchers[watcher] = None
        return watch

    def unwatch(self, watch: Watch, watcher: Watcher) -> None:
        """The watcher is told no more. Harmless if it was not told any more."""
        watch.watchers.pop(watcher, None)
        if not watch.watchers and self._by_id.get(watch.message_id) is watch:
            self._forget(watch)

    def look(self, watch: Watch) -> None:
        """The message is read soon, and its watchers are told."""
        if watch.message_id in self._by_id:
            self._hint(watch)

    def _forget(self, watch: Watch) -> None:
        del self._by_id[watch.message_id]
        self._due.pop(watch.message_id, None)
        self._alarm.cancel(watch.message_id)
        self._take_out(watch)
        self._watching(watch.message_id, False)

    def _take_out(self, watch: Watch) -> None:
        key = watch.channel, watch.epoch
        log = self._logs.get(key)
        if log is not None and watch.offset:
            log.remove(watch)
            if not log.offsets:
                del self._logs[key]

    def _locate(self, watch: Watch, channel: str, epoch: str, offset: int) -> None:
        """It is known where the message is: from now on what happens there is about it."""
        self._take_out(watch)
        watch.channel, watch.epoch, watch.offset = channel, epoch, offset
        watch.topic = kind_of(channel)[0] in (Kind.TOPIC, Kind.INTERNAL)
        if offset:
            self._logs.setdefault((channel, epoch), WatchedLog()).add(watch)

    def _arm(self, watch: Watch, expires_at_ms: int, deliver_at_ms: int, as_of_ms: int) -> None:
        """The message is looked at when its time is over, and, if it is scheduled, when it is due: it may not go out.

        At once if that is past by now, and was not at `as_of_ms`, when it was looked at last.
        """
        now_ms = self._wall_ms()
        for at_ms in (expires_at_ms, deliver_at_ms if not watch.offset else 0):
            look_at_ms = at_ms + EXPIRY_GRACE_MS
            if at_ms and look_at_ms > as_of_ms:
                self._alarm.set(watch.message_id, self._clock() + max(0, look_at_ms - now_ms) / 1000, sooner=True)

    # -------------------------------------------------------------------------------------------------------------- hints

    def recorded(self, moves: Iterable[CursorMove], marks: Iterable[Mark], undeliverable: Iterable[Undeliverable]) -> None:
        """The store has taken what connections have reached."""
        if not self._logs:
            return
        for move in moves:
            log = self._logs.get((move.channel, move.epoch))
            if log is not None:
                self._moved(log, move)
        for mark in marks:
            self._touch(mark.channel, mark.epoch, mark.first, mark.last)
        for one in undeliverable:
            self._touch(one.channel, one.epoch, one.offset, one.offset)

    def _moved(self, log: WatchedLog, move: CursorMove) -> None:
        topic = log.by_offset[log.offsets[0]].topic
        reached = Reached() if topic else log.reached.setdefault(move.device_id, Reached())
        for first, last in ((reached.offset, move.offset), (reached.processed, move.processed)):
            for watch in log.between(first + 1 if first <= last else 0, last):
                self._hint(watch)
        reached.offset, reached.processed = move.offset, move.processed

    def _touch(self, channel: str, epoch: str, first: int, last: int) -> None:
        log = self._logs.get((channel, epoch))
        if log is not None:
            for watch in log.between(first, last):
                self._hint(watch)

    def appended(self, appended: Appended) -> None:
        """A publication is in its log: it may be a scheduled one that was fired, a recall notice, or a newer version."""
        if not self._by_id:
            return
        publication = appended.publication
        self.changed(publication.message_id)
        self.changed(publication.recalls)
        if publication.collapse_key:
            self._touch(publication.channel, appended.epoch, 0, publication.offset)

    def changed(self, message_id: str) -> None:
        """The message was taken back or removed, or another node says that something became of it."""
        watch = self._by_id.get(message_id)
        if watch is not None:
            self._hint(watch)

    def _hint(self, watch: Watch) -> None:
        """Something may have happened to the message."""
        if watch.topic and self._clock() < watch.due_at:
            self._alarm.set(watch.message_id, watch.due_at, sooner=True)
            return
        self._due[watch.message_id] = None
        self._gather()

    def stop(self) -> None:
        """Nobody is told any more, and no timer is left."""
        self._stopped = True
        self._due.clear()
        self._alarm.stop()

    def _gather(self) -> None:
        if not self._gathering and not self._waiting and not self._stopped:
            self._gathering = True
            self._alarm.set("", self._clock() + GATHER)

    # ------------------------------------------------------------------------------------------------------------ reading

    def _look(self, message_id: str) -> None:
        """An alarm: the gathering is over, or a message's time has run out or come."""
        if message_id:
            watch = self._by_id.get(message_id)
            if watch is None:
                return
            self._hint(watch)
            return
        self._gathering = False
        self._start_readers()

    def _start_readers(self) -> None:
        self._waiting = False
        for _ in range(min(len(self._due), READS) - self._readers):
            self._readers += 1
            self._spawn(self._work())

    async def _work(self) -> None:
        """Reads what is due, one message after the other."""
        try:
            while self._due and not self._waiting:
                message_id = next(iter(self._due))
                del self._due[message_id]
                watch = self._by_id.get(message_id)
                if watch is not None and watch.reading:
                    watch.again = True
                elif watch is not None:
                    await self._look_at(watch)
        finally:
            self._readers -= 1
            if self._due:  # a fault of ours must not end the telling for good
                self._gather()

    async def _look_at(self, watch: Watch) -> None:
        watch.reading = True
        watch.due_at = self._clock() + COUNTS_INTERVAL
        try:
            progress = await self._read(watch.message_id)
        except StoreUnavailable:
            self._due[watch.message_id] = None
            if not self._waiting:
                self._waiting = True
                self._retry_later(self._start_readers)
            return
        finally:
            watch.reading = False
            if watch.again:
                watch.again = False
                self._due[watch.message_id] = None
        if self._by_id.get(watch.message_id) is watch:
            self._tell(watch, progress)

    def _tell(self, watch: Watch, progress: MessageProgress | None) -> None:
        if progress is None:
            self._forget(watch)
            for watcher in list(watch.watchers):
                watcher.gone()
            return
        record = progress.record
        if (record.epoch, record.offset) != (watch.epoch, watch.offset):
            self._locate(watch, record.channel, record.epoch, record.offset)
            self._hint(watch)  # what happened between the reading and now went by unheard
        self._arm(watch, record.expires_at_ms, record.deliver_at_ms, progress.as_of_ms)
        for watcher in list(watch.watchers):
            watcher.progressed(progress)
