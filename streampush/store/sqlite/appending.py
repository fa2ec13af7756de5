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
from streampush.push.values import Accepted, Appended, Draft, Idempotency, Publication
from streampush.store.sqlite.keys import Keys
from streampush.store.sqlite.ledger import Ledger, Log
from streampush.store.sqlite.retention import Retention, units
from streampush.store.sqlite.rows import (
    FREED,
    MAX_CHANNELS,
    MAX_OFFSET,
    OFFSET_BITS,
    entry_id,
    pack_flags,
    pack_headers,
    read_many,
    weight,
    write_many,
)

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
    " collapse_key, publisher, content_type, headers, payload) VALUES"
)


def is_addressed(channel: str) -> bool:
    """Whether a channel is that of a device or user: it must be known, and its messages have a receipt of each device."""
    return channel.startswith(("device:", "user:"))


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

    def __init__(self, ledger: Ledger, limits: StoreConfig, retention: Retention, keys: Keys) -> None:
        self._ledger = ledger
        self._limits = limits
        self._retention = retention
        self._keys = keys
        self._max_channels = min(limits.max_channels, MAX_CHANNELS)
        self._entries: list[tuple[Any, ...]] = []
        self._scheduled: list[tuple[Any, ...]] = []
        self._superseded: list[tuple[int, int]] = []  # entry, offset of the newer one
        self._counted: list[tuple[int]] = []  # entries of topics that want a receipt
        self._drafts: Sequence[Draft] = ()  # of this batch
        self._newest: dict[tuple[int, str], _Newest] = {}  # that they may supersede, by channel and collapse key
        self._changed: dict[tuple[int, str], _Newest] = {}
        self._touched: dict[str, Log] = {}

    def append(self, drafts: Sequence[tuple[Draft, int]]) -> list[Accepted | Refused]:
        """Appends each draft, with the Unix milliseconds of its arrival, or says why not; see push.ports.LogStore.append."""
        ledger = self._ledger
        ledger.fetch([draft.channel for draft, _ in drafts])
        addressed = [draft.channel for draft, _ in drafts if is_addressed(draft.channel)]
        if addressed:
            ledger.fetch_recipients(addressed)
        self._keys.fetch([draft.idempotency for draft, _ in drafts if draft.idempotency is not None])
        self._drafts = [draft for draft, _ in drafts]
        self._fetch_newest()
        outcomes: list[Accepted | Refused] = []
        for draft, now_ms in drafts:
            try:
                outcomes.append(self._append(draft, now_ms))
            except Refused as refused:
                outcomes.append(refused)
        self._write(drafts[-1][1])
        return outcomes

    def _append(self, draft: Draft, now_ms: int) -> Accepted:
        self._check_recipient(draft.channel)
        asked = draft.idempotency
        if asked is not None:
            known = self._keys.answer(asked, now_ms, draft.channel)
            if known is not None:
                return replace(known, duplicate=True)
        accepted = self._accept(draft, now_ms)
        if asked is not None:
            self._keys.keep(asked, replace(accepted, appended=None))
        return accepted

    def _check_recipient(self, channel: str) -> None:
        if is_addressed(channel) and not self._ledger.is_recipient(channel):
            kind = channel.partition(":")[0]
            raise Refused(Code.UNKNOWN_RECIPIENT, f"no {kind} of this id was ever seen", channel=channel)

    def _accept(self, draft: Draft, now_ms: int) -> Accepted:
        newer = self._newer(draft)
        if newer is not None:
            return newer
        size = weight(draft.headers, draft.payload, draft.content_type)
        self._make_room(draft.channel, size, now_ms)
        epoch = self._ledger.epoch
        if draft.deliver_at_ms:
            self._put_off(draft, size)
            return Accepted(draft.message_id, draft.channel, 0, epoch, DURABILITY, deliver_at_ms=draft.deliver_at_ms)
        appended = self._enter(draft, draft.published_at_ms, size, self._begin(draft.channel))
        offset = appended.publication.offset
        return Accepted(draft.message_id, draft.channel, offset, epoch, DURABILITY, appended=appended)

    def _newer(self, draft: Draft) -> Accepted | None:
        """The answer to a version that was overtaken."""
        log = self._ledger.log(draft.channel) if draft.version else None
        newest = None if log is None else self._newest.get((log.id, draft.collapse_key))
        if newest is None or draft.version > newest.version:
            return None
        epoch = self._ledger.epoch
        return Accepted(draft.message_id, draft.channel, newest.versioned, epoch, DURABILITY, superseded=True)

    def _make_room(self, channel: str, size: int, now_ms: int) -> None:
        """Frees what it can in a channel before an append to it is refused. Raises Refused(QUOTA_EXCEEDED)."""
        totals, most = self._ledger.totals, self._limits.max_bytes
        if totals.bytes + size <= most:
            return
        self._write(now_ms)  # may trim
        log = self._ledger.log(channel)
        if log is not None and totals.bytes + size > most:
            self._retention.free_expired(log, now_ms)
        self._fetch_newest()  # some may be gone, or freed
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
            )
        )

    def _begin(self, channel: str) -> Log:
        """The log for an append. Raises Refused(QUOTA_EXCEEDED)."""
        log = self._ledger.log(channel)
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
        """Appends scheduled drafts, those that are still of use; see push.ports.LogStore.fire_due."""
        ledger = self._ledger
        ledger.fetch([draft.channel for draft in drafts])
        ledger.fetch_recipients([draft.channel for draft in drafts if is_addressed(draft.channel)])
        self._drafts = drafts
        self._fetch_newest()
        fired = []
        for draft in drafts:
            useless = 0 < draft.expires_at_ms <= now_ms or self._newer(draft) is not None
            if not useless and (not is_addressed(draft.channel) or ledger.is_recipient(draft.channel)):
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
        """See push.ports.LogStore.first_answer."""
        self._keys.fetch([asked])
        known = self._keys.answer(asked, now_ms, "")
        return None if known is None else replace(known, duplicate=True)

    # ---------------------------------------------------------------------------------------------------------- entries

    def _enter(self, draft: Draft, published_at_ms: int, size: int, log: Log, recalls: str = "") -> Appended:
        """Adds an entry to a log, to be written; `size` is its weight."""
        offset = log.top + 1
        log.top = offset
        log.size += size
        log.expiring += draft.expires_at_ms > 0
        if len(log) == 1:
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
        totals = self._ledger.totals
        totals.publications += 1
        totals.bytes += size
        self._touched[log.name] = log
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
        return Appended(_published(draft, offset, published_at_ms, recalls), self._ledger.epoch, DURABILITY)

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
        for draft in self._drafts:
            if draft.collapse_key or draft.version:
                log = self._ledger.log(draft.channel)
                if log is not None:
                    wanted[log.id, draft.collapse_key] = None
        for channel, key, *rest in read_many(self._ledger.db, _READ_COLLAPSES, list(wanted)):
            self._newest[channel, key] = _Newest(*rest)

    def _write(self, now_ms: int) -> None:
        """Writes what is decided, and drops what is over the limits of the channels."""
        db = self._ledger.db
        touched, self._touched = self._touched, {}
        write_many(db, _INSERT_ENTRIES, self._entries)
        write_many(db, _INSERT_SCHEDULED, self._scheduled)
        if self._superseded:
            db.execute(_SUPERSEDE, (json.dumps(self._superseded),))
        write_many(db, "INSERT INTO receipt_counts (entry) VALUES", self._counted)
        rows = [(channel, key, one.position, one.version, one.versioned) for (channel, key), one in self._changed.items()]
        write_many(db, _INSERT_COLLAPSES, rows)
        added = _work(self._entries)
        for done in (self._entries, self._scheduled, self._superseded, self._counted, self._changed):
            done.clear()
        self._keys.write()
        for log in touched.values():
            self._ledger.touch(log)
        self._retention.trim(touched.values(), added, now_ms)


def _work(entries: Sequence[tuple[Any, ...]]) -> dict[int, tuple[int, int]]:
    """How many entries, and units of dropping them, each log gets, by its id."""
    found: dict[int, tuple[int, int]] = {}
    for entry in entries:
        log = entry[0] >> OFFSET_BITS
        count, work = found.get(log, (0, 0))
        found[log] = count + 1, work + units(entry[8])
    return found


def _published(draft: Draft, offset: int, published_at_ms: int, recalls: str) -> Publication:
    """The draft as an entry of the log."""
    return Publication(
        draft.channel,
        offset,
        draft.message_id,
        draft.payload,
        published_at_ms,
        draft.expires_at_ms,
        draft.content_type,
        draft.headers,
        draft.priority,
        draft.collapse_key,
        recalls,
        draft.want_receipt,
        draft.clear_on_processed,
    )
