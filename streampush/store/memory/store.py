"""See push.ports.Store: the parts of the store in memory, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Milestone
from streampush.push.ids import clearing_id
from streampush.push.values import (
    Accepted,
    Appended,
    ChannelPresence,
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
    MessageRecord,
    OutboxEntry,
    Page,
    Publication,
    Session,
    StoreStatus,
    Survey,
    Undeliverable,
    Want,
)
from streampush.store.memory import receipts
from streampush.store.memory.devices import Cursors, DeadLetters, Devices
from streampush.store.memory.keys import Keys
from streampush.store.memory.log import Entry, Log, published, weight
from streampush.store.memory.waiting import Outbox, Schedule
from streampush.store.presence import PresenceTable

TRIM_AT_ONCE = 100
"""Entries that one append or sweep drops from a channel at most; what is left goes with the next ones."""

SWEEP_ENTRIES = 1_000
"""Entries of a channel, or keys of a publisher, that one sweep looks at."""


class MemoryStore:
    """See push.ports.Store. `wall_ms` gives Unix milliseconds; `new_epoch` a random id."""

    durability = Durability.MEMORY

    def __init__(
        self,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        *,
        max_dead_letters: int = DeliveryConfig().max_dead_letters,
    ) -> None:
        self._limits = limits = limits.sized()
        self._wall_ms = wall_ms
        self._epoch = new_epoch()  # of every log: they all live as long as the process, and following takes no memory
        self._logs: dict[str, Log] = {}
        self._entries: dict[str, Entry] = {}  # what is in a log, by message id
        self._publications = 0
        self._size = 0
        self._devices = Devices(limits.max_devices)
        self._cursors = Cursors()
        self._letters = DeadLetters(max_dead_letters)
        self._keys = Keys(limits.max_idempotency_keys)
        self._schedule = Schedule()
        self._outbox = Outbox()
        self._presence = PresenceTable(wall_ms)

    # ----------------------------------------------------------------------------------------------------------- append

    async def append(self, draft: Draft) -> Accepted:
        self._check_recipient(draft.channel)
        asked = draft.idempotency
        now_ms = self._wall_ms() if asked is not None else 0
        if asked is not None:
            known = self._keys.answer(asked, now_ms, draft.channel)
            if known is not None:
                return replace(known, duplicate=True)
        accepted = self._accept(draft)
        if asked is not None:
            self._keys.keep(asked, replace(accepted, appended=None), now_ms)
        return accepted

    async def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        known = self._keys.answer(idempotency, self._wall_ms(), "")
        return None if known is None else replace(known, duplicate=True)

    def _check_recipient(self, channel: str) -> None:
        if not receipts.addressed(channel):
            return
        kind, _, name = channel.partition(":")
        if not (self._devices.knows_user(name) if kind == "user" else self._devices.get(name) is not None):
            raise Refused(Code.UNKNOWN_RECIPIENT, f"no {kind} of this id was ever seen", channel=channel)

    def _accept(self, draft: Draft) -> Accepted:
        newer = self._newer(draft)
        if newer is not None:
            return newer
        size = weight(draft.headers, draft.payload, draft.content_type)
        self._make_room(draft.channel, size)
        if draft.deliver_at_ms:
            self._put_off(draft, size)
            return Accepted(draft.message_id, draft.channel, 0, self._epoch, Durability.MEMORY, deliver_at_ms=draft.deliver_at_ms)
        appended = self._append(draft, draft.published_at_ms, self._begin(draft.channel))
        return Accepted(
            draft.message_id, draft.channel, appended.publication.offset, appended.epoch, Durability.MEMORY, appended=appended
        )

    def _newer(self, draft: Draft) -> Accepted | None:
        """The answer to a version that was overtaken."""
        log = self._logs.get(draft.channel) if draft.version else None
        if log is None:
            return None
        version, offset = log.newest_version(draft.collapse_key)
        if draft.version > version:
            return None
        return Accepted(draft.message_id, draft.channel, offset, log.epoch, Durability.MEMORY, superseded=True)

    def _put_off(self, draft: Draft, size: int) -> None:
        if len(self._schedule) >= self._limits.max_scheduled:
            detail = f"the store holds {len(self._schedule)} scheduled messages, its limit"
            raise Refused(Code.QUOTA_EXCEEDED, detail, channel=draft.channel)
        self._schedule.add(draft)
        self._size += size

    def _begin(self, channel: str) -> Log:
        """The log for an append. Raises Refused(QUOTA_EXCEEDED)."""
        log = self._logs.get(channel)
        if log is None:
            if len(self._logs) >= self._limits.max_channels:
                raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {len(self._logs)} channels, its limit", channel=channel)
            log = self._logs[channel] = Log(channel, self._epoch)
        return log

    def _append(self, draft: Draft, published_at_ms: int, log: Log) -> Appended:
        publication = published(draft, log.top_offset + 1, published_at_ms)
        return self._add(log, Entry(publication, draft.publisher, draft.version, draft.deliver_at_ms))

    def _add(self, log: Log, entry: Entry) -> Appended:
        self._size += entry.weight - log.add(entry)
        self._publications += 1
        self._entries[entry.publication.message_id] = entry
        self._trim(log)
        return Appended(entry.publication, log.epoch, Durability.MEMORY)

    def _make_room(self, channel: str, size: int) -> None:
        """Frees what it can in a channel before an append to it is refused. Raises Refused(QUOTA_EXCEEDED)."""
        if self._size + size <= self._limits.max_bytes:
            return
        log = self._logs.get(channel)
        if log is not None:
            self._trim(log)
            self._size -= log.free_expired(self._wall_ms(), SWEEP_ENTRIES)
        if self._size + size > self._limits.max_bytes:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {self._size} bytes, its limit", channel=channel)

    def _trim(self, log: Log) -> None:
        """Drops what is over the count, the bytes or the age of the channel, some at a time; the newest entry always stays."""
        limits = self._limits
        oldest_ms = self._wall_ms() - int(limits.history_age * 1000)
        for _ in range(TRIM_AT_ONCE):
            count = len(log)
            if count <= 1 or not (
                count > limits.history_messages
                or log.size > limits.history_bytes
                or log.at(log.floor_offset + 1).publication.published_at_ms < oldest_ms
            ):
                return
            entry = log.trim_one()
            self._size -= entry.weight
            self._publications -= 1
            message_id = entry.publication.message_id
            if self._entries.get(message_id) is entry:
                del self._entries[message_id]

    # ------------------------------------------------------------------------------------------------------------- logs

    def _head(self, channel: str) -> Head:
        log = self._logs.get(channel)
        return Head(self._epoch, 0) if log is None else log.head()

    async def head(self, channel: str) -> Head:
        return self._head(channel)

    async def peek(self, channel: str) -> Head | None:
        log = self._logs.get(channel)
        return None if log is None else log.head()

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        log = self._logs.get(channel)
        if log is None:
            return Page(self._head(channel), (), after)
        return log.read(after, max_messages, max_bytes, self._wall_ms())

    async def survey(self, device_id: str, wants: Sequence[Want]) -> Sequence[Survey]:
        now_ms = self._wall_ms()
        return [self._survey(device_id, want, now_ms) for want in wants]

    def _survey(self, device_id: str, want: Want, now_ms: int) -> Survey:
        cursor = self._cursors.get(device_id, want.channel)
        log = self._logs.get(want.channel) or Log(want.channel, self._epoch)
        offsets = {*want.offsets, log.top_offset}
        if cursor is not None and cursor.epoch == log.epoch:
            offsets.add(cursor.offset)
        return Survey(want.channel, log.head(), cursor, log.spots(offsets, now_ms))

    async def count_readable(self, spans: Sequence[tuple[str, int, int]]) -> Sequence[int]:
        now_ms = self._wall_ms()
        return [
            log.count_readable(after, last, now_ms) if (log := self._logs.get(channel)) is not None else 0
            for channel, after, last in spans
        ]

    async def next_due_ms(self) -> int | None:
        return self._schedule.next_ms()

    async def fire_due(self, now_ms: int, limit: int) -> Sequence[Appended]:
        fired = []
        for _ in range(limit):
            draft = self._schedule.take_due(now_ms)
            if draft is None:
                break
            self._size -= weight(draft.headers, draft.payload, draft.content_type)
            if not self._dropped(draft, now_ms):
                log = self._logs.get(draft.channel)
                if log is None:
                    log = self._logs[draft.channel] = Log(draft.channel, self._epoch)
                fired.append(self._append(draft, now_ms, log))
        return fired

    def _dropped(self, draft: Draft, now_ms: int) -> bool:
        """Whether a scheduled publication is of no use any more."""
        if 0 < draft.expires_at_ms <= now_ms or self._newer(draft) is not None:
            return True
        try:
            self._check_recipient(draft.channel)
        except Refused:
            return True
        return False

    async def status(self) -> StoreStatus:
        return StoreStatus(
            len(self._logs),
            self._publications,
            self._size,
            len(self._devices),
            len(self._schedule),
            len(self._letters),
            len(self._outbox),
        )

    def sweep(self, channels: int) -> None:
        """Frees what is too old or expired in so many channels and scopes of keys, the ones not swept for longest first.

        Call it often with a small number: it never looks at more than that.
        """
        now_ms = self._wall_ms()
        for channel in list(islice(self._logs, channels)):
            log = self._logs.pop(channel)
            self._logs[channel] = log  # to the end of the queue
            self._trim(log)
            self._size -= log.free_expired(now_ms, SWEEP_ENTRIES)
        self._keys.sweep(channels, SWEEP_ENTRIES, now_ms)

    # ---------------------------------------------------------------------------------------------------------- cursors

    async def cursors(self, device_id: str) -> Mapping[str, Cursor]:
        return self._cursors.of(device_id)

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        for one in marks:
            log = self._logs.get(one.channel)
            if log is not None:
                receipts.mark(log, one)
        now_ms = self._wall_ms()
        dead: dict[tuple[str, str], set[int]] = {}
        for failed in undeliverable:
            if self._bury(failed, now_ms):
                dead.setdefault((failed.device_id, failed.channel), set()).add(failed.offset)
        notices: list[Appended] = []
        for move in moves:
            before = self._cursors.move(move)
            log = self._logs.get(move.channel)
            if before is not None and log is not None:
                done = receipts.moved(log, move, before, dead.get((move.device_id, move.channel), ()), now_ms)
                notices += [
                    self._take_back(entry, clearing_id(entry.publication.message_id), move.at_ms or now_ms) for entry in done
                ]
        return notices

    def _bury(self, failed: Undeliverable, now_ms: int) -> bool:
        """Makes a dead letter; False if the publication may not be read any more."""
        log = self._logs.get(failed.channel)
        entry = log.find(failed.offset) if log is not None and log.epoch == failed.epoch else None
        if entry is None or not entry.readable(now_ms):
            return False
        letter = DeadLetter(failed.device_id, entry.publication, failed.attempts, failed.reason, failed.at_ms)
        for gone in self._letters.add(letter):
            self._size -= _letter_weight(gone)
        self._size += entry.weight
        if receipts.addressed(failed.channel):
            entry.reached(failed.device_id, Milestone.DEAD_LETTERED, failed.at_ms)
        elif entry.publication.want_receipt:
            entry.counted(Milestone.DEAD_LETTERED)
        return True

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        self._cursors.forget(device_id, channel)

    async def add_subscription(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        if self._devices.get(device_id) is None:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no device of this id was ever seen", channel=channel)
        return self._cursors.add_durable(device_id, channel, at_ms, at_most)

    async def remove_subscription(self, device_id: str, channel: str) -> bool:
        return self._cursors.remove_durable(device_id, channel)

    async def subscriptions(self, device_id: str) -> Sequence[DurableSubscription]:
        return self._cursors.durable(device_id)

    # ---------------------------------------------------------------------------------------------------------- devices

    async def device(self, device_id: str) -> DeviceRecord | None:
        return self._devices.get(device_id)

    async def remember_device(self, record: DeviceRecord) -> None:
        self._devices.remember(record)

    async def forget_device(self, device_id: str) -> bool:
        self._cursors.forget_device(device_id)
        for letter in self._letters.forget_device(device_id):
            self._size -= _letter_weight(letter)
        return self._devices.forget(device_id)

    async def devices_of_user(self, user_id: str, limit: int) -> Sequence[DeviceRecord]:
        return self._devices.of_user(user_id, limit)

    async def devices_named(self, prefix: str, limit: int) -> Sequence[str]:
        return self._devices.named(prefix, limit)

    async def dead_letters(self, device_id: str, before_ms: int, limit: int) -> Sequence[DeadLetter]:
        return self._letters.of(device_id, before_ms, limit)

    async def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        return self._letters.get(device_id, message_id)

    async def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        letter = self._letters.drop(device_id, message_id)
        if letter is None:
            return False
        self._size -= _letter_weight(letter)
        return True

    # --------------------------------------------------------------------------------------------------------- messages

    async def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        entry = self._entries.get(message_id)
        if entry is not None:
            return receipts.describe(self._logs[entry.publication.channel], entry, max_devices)
        draft = self._schedule.get(message_id)
        return None if draft is None else receipts.describe_scheduled(draft, self._epoch)

    async def recall(self, message_id: str, notice_id: str, at_ms: int) -> Appended | None:
        draft = self._schedule.remove(message_id)
        if draft is not None:
            self._size -= weight(draft.headers, draft.payload, draft.content_type)
            return None
        entry = self._entries.get(message_id)
        if entry is None or entry.publication.recalls:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        if entry.recalled_at_ms:
            return None
        return self._take_back(entry, notice_id, at_ms)

    def _take_back(self, entry: Entry, notice_id: str, at_ms: int) -> Appended:
        log = self._logs[entry.publication.channel]
        entry.recalled_at_ms = at_ms
        self._size -= log.free(entry)
        notice = Publication(log.channel, log.top_offset + 1, notice_id, b"", at_ms, recalls=entry.publication.message_id)
        return self._add(log, Entry(notice, entry.publisher))

    # --------------------------------------------------------------------------------------------------------- presence

    async def begin_session(self, session: Session) -> int:
        return self._presence.begin(session)

    async def end_session(self, device_id: str, generation: int, close: Close) -> bool:
        if not self._presence.end(device_id, generation):
            return False
        self._devices.closed(device_id, close)
        return True

    async def session_follows(self, device_id: str, generation: int, channels: Sequence[str], *, follows: bool) -> None:
        self._presence.follows(device_id, generation, channels, follows=follows)

    async def extend_node(self, node: str, until_ms: int) -> None:
        self._presence.extend_node(node, until_ms)

    async def forget_node(self, node: str) -> None:
        self._presence.forget_node(node)

    async def session(self, device_id: str) -> Session | None:
        return self._presence.session(device_id)

    async def user_sessions(self, user_id: str, limit: int) -> Sequence[Session]:
        return self._presence.user_sessions(user_id, limit)

    async def channel_presence(self, channel: str, limit: int) -> ChannelPresence:
        return self._presence.channel(channel, limit)

    # ----------------------------------------------------------------------------------------------------------- outbox

    async def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        if (kind, key) in self._outbox:
            return False
        if len(self._outbox) >= self._limits.max_outbox:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {len(self._outbox)} entries of work, its limit")
        if self._size + len(body) > self._limits.max_bytes:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {self._size} bytes, its limit")
        self._outbox.add(kind, key, body, not_before_ms)
        self._size += len(body)
        return True

    async def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> Sequence[OutboxEntry]:
        return self._outbox.lease(kind, limit, now_ms, lease_ms)

    async def outbox_complete(self, token: str) -> bool:
        body = self._outbox.complete(token)
        if body is None:
            return False
        self._size -= len(body)
        return True

    async def outbox_release(self, token: str, not_before_ms: int) -> bool:
        return self._outbox.release(token, not_before_ms)

    async def outbox_next_ms(self, kind: str) -> int | None:
        return self._outbox.next_ms(kind)


def _letter_weight(letter: DeadLetter) -> int:
    publication = letter.publication
    return weight(publication.headers, publication.payload, publication.content_type)
