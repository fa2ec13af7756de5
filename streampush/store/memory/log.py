"""One channel's log in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from streampush.protocol.terms import Milestone, Priority
from streampush.push.values import NO_HEADERS, Head, Page, Publication, PushOutcome, PushResult, Spot
from streampush.store.drafts import LOOK_AT_MOST, weight

COMPACT_AFTER = 1_000
"""Dropped entries before a log's list is shortened."""

MAX_RECEIPT_ROWS = 10_000
"""Devices that have a row in the receipts of one message; later ones have none."""


class Entry:
    """A publication in the log, and what became of it. Receipts are made when there is something to say."""

    __slots__ = (
        "counts",
        "deliver_at_ms",
        "freed",
        "publication",
        "publisher",
        "push_counts",
        "pushes",
        "recalled_at_ms",
        "rows",
        "size",
        "superseded_by",
        "version",
        "weight",
    )

    def __init__(self, publication: Publication, publisher: str = "", version: int = 0, deliver_at_ms: int = 0) -> None:
        self.publication = publication
        self.publisher = publisher
        self.version = version
        self.deliver_at_ms = deliver_at_ms
        self.size = len(publication.payload)
        self.weight = weight(publication.headers, publication.payload, publication.content_type)
        self.freed = False
        self.superseded_by = 0
        self.recalled_at_ms = 0
        self.rows: dict[str, dict[Milestone, int]] | None = None
        self.counts: dict[Milestone, int] | None = None
        self.pushes: dict[str, PushResult] | None = None  # by device
        self.push_counts: dict[PushOutcome, int] | None = None

    def expired(self, now_ms: int) -> bool:
        """What has lost its payload stays expired, also for a clock that was set back."""
        return self.publication.expires_at_ms > 0 and (self.freed or self.publication.expires_at_ms <= now_ms)

    def left_out(self) -> bool:
        """A newer one stands for it, or it was taken back. It is no loss."""
        return self.superseded_by > 0 or self.recalled_at_ms > 0

    def readable(self, now_ms: int) -> bool:
        return not (self.freed or self.superseded_by or self.recalled_at_ms or 0 < self.publication.expires_at_ms <= now_ms)

    def free(self) -> int:
        """Drops payload and headers; gives their bytes."""
        self.freed = True
        publication = self.publication
        if not publication.payload and not publication.headers:
            return 0
        self.publication = replace(publication, payload=b"", headers=NO_HEADERS)
        freed, self.weight = self.weight - len(publication.content_type), len(publication.content_type)
        return freed

    def reached(self, device_id: str, milestone: Milestone, at_ms: int) -> None:
        """The device has reached the milestone; the first time stands."""
        if self.rows is None:
            self.rows = {}
        row = self.rows.get(device_id)
        if row is None:
            if len(self.rows) >= MAX_RECEIPT_ROWS:
                return
            row = self.rows[device_id] = {}
        row.setdefault(milestone, at_ms)

    def has(self, device_id: str, milestone: Milestone) -> bool:
        """Whether the device has reached the milestone."""
        return self.rows is not None and milestone in self.rows.get(device_id, ())

    def counted(self, milestone: Milestone, count: int = 1) -> None:
        """So many devices have reached the milestone."""
        if self.counts is None:
            self.counts = {}
        self.counts[milestone] = self.counts.get(milestone, 0) + count

    def pushed(self, device_id: str, result: PushResult) -> None:
        """How a push to the device ended; the newest stands."""
        if self.pushes is None:
            self.pushes = {}
        known = self.pushes.get(device_id)
        if (known is None and len(self.pushes) < MAX_RECEIPT_ROWS) or (known is not None and result.at_ms >= known.at_ms):
            self.pushes[device_id] = result

    def push_counted(self, outcome: PushOutcome, count: int) -> None:
        """So many pushes ended so."""
        if self.push_counts is None:
            self.push_counts = {}
        self.push_counts[outcome] = self.push_counts.get(outcome, 0) + count


class _Latest:
    """The newest of a collapse key: its offset, and offset and number of the newest version, each 0 if there is none."""

    __slots__ = ("offset", "version", "version_offset")

    def __init__(self) -> None:
        self.offset = self.version = self.version_offset = 0


class Log:
    """One channel: every offset behind the floor has an entry; one that is not read any more stays, without payload, for its id.

    A list with a moving start, so that any offset is found at once and the front is dropped at a constant cost.
    """

    __slots__ = ("_entries", "_freed", "_latest", "_start", "channel", "epoch", "expiring", "floor_id", "floor_offset", "size",
                 "top_offset", "urgent_offset", "wanting")  # fmt: skip

    def __init__(self, channel: str, epoch: str) -> None:
        self.channel = channel
        self.epoch = epoch
        self.top_offset = 0
        self.floor_offset = 0
        self.floor_id = ""
        self.urgent_offset = 0
        self.size = 0
        self.expiring = 0  # entries that expire, or have
        self.wanting = 0  # entries whose publisher wants a receipt
        self._freed = 0  # all entries up to this offset have expired and lost their payload
        self._entries: list[Entry | None] = []  # None where one was, until the list is shortened
        self._start = 0
        self._latest: dict[str, _Latest] = {}  # by collapse key

    def __len__(self) -> int:
        return self.top_offset - self.floor_offset

    def head(self) -> Head:
        return Head(self.epoch, self.top_offset, self.floor_offset, self.floor_id, self.urgent_offset)

    def at(self, offset: int) -> Entry:
        """The entry at an offset above the floor, at most the top."""
        entry = self._entries[self._start + offset - self.floor_offset - 1]
        assert entry is not None
        return entry

    def find(self, offset: int) -> Entry | None:
        """The entry at any offset, if it is there."""
        return self.at(offset) if self.floor_offset < offset <= self.top_offset else None

    def between(self, after: int, last: int) -> Iterator[Entry]:
        """The entries with after < offset <= last, oldest first."""
        entries = self._entries
        base = self._start - self.floor_offset
        first, end = max(after, self.floor_offset) + base, min(last, self.top_offset) + base
        return (entry for index in range(first, end) if (entry := entries[index]) is not None)

    def message_id(self, offset: int) -> str | None:
        """The id at an offset, also at the floor; None if it is not known."""
        if offset == self.floor_offset:
            return self.floor_id or None
        entry = self.find(offset)
        return None if entry is None else entry.publication.message_id

    # ----------------------------------------------------------------------------------------------------------- adding

    def newest_version(self, collapse_key: str) -> tuple[int, int]:
        """The newest version of a collapse key, and its offset; zeros if there is none."""
        latest = self._latest.get(collapse_key)
        return (0, 0) if latest is None else (latest.version, latest.version_offset)

    def add(self, entry: Entry) -> int:
        """Adds an entry that has the next offset; gives the bytes of what it supersedes."""
        publication = entry.publication
        offset = self.top_offset = publication.offset
        self.size += entry.weight
        self.expiring += publication.expires_at_ms > 0
        self.wanting += publication.want_receipt
        if publication.priority is Priority.HIGH:
            self.urgent_offset = offset
        self._entries.append(entry)
        if not publication.collapse_key and not entry.version:
            return 0
        return self._supersede(entry, offset, publication.collapse_key)

    def _supersede(self, entry: Entry, offset: int, key: str) -> int:
        latest = self._latest.get(key)
        if latest is None:
            latest = self._latest[key] = _Latest()
        freed = 0
        earlier = self.find(latest.offset) if key else None
        if earlier is not None:
            earlier.superseded_by = offset
            freed = self.free(earlier)
        latest.offset = offset
        if entry.version:
            latest.version, latest.version_offset = entry.version, offset
        return freed

    # ---------------------------------------------------------------------------------------------------------- reading

    def read(self, after: int, max_messages: int, max_bytes: int, now_ms: int) -> Page:
        """See push.store_ports.LogStore.read."""
        found: list[Publication] = []
        next_offset = max(after, self.floor_offset)
        expired = size = 0
        for entry in self.between(after, next_offset + LOOK_AT_MOST):
            publication = entry.publication
            if entry.readable(now_ms):
                size += len(publication.payload)
                if found and (size > max_bytes or len(found) >= max_messages):
                    break
                found.append(publication)
            elif not entry.left_out():
                expired += 1
            next_offset = publication.offset
        return Page(self.head(), tuple(found), next_offset, expired)

    def count_readable(self, after: int, last: int, now_ms: int) -> int:
        """How many with after < offset <= last may be read."""
        return sum(entry.readable(now_ms) for entry in self.between(after, last))

    def spots(self, offsets: set[int], now_ms: int) -> dict[int, Spot]:
        """What is known of each offset."""
        expired = 0
        behind = self.top_offset
        spots = {}
        for offset in sorted(offsets, reverse=True):
            if self.expiring:
                expired += sum(1 for entry in self.between(offset, behind) if entry.expired(now_ms) and not entry.left_out())
                behind = min(behind, offset)
            spots[offset] = Spot(self.message_id(offset), expired)
        return spots

    # --------------------------------------------------------------------------------------------------------- dropping

    def trim_one(self) -> Entry:
        """Drops the oldest entry, and gives it."""
        entry = self.at(self.floor_offset + 1)
        publication = entry.publication
        self.floor_offset = publication.offset
        self.floor_id = publication.message_id
        self.size -= entry.weight
        self.expiring -= publication.expires_at_ms > 0
        self.wanting -= publication.want_receipt
        if publication.collapse_key or entry.version:
            self._forget_latest(publication)
        self._entries[self._start] = None
        self._start += 1
        if self._start > COMPACT_AFTER and self._start * 2 > len(self._entries):
            del self._entries[: self._start]
            self._start = 0
        return entry

    def _forget_latest(self, publication: Publication) -> None:
        latest = self._latest[publication.collapse_key]
        if latest.version_offset == publication.offset:
            latest.version = latest.version_offset = 0
        if latest.offset == publication.offset:
            del self._latest[publication.collapse_key]

    def free(self, entry: Entry) -> int:
        """Drops an entry's payload; gives the bytes."""
        freed = entry.free()
        self.size -= freed
        return freed

    def free_expired(self, now_ms: int, at_most: int) -> int:
        """Drops the payloads of what has expired at the front, of so many entries; gives their bytes."""
        freed = 0
        first = max(self._freed, self.floor_offset)
        for entry in self.between(first, first + at_most):
            if entry.readable(now_ms):
                break
            freed += self.free(entry)
            self._freed = entry.publication.offset
        return freed
