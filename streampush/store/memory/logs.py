"""All channels' logs in memory, each and together within limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability
from streampush.push.values import Appended, Cursor, Draft, Head, Page, Publication, PushRecord, PushResult, Survey, Want
from streampush.store.drafts import published
from streampush.store.memory.log import Entry, Log
from streampush.store.trimmed import Trimmed

TRIM_AT_ONCE = 100
"""Entries that one append or sweep drops from a channel at most; what is left goes with the next ones."""

SWEEP_ENTRIES = 1_000
"""Entries of a channel that one sweep looks at."""


class Space:
    """The bytes that count against the limit of the whole store: of logs, of what is scheduled, of dead letters and of work."""

    __slots__ = ("_max_bytes", "used")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used = 0

    def has(self, size: int) -> bool:
        """Whether so many more may be used."""
        return self.used + size <= self._max_bytes

    def check(self, size: int, channel: str = "") -> None:
        """Raises Refused(QUOTA_EXCEEDED) if there is not so much."""
        if not self.has(size):
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {self.used} bytes, its limit", channel=channel)


class Logs:
    """Logs by channel, their entries by message id. What they hold is counted in `space`.

    `epoch` is that of every log: they all live as long as the process, and following takes no memory.
    """

    def __init__(self, limits: StoreConfig, epoch: str, wall_ms: Callable[[], int], space: Space) -> None:
        self._limits = limits
        self._wall_ms = wall_ms
        self._space = space
        self.epoch = epoch
        self.channels: dict[str, Log] = {}
        self.entries: dict[str, Entry] = {}
        self._apns_ids: dict[str, tuple[Entry, str]] = {}  # with the device
        self.trimmed = Trimmed()
        self.publications = 0
        """How many the logs have, those without payload too."""

    def get(self, channel: str) -> Log | None:
        return self.channels.get(channel)

    def find(self, message_id: str) -> Entry | None:
        """The entry of a message that is in a log."""
        return self.entries.get(message_id)

    # ---------------------------------------------------------------------------------------------------------- adding

    def begin(self, channel: str) -> Log:
        """The log for an append. Raises Refused(QUOTA_EXCEEDED)."""
        if channel not in self.channels and len(self.channels) >= self._limits.max_channels:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {len(self.channels)} channels, its limit", channel=channel)
        return self.begin_anyway(channel)

    def begin_anyway(self, channel: str) -> Log:
        """As `begin`, for what was accepted before: no limit holds it up."""
        log = self.channels.get(channel)
        if log is None:
            log = self.channels[channel] = Log(channel, self.epoch)
        return log

    def append(self, draft: Draft, published_at_ms: int, log: Log) -> Appended:
        """Adds the draft to the end of the log."""
        publication = published(draft, log.top_offset + 1, published_at_ms)
        return self._add(log, Entry(publication, draft.publisher, draft.version, draft.deliver_at_ms))

    def take_back(self, entries: Sequence[Entry], notice_id: Callable[[str], str], at_ms: int) -> list[Appended]:
        """Frees what entries hold and adds the notices of their recalls to their logs, in the same order.

        `notice_id` gives the id of the notice for a message's. All are freed first: a notice may trim the next entry away.
        """
        for entry in entries:
            entry.recalled_at_ms = at_ms
            self._space.used -= self.channels[entry.publication.channel].free(entry)
        return [self._give_notice(entry, notice_id(entry.publication.message_id), at_ms) for entry in entries]

    def _give_notice(self, entry: Entry, notice_id: str, at_ms: int) -> Appended:
        log = self.channels[entry.publication.channel]
        notice = Publication(log.channel, log.top_offset + 1, notice_id, b"", at_ms, recalls=entry.publication.message_id)
        return self._add(log, Entry(notice, entry.publisher))

    def _add(self, log: Log, entry: Entry) -> Appended:
        self._space.used += entry.weight - log.add(entry)
        self.publications += 1
        self.entries[entry.publication.message_id] = entry
        self._trim(log)
        return Appended(entry.publication, log.epoch, Durability.MEMORY)

    # ----------------------------------------------------------------------------------------------------------- pushes

    def pushed(self, entry: Entry, device_id: str, result: PushResult) -> None:
        """How a push of the entry to the device ended."""
        self._forget_push(entry, device_id)
        entry.pushed(device_id, result)
        stands = entry.pushes.get(device_id) if entry.pushes else None
        if stands is not None and stands.apns_id:
            self._apns_ids[stands.apns_id] = entry, device_id

    def push_of(self, apns_id: str) -> PushRecord | None:
        """See push.store_ports.MessageStore.push_of."""
        entry, device_id = self._apns_ids.get(apns_id, (None, ""))
        if entry is None or entry.pushes is None:
            return None
        return PushRecord(entry.publication.message_id, device_id, entry.pushes[device_id])

    def _forget_push(self, entry: Entry, device_id: str) -> None:
        known = entry.pushes.get(device_id) if entry.pushes else None
        if known is not None and self._apns_ids.get(known.apns_id) == (entry, device_id):
            del self._apns_ids[known.apns_id]

    # --------------------------------------------------------------------------------------------------------- dropping

    def make_room(self, channel: str, size: int) -> None:
        """Frees what it can in a channel before an append to it is refused. Raises Refused(QUOTA_EXCEEDED)."""
        if self._space.has(size):
            return
        log = self.channels.get(channel)
        if log is not None:
            self._drop(log, self._wall_ms())
        self._space.check(size, channel)

    def sweep(self, channels: int) -> None:
        """Frees what is too old or expired in so many channels, the ones not swept for longest first."""
        now_ms = self._wall_ms()
        for channel in list(islice(self.channels, channels)):
            log = self.channels.pop(channel)
            self.channels[channel] = log  # to the end of the queue
            self._drop(log, now_ms)

    def _drop(self, log: Log, now_ms: int) -> None:
        self._trim(log)
        self._space.used -= log.free_expired(now_ms, SWEEP_ENTRIES)

    def _trim(self, log: Log) -> None:
        """Drops what is over the count, the bytes or the age of the channel, some at a time; the newest entry always stays."""
        limits = self._limits
        now_ms = self._wall_ms()
        oldest_ms = now_ms - int(limits.history_age * 1000)
        for _ in range(TRIM_AT_ONCE):
            count = len(log)
            if count <= 1 or not (
                count > limits.history_messages
                or log.size > limits.history_bytes
                or log.at(log.floor_offset + 1).publication.published_at_ms < oldest_ms
            ):
                return
            floor = log.floor_offset
            entry = log.trim_one()
            if entry.readable(now_ms):
                self.trimmed.note(log.channel, floor)
            self._space.used -= entry.weight
            self.publications -= 1
            for device_id in entry.pushes or ():
                self._forget_push(entry, device_id)
            message_id = entry.publication.message_id
            if self.entries.get(message_id) is entry:
                del self.entries[message_id]

    # ---------------------------------------------------------------------------------------------------------- reading

    def head(self, channel: str) -> Head:
        """See push.store_ports.LogStore.head."""
        log = self.channels.get(channel)
        return Head(self.epoch, 0) if log is None else log.head()

    def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        """See push.store_ports.LogStore.read."""
        log = self.channels.get(channel)
        if log is None:
            return Page(self.head(channel), (), after)
        return log.read(after, max_messages, max_bytes, self._wall_ms())

    def survey(self, want: Want, cursor: Cursor | None, now_ms: int) -> Survey:
        """See push.store_ports.LogStore.survey; `cursor` is the device's on this channel."""
        log = self.channels.get(want.channel) or Log(want.channel, self.epoch)
        offsets = {*want.offsets, log.top_offset}
        if cursor is not None and cursor.epoch == log.epoch:
            offsets.add(cursor.offset)
        return Survey(want.channel, log.head(), cursor, log.spots(offsets, now_ms))
