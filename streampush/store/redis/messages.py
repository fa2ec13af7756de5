"""See push.store_ports.MessageStore, but for `recall`, and DeviceStore.reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from streampush.protocol.terms import Durability, Milestone, Priority
from streampush.push.values import (
    NO_COUNTS,
    NO_PUSHES,
    Cursor,
    DeviceReceipt,
    MessageReach,
    MessageRecord,
    PushOutcome,
    PushRecord,
    PushToken,
    Reach,
)
from streampush.store.packing import WANTS_RECEIPT
from streampush.store.redis import pushes
from streampush.store.redis.entries import unpack_facts
from streampush.store.redis.recording import COLUMNS
from streampush.store.redis.scripts import Scripts


class RedisMessages:
    """The part of the store that knows single messages."""

    durability: Durability
    _scripts: Scripts
    _wall_ms: Callable[[], int]

    async def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        found = await self._scripts.run("message", message_id, max_devices > 0)
        if not found:
            return None
        epoch, channel, offset, facts, rows, counted = found
        devices = tuple(_receipts(rows, max_devices))
        return _record(epoch, channel, offset, facts, self.durability, devices, *_counts(counted))

    async def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], *, results: bool) -> Sequence[MessageReach | None]:
        questions = [[message_id, list(device_ids)] for message_id, device_ids in asked]
        return self._reaches(await self._scripts.run("reach_with", questions, results, self._wall_ms()))

    async def reach_users(self, message_ids: Sequence[str], limit: int, *, results: bool) -> Sequence[MessageReach | None]:
        return self._reaches(await self._scripts.run("reach_users", list(message_ids), limit, results, self._wall_ms()))

    def _reaches(self, answer: Sequence[Any]) -> list[MessageReach | None]:
        epoch, found = answer
        return [self._message_reach(epoch, *one) if one else None for one in found]

    def _message_reach(
        self, epoch: bytes, channel: bytes, offset: int, facts: bytes, reaches: Sequence[Any], results: Sequence[Any]
    ) -> MessageReach:
        record = _record(epoch, channel, offset, facts, self.durability)
        ended = {device.decode(): pushes.result(push) for device, push in _pairs(results)}
        return MessageReach(record, tuple(_reach(row) for row in reaches), ended)

    async def reach(self, channel: str, device_ids: Sequence[str]) -> Sequence[Reach]:
        found = await self._scripts.run("reach", channel, list(device_ids), self._wall_ms())
        return [_reach(row) for row in found]

    async def record_pushes(self, records: Sequence[PushRecord]) -> None:
        if records:
            await self._scripts.run("record_pushes", pushes.packed(records))

    async def push_of(self, apns_id: str) -> PushRecord | None:
        found = await self._scripts.run("push_of", apns_id)
        if not found:
            return None
        message_id, device_id, push = found
        return PushRecord(message_id.decode(), device_id.decode(), pushes.result(push))


def _record(
    epoch: bytes,
    channel: bytes,
    offset: int,
    facts: bytes,
    durability: Durability,
    devices: tuple[DeviceReceipt, ...] = (),
    counts: Mapping[Milestone, int] = NO_COUNTS,
    push_counts: Mapping[PushOutcome, int] = NO_PUSHES,
) -> MessageRecord:
    (
        message_id,
        published_at,
        expires_at,
        deliver_at,
        priority,
        flags,
        size,
        _,
        _,
        superseded_by,
        recalled_at,
        recalls,
        collapse_key,
        publisher,
        _,
    ) = unpack_facts(facts)
    return MessageRecord(
        message_id.decode(),
        channel.decode(),
        epoch.decode(),
        offset,
        publisher.decode(),
        published_at,
        expires_at,
        deliver_at,
        Priority(priority),
        collapse_key.decode(),
        bool(flags & WANTS_RECEIPT),
        size,
        durability,
        recalls.decode(),
        recalled_at,
        superseded_by,
        devices,
        counts,
        push_counts,
    )


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Names and values of a list in which they take turns."""
    return zip(flat[::2], flat[1::2], strict=True)


def _receipts(rows: Sequence[bytes], max_devices: int) -> Iterator[DeviceReceipt]:
    """Of the first devices. The order of UTF-8 is that of its characters, so bytes are compared."""
    for device, packed in sorted(_pairs(rows))[:max_devices]:
        *times, push = msgpack.unpackb(packed, raw=True)
        reached = {milestone: at_ms for milestone, at_ms in zip(COLUMNS, times, strict=True) if at_ms is not False}
        yield DeviceReceipt(device.decode(), reached, pushes.result(push) if push else None)


def _counts(counted: Sequence[bytes]) -> tuple[Mapping[Milestone, int], Mapping[PushOutcome, int]]:
    """What is counted of a topic's message: numbers of columns are milestones, words outcomes."""
    counts: dict[Milestone, int] = {}
    ended: dict[PushOutcome, int] = {}
    for name, count in _pairs(counted):
        if name.isdigit():
            counts[COLUMNS[int(name) - 1]] = int(count)
        else:
            ended[PushOutcome(name.decode())] = int(count)
    return counts or NO_COUNTS, ended or NO_PUSHES


def _reach(row: Sequence[Any]) -> Reach:
    device_id, user_id, token, topic, sandbox, registered_at, follows, cursor, run = row
    return Reach(
        device_id.decode(),
        user_id.decode(),
        PushToken(token, topic.decode(), bool(sandbox), registered_at) if token is not False else None,
        Cursor(cursor[0].decode(), *cursor[1:]) if cursor else None,
        run.decode(),
        follows,
    )
