"""The store of a process that keeps nothing: logs, cursors and devices in memory, each bounded.

`durability` is MEMORY. A restart begins every log with a new epoch, and devices are told so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability
from streampush.push.values import NO_HEADERS, Appended, CursorMove, DeviceRecord, Draft, Head, Page, Position, Publication

MAX_CURSORS_PER_DEVICE = 1_000
"""Channels; the cursor that moved longest ago is dropped. As many as a connection may follow by default."""

COMPACT_AFTER = 1_000
"""Dropped entries before a log's list is shortened."""


def _weight(entry: Draft | Publication) -> int:
    """Bytes that count against the limits: payload, headers, content type; each character as one byte."""
    size = len(entry.payload) + len(entry.content_type)
    if entry.headers:
        size += sum(len(name) + len(value) for name, value in entry.headers.items())
    return size


_DROPPED = Publication("", 0, "", b"", 0, 0, "", NO_HEADERS)
"""Stands where an entry was until the list is shortened, so that its payload is freed at once."""


class _Log:
    """One channel: every offset behind the floor has an entry; an expired one stays, without its payload, for its id.

    A list with a moving start, so that any offset is found at once and the front is dropped at a constant cost.
    """

    __slots__ = ("_entries", "_start", "epoch", "expiring", "floor_id", "floor_offset", "freed", "size", "top_offset")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.top_offset = 0
        self.floor_offset = 0
        self.floor_id = ""
        self.size = 0
        self.expiring = 0  # entries that expire, or have
        self.freed = 0  # all entries up to this offset have expired and lost their payload
        self._entries: list[Publication] = []
        self._start = 0

    def __len__(self) -> int:
        return self.top_offset - self.floor_offset

    def head(self) -> Head:
        return Head(self.epoch, self.top_offset, self.floor_offset, self.floor_id)

    def at(self, offset: int) -> Publication:
        """The entry at an offset above the floor, at most the top."""
        return self._entries[self._start + offset - self.floor_offset - 1]

    def behind(self, offset: int) -> Iterator[Publication]:
        """The entries with a higher offset, oldest first."""
        entries = self._entries
        first = self._start + max(0, offset - self.floor_offset)
        return (entries[index] for index in range(first, len(entries)))

    def add(self, publication: Publication) -> None:
        self.top_offset = publication.offset
        self.size += _weight(publication)
        self.expiring += publication.expires_at_ms > 0
        self._entries.append(publication)

    def trim_one(self) -> int:
        """Drops the oldest entry; gives the bytes that were freed."""
        entry = self.at(self.floor_offset + 1)
        self.floor_offset = entry.offset
        self.floor_id = entry.message_id
        self.size -= _weight(entry)
        self.expiring -= entry.expires_at_ms > 0
        self._entries[self._start] = _DROPPED
        self._start += 1
        if self._start > COMPACT_AFTER and self._start * 2 > len(self._entries):
            del self._entries[: self._start]
            self._start = 0
        return _weight(entry)

    def free_expired(self, now_ms: int) -> int:
        """Drops payload and headers of what has expired at the front; gives their bytes."""
        offset = max(self.freed, self.floor_offset) + 1
        freed = 0
        while offset <= self.top_offset and 0 < self.at(offset).expires_at_ms <= now_ms:
            entry = self.at(offset)
            shell = replace(entry, payload=b"", headers=NO_HEADERS)
            freed += _weight(entry) - _weight(shell)
            self._entries[self._start + offset - self.floor_offset - 1] = shell
            self.freed = offset
            offset += 1
        self.size -= freed
        return freed


class MemoryStore:
    """See push.ports.Store. `wall_ms` gives Unix milliseconds; `new_epoch` a random id."""

    durability = Durability.MEMORY

    def __init__(self, limits: StoreConfig, wall_ms: Callable[[], int], new_epoch: Callable[[], str]) -> None:
        self._limits = limits
        self._wall_ms = wall_ms
        self._epoch = new_epoch()  # of every log: they all live as long as the process, and following takes no memory
        self._logs: dict[str, _Log] = {}
        self._size = 0
        self._devices: dict[str, DeviceRecord] = {}
        self._users: dict[str, set[str]] = {}
        self._cursors: dict[str, OrderedDict[str, Position]] = {}

    # ------------------------------------------------------------------------------------------------------------- logs

    def _begin(self, channel: str) -> _Log:
        """The log for an append."""
        log = self._logs.get(channel)
        if log is None:
            if len(self._logs) >= self._limits.max_channels:
                raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {len(self._logs)} channels, its limit", channel=channel)
            log = self._logs[channel] = _Log(self._epoch)
        return log

    def _head(self, channel: str) -> Head:
        log = self._logs.get(channel)
        return Head(self._epoch, 0) if log is None else log.head()

    async def append(self, draft: Draft) -> Appended:
        size = _weight(draft)
        if self._size + size > self._limits.max_bytes:
            self._free(draft.channel)
        if self._size + size > self._limits.max_bytes:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {self._size} bytes, its limit", channel=draft.channel)
        log = self._begin(draft.channel)
        publication = Publication(
            draft.channel,
            log.top_offset + 1,
            draft.message_id,
            draft.payload,
            draft.published_at_ms,
            draft.expires_at_ms,
            draft.content_type,
            draft.headers,
        )
        log.add(publication)
        self._size += size
        self._trim(log)
        return Appended(publication, log.epoch, Durability.MEMORY)

    def _free(self, channel: str) -> None:
        """Makes what room there is in a channel before an append to it is refused."""
        log = self._logs.get(channel)
        if log is not None:
            self._trim(log)
            self._size -= log.free_expired(self._wall_ms())

    def _trim(self, log: _Log) -> None:
        """Drops what is over the count, the bytes or the age of the channel; the newest entry always stays."""
        limits = self._limits
        oldest_ms = self._wall_ms() - int(limits.history_age * 1000)
        while len(log) > 1 and (
            len(log) > limits.history_messages
            or log.size > limits.history_bytes
            or log.at(log.floor_offset + 1).published_at_ms < oldest_ms
        ):
            self._size -= log.trim_one()

    async def head(self, channel: str) -> Head:
        return self._head(channel)

    async def peek(self, channel: str) -> Head | None:
        log = self._logs.get(channel)
        return None if log is None else log.head()

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        log = self._logs.get(channel)
        if log is None:
            return Page(self._head(channel), (), after)
        now_ms = self._wall_ms()
        found: list[Publication] = []
        next_offset = max(after, log.floor_offset)
        expired = size = 0
        for entry in log.behind(after):
            if entry.expires_at_ms and entry.expires_at_ms <= now_ms:
                expired += 1
            else:
                size += len(entry.payload)
                if found and (size > max_bytes or len(found) >= max_messages):
                    break
                found.append(entry)
            next_offset = entry.offset
        return Page(log.head(), tuple(found), next_offset, expired)

    async def message_id(self, channel: str, offset: int) -> str | None:
        log = self._logs.get(channel)
        if log is None or not log.floor_offset <= offset <= log.top_offset or offset < 1:
            return None
        if offset == log.floor_offset:
            return log.floor_id
        return log.at(offset).message_id

    async def live_after(self, channel: str, offset: int, up_to: int) -> int:
        log = self._logs.get(channel)
        if log is None:
            return 0
        if not log.expiring:  # nothing to look at: a device that resumes a thousand channels must not cost a million entries
            return max(0, min(up_to, log.top_offset) - max(offset, log.floor_offset))
        now_ms = self._wall_ms()
        entries = takewhile(lambda entry: entry.offset <= up_to, log.behind(offset))
        return sum(1 for entry in entries if not 0 < entry.expires_at_ms <= now_ms)

    def sweep(self, channels: int) -> None:
        """Frees what is too old or expired in so many channels, the ones not swept for longest first.

        Call it often with a small number: it never looks at more than that.
        """
        now_ms = self._wall_ms()
        for channel in list(islice(self._logs, channels)):
            log = self._logs.pop(channel)
            self._logs[channel] = log  # to the end of the queue
            self._trim(log)
            self._size -= log.free_expired(now_ms)

    # ---------------------------------------------------------------------------------------------------------- cursors

    async def cursor(self, device_id: str, channel: str) -> Position | None:
        cursors = self._cursors.get(device_id)
        return None if cursors is None else cursors.get(channel)

    async def cursors(self, device_id: str) -> Mapping[str, Position]:
        return dict(self._cursors.get(device_id, {}))

    async def move_cursors(self, moves: Sequence[CursorMove]) -> None:
        for move in moves:
            cursors = self._cursors.setdefault(move.device_id, OrderedDict())
            known = cursors.get(move.channel)
            if known is None or known.epoch != move.epoch or known.offset < move.offset:
                cursors[move.channel] = Position(move.epoch, move.offset)
            cursors.move_to_end(move.channel)
            if len(cursors) > MAX_CURSORS_PER_DEVICE:
                cursors.popitem(last=False)

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        cursors = self._cursors.get(device_id)
        if cursors is not None:
            cursors.pop(channel, None)
            if not cursors:
                del self._cursors[device_id]

    # ---------------------------------------------------------------------------------------------------------- devices

    async def device(self, device_id: str) -> DeviceRecord | None:
        return self._devices.get(device_id)

    async def remember_device(self, record: DeviceRecord) -> None:
        known = self._devices.get(record.device_id)
        if known is None and len(self._devices) >= self._limits.max_devices:
            raise Refused(Code.QUOTA_EXCEEDED, f"the store holds {len(self._devices)} devices, its limit")
        if known is not None and known.user_id != record.user_id:
            self._unbind(known)
        if record.user_id:
            self._users.setdefault(record.user_id, set()).add(record.device_id)
        self._devices[record.device_id] = record

    def _unbind(self, record: DeviceRecord) -> None:
        devices = self._users.get(record.user_id)
        if devices is not None:
            devices.discard(record.device_id)
            if not devices:
                del self._users[record.user_id]

    async def knows_user(self, user_id: str) -> bool:
        return user_id in self._users
