"""Appending in bulk: all the drafts of a batch are looked up, decided and written together, in a number of steps that does not
grow with them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Priority
from streampush.push.channels import is_addressed
from streampush.push.values import FALLBACK, Accepted, Appended, Draft, Idempotency, OutboxWork
from streampush.store.drafts import published, weight
from streampush.store.packing import FREED, pack_flags, pack_headers
from streampush.store.sqlite.keys import Keys
from streampush.store.sqlite.ledger import Ledger, Log
from streampush.store.sqlite.outbox import Outbox
from streampush.store.sqlite.retention import PAGE_BYTES, Retention, units
from streampush.store.sqlite.rows import MAX_CHANNELS, MAX_OFFSET, OFFSET_BITS, entry_id, read_many, write_many

DURABILITY = Durability.LOCAL_FSYNC

_ENTRY_COLUMNS = (
    "id, message_id, published_at, expires_at, deliver_at, priority, flags, size, weight, version, superseded_by, recalled_at,"
    " recalls, collapse_key, publisher, content_type, headers, payload"
)
_INSERT_ENTRIES = f"INSERT INTO entries ({_ENTRY_COLUMNS}) VALUES"
_SUPERSEDE = f"""
UPDATE entries SET superseded_by = json_extract(j.value, '$[1]'), weight = length(content_type), flags = flags | {FREED},
    headers = '', payload = x'' FROM json_each(?) AS j WHERE entries.id = json_extract(j.value, '$[0]')
"""
_READ_COLLAPSES = (
    "SELECT json_group_array(json_array(channel, key, position, version, versioned,"
    f" (SELECT weight - length(content_type) FROM entries WHERE id = (channel << {OFFSET_BITS} | position))))"
    " FROM wanted CROSS JOIN collapses ON channel = a AND key = b"
)
_INSERT_COLLAPSES = "INSERT OR REPLACE INTO collapses (channel, key, position, version, versioned) VALUES"
_INSERT_SCHEDULED = (
    "INSERT INTO scheduled (deliver_at, message_id, channel, published_at, expires_at, priority, flags, weight, version,"
    " collapse_key, publisher, content_type, headers, payload, fallback) VALUES"
)


class _Newest:
    """A row of collapses, and the bytes that can be freed of its newest entry."""

    __slots__ = ("position", "version", "versioned", "weight")

    def __init__(self, position: int = 0, version: int = 0, versioned: int = 0, weight: int = 0) -> None:
        self.position = position
        self.version = version
        self.versioned = versioned
        self.weight = weight


class Appending:
    """The writer's appends. Every public method writes what it has decided before it returns."""

    def __init__(self, ledger: Ledger, limits: StoreConfig, retention: Retention, keys: Keys, outbox: Outbox) -> None:
        self._ledger = ledger
        self._limits = limits
        self._retention = retention
        self._keys = keys
        self._outbox = outbox
        self._max_channels = min(limits.max_channels, MAX_CHANNELS)
        self._entries: list[tuple[Any, ...]] = []
        self._scheduled: list[tuple[Any, ...]] = []
        self._superseded: list[tuple[int, int]] = []  # entry, offset of the newer one
        self._counted: list[tuple[int]] = []  # entries of topics that want a receipt
        self._collapsing: list[Draft] = []  # of this batch, those that may supersede or be overtaken
        self._newest: dict[tuple[int, str], _Newest] = {}  # that they may supersede, by channel and collapse key
        self._changed: dict[tuple[int, str], _Newest] = {}
        self._unknown: set[str] = set()  # channels of devices and users that do not exist
        self._touched: dict[str, tuple[Log, int]] = {}  # logs by name, with their top before
        self._pages: dict[int, int] = {}  # that large entries fill, by the log's id

    def append(self, drafts: Sequence[tuple[Draft, int]]) -> list[Accepted | Refused]:
        """Appends each draft, with the Unix milliseconds of its arrival, or says why not; see push.store_ports.LogStore.append."""
        self._look_up([draft for draft, _ in drafts])
        outcomes: list[Accepted | Refused] = []
        for draft, now_ms in drafts:
            try:
                outcomes.append(self._append(draft, now_ms))
            except Refused as refused:
                outcomes.append(refused)
        self._write(drafts[-1][1])
        return outcomes

    def _look_up(self, drafts: Sequence[Draft]) -> None:
        """Reads what has to be known of all drafts of the batch."""
        channels = dict.fromkeys([draft.channel for draft in drafts])
        addressed = [channel for channel in channels if is_addressed(channel)]
        ledger = self._ledger
        ledger.fetch(channels)
        ledger.fetch_recipients(addressed)
        self._unknown = {channel for channel in addressed if not ledger.is_recipient(channel)}
        self._collapsing = [draft for draft in drafts if draft.collapse_key or draft.version]
        self._keys.fetch([draft.idempotency for draft in drafts if draft.idempotency is not None])
        self._fetch_newest()

    def _append(self, draft: Draft, now_ms: int) -> Accepted:
        if draft.channel in self._unknown:
            kind = draft.channel.partition(":")[0]
            raise Refused(Code.UNKNOWN_RECIPIENT, f"no {kind} of this id was ever seen", channel=draft.channel)
        asked = draft.idempotency
        if asked is None:
            return self._accept(draft, now_ms)
        known = self._keys.answer(asked, now_ms, draft.channel)
        if known is not None:
            return replace(known, duplicate=True)
        accepted = self._accept(draft, now_ms)
        self._keys.keep(asked, replace(accepted, appended=None))
        return accepted

    def _accept(self, draft: Draft, now_ms: int) -> Accepted:
        newer = self._newer(draft) if draft.version else None
        if newer is not None:
            return newer
        size = weight(draft.headers, draft.payload, draft.content_type)
        needed = size + len(draft.fallback)
        if self._ledger.totals.bytes + needed > self._limits.max_bytes:
            self._make_room(draft.channel, needed, now_ms)
        epoch = self._ledger.epoch
        if draft.deliver_at_ms:
            self._put_off(draft, needed)
            return Accepted(draft.message_id, draft.channel, 0, epoch, DURABILITY, deliver_at_ms=draft.deliver_at_ms)
        if draft.fallback:
            self._outbox.check(draft.channel)
        appended = self._enter(draft, draft.published_at_ms, size, self._begin(draft.channel))
        offset = appended.publication.offset
        return Accepted(draft.message_id, draft.channel, offset, epoch, DURABILITY, False, False, 0, appended)

    def _newer(self, draft: Draft) -> Accepted | None:
        """The answer to a version that was overtaken; None: it has none, or was not."""
        log = self._ledger.log(draft.channel) if draft.version else None
        newest = None if log is None else self._newest.get((log.id, draft.collapse_key))
        if newest is None or draft.version > newest.version:
            return None
        epoch = self._ledger.epoch
        return Accepted(draft.message_id, draft.channel, newest.versioned, epoch, DURABILITY, superseded=True)

    def _make_room(self, channel: str, size: int, now_ms: int) -> None:
        """Frees what it can in a channel, in a full store, before an append to it is refused. Raises Refused(QUOTA_EXCEEDED)."""
        totals, most = self._ledger.totals, self._limits.max_bytes
        self._write(now_ms)  # may trim
        log = self._ledger.log(channel)
        if log is not None and totals.bytes + size > most:
            self._retention.free_expired(log, now_ms)
        self._fetch_newest()  # some may be gone, or freed
        self._keys.fetch_again()
        if totals.bytes + size > most:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {totals.bytes} bytes, its limit", channel=channel)

    def _put_off(self, draft: Draft, size: int) -> None:
        totals = self._ledger.totals
        if totals.scheduled >= self._limits.max_scheduled:
            detail = f"the store holds {totals.scheduled} scheduled messages, its limit"
            raise Refused(Code.QUOTA_EXCEEDED, detail, channel=draft.channel)
        totals.scheduled += 1
        totals.bytes += size
        self._scheduled.append(
            (
                draft.deliver_at_ms,
                draft.message_id,
                draft.channel,
                draft.published_at_ms,
                draft.expires_at_ms,
                int(draft.priority),
                pack_flags(draft),
                size,
                draft.version,
                draft.collapse_key,
                draft.publisher,
                draft.content_type,
                pack_headers(draft.headers),
                draft.payload,
                draft.fallback,
            )
        )

    def _begin(self, channel: str) -> Log:
        """The log for an append. Raises Refused(QUOTA_EXCEEDED)."""
        touched = self._touched.get(channel)
        log = self._ledger.log(channel) if touched is None else touched[0]
        if log is None:
            count = self._ledger.totals.channels
            if count >= self._max_channels:
                raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {count} channels, its limit", channel=channel)
            log = self._ledger.begin(channel)
        if log.top >= MAX_OFFSET:
            raise Refused(Code.QUOTA_EXCEEDED, f"the channel has had {log.top} publications, its limit", channel=channel)
        return log

    # --------------------------------------------------------------------------------------------- what others append

    def fire(self, drafts: Sequence[Draft], now_ms: int) -> list[Appended]:
        """Appends scheduled drafts, those that are still of use; see push.store_ports.LogStore.fire_due."""
        ledger = self._ledger
        self._look_up(drafts)
        fired = []
        for draft in drafts:
            useless = 0 < draft.expires_at_ms <= now_ms or self._newer(draft) is not None
            if not useless and draft.channel not in self._unknown:
                log = ledger.log(draft.channel) or ledger.begin(draft.channel)
                fired.append(self._enter(draft, now_ms, weight(draft.headers, draft.payload, draft.content_type), log))
        self._write(now_ms)
        return fired

    def notices(self, wanted: Sequence[tuple[Log, Draft, str]], now_ms: int) -> list[Appended]:
        """Appends recall notices, each with the id of what it recalls."""
        appended = [self._enter(draft, draft.published_at_ms, 0, log, recalls) for log, draft, recalls in wanted]
        self._write(now_ms)
        return appended

    def first_answer(self, asked: Idempotency, now_ms: int) -> Accepted | None:
        """See push.store_ports.LogStore.first_answer."""
        self._keys.fetch([asked])
        known = self._keys.answer(asked, now_ms, "")
        return None if known is None else replace(known, duplicate=True)

    # ---------------------------------------------------------------------------------------------------------- entries

    def _enter(self, draft: Draft, published_at_ms: int, size: int, log: Log, recalls: str = "") -> Appended:
        """Adds an entry to a log, to be written; `size` is its weight."""
        if log.name not in self._touched:
            self._touched[log.name] = log, log.top
        log.top = offset = log.top + 1
        log.size += size
        log.expiring += draft.expires_at_ms > 0
        if offset == log.floor + 1:
            log.oldest_at = published_at_ms
        if draft.priority is Priority.HIGH:
            log.urgent = offset
        entry = entry_id(log.id, offset)
        if draft.want_receipt:
            log.receipted = offset
            if not is_addressed(log.name):
                self._counted.append((entry,))
        if draft.collapse_key or draft.version:
            self._supersede(log, draft, offset, size)
        if draft.fallback:
            self._outbox.expect(OutboxWork(FALLBACK, draft.message_id, draft.fallback, published_at_ms))
        if size >= PAGE_BYTES:
            self._pages[log.id] = self._pages.get(log.id, 0) + units(size) - 1
        totals = self._ledger.totals
        totals.publications += 1
        totals.bytes += size
        self._entries.append(
            (
                entry,
                draft.message_id,
                published_at_ms,
                draft.expires_at_ms,
                draft.deliver_at_ms,
                int(draft.priority),
                pack_flags(draft),
                len(draft.payload),
                size,
                draft.version,
                0,
                0,
                recalls,
                draft.collapse_key,
                draft.publisher,
                draft.content_type,
                pack_headers(draft.headers),
                draft.payload,
            )
        )
        return Appended(published(draft, offset, published_at_ms, recalls), self._ledger.epoch, DURABILITY)

    def _supersede(self, log: Log, draft: Draft, offset: int, size: int) -> None:
        key = (log.id, draft.collapse_key)
        newest = self._newest.get(key)
        if newest is None:
            newest = self._newest[key] = _Newest()
        if draft.collapse_key and newest.position:
            freed = newest.weight
            self._superseded.append((entry_id(log.id, newest.position), offset))
            log.size -= freed
            self._ledger.totals.bytes -= freed
        newest.position = offset
        newest.weight = size - len(draft.content_type)  # what is freed when it is superseded
        if draft.version:
            newest.version, newest.versioned = draft.version, offset
        self._changed[key] = newest

    def _fetch_newest(self) -> None:
        self._newest.clear()
        wanted: dict[tuple[int, str], None] = {}
        for draft in self._collapsing:
            log = self._ledger.log(draft.channel)
            if log is not None:
                wanted[log.id, draft.collapse_key] = None
        for channel, key, *rest in read_many(self._ledger.db, _READ_COLLAPSES, list(wanted)):
            self._newest[channel, key] = _Newest(*rest)

    def _write(self, now_ms: int) -> None:
        """Writes what is decided, and drops what is over the limits of the channels."""
        db = self._ledger.db
        write_many(db, _INSERT_ENTRIES, self._entries)
        write_many(db, _INSERT_SCHEDULED, self._scheduled)
        if self._superseded:
            db.execute(_SUPERSEDE, (json.dumps(self._superseded),))
        write_many(db, "INSERT INTO receipt_counts (entry) VALUES", self._counted)
        rows = [(channel, key, one.position, one.version, one.versioned) for (channel, key), one in self._changed.items()]
        write_many(db, _INSERT_COLLAPSES, rows)
        self._keys.write()
        self._outbox.write()
        self._retention.trim(*self._take_touched(), now_ms)
        for done in (self._entries, self._scheduled, self._superseded, self._counted, self._changed, self._pages):
            done.clear()

    def _take_touched(self) -> tuple[list[Log], dict[int, tuple[int, int]]]:
        """The logs with new entries; and how many entries, and units of dropping them, each was given, by its id."""
        logs, added = [], {}
        for log, top in self._touched.values():
            logs.append(log)
            entries = log.top - top
            added[log.id] = entries, entries + self._pages.get(log.id, 0)
            self._ledger.touch(log)
        self._touched.clear()
        return logs, added
