"""See push.store_ports.Store: the parts of the store in memory, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, Milestone
from streampush.push.channels import is_addressed
from streampush.push.ids import clearing_id
from streampush.push.values import (
    NO_COUNTS,
    NO_PUSHES,
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
from streampush.store.drafts import scheduled
from streampush.store.memory import receipts
from streampush.store.memory.appending import Appending
from streampush.store.memory.devices import Cursors, Devices
from streampush.store.memory.keys import Keys
from streampush.store.memory.letters import DeadLetters
from streampush.store.memory.logs import Logs, Space
from streampush.store.memory.waiting import Outbox, Schedule, draft_weight
from streampush.store.nodes import OneProcessNodes
from streampush.store.presence import OneProcessPresence

SWEEP_KEYS = 10_000
"""Idempotency keys that one sweep forgets at most: some milliseconds."""


class MemoryStore(OneProcessPresence, OneProcessNodes):
    """See push.store_ports.Store. `wall_ms` gives Unix milliseconds; `new_epoch` a random id."""

    durability = Durability.MEMORY

    def __init__(
        self,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        *,
        max_dead_letters: int = DeliveryConfig().max_dead_letters,
        max_cursors: int = DeliveryConfig().max_subscriptions,
    ) -> None:
        OneProcessPresence.__init__(self, wall_ms)
        OneProcessNodes.__init__(self, wall_ms)
        limits = limits.sized()
        self._wall_ms = wall_ms
        self._space = Space(limits.max_bytes)
        self._logs = Logs(limits, new_epoch(), wall_ms, self._space)
        self._devices = Devices(limits.max_devices)
        self._cursors = Cursors(max_cursors)
        self._letters = DeadLetters(max_dead_letters, self._space)
        self._keys = Keys(limits.max_idempotency_keys, limits.max_idempotency_keys_total)
        self._schedule = Schedule()
        self._outbox = Outbox(limits.max_outbox, self._space)
        self._appending = Appending(
            limits, wall_ms, self._space, self._logs, self._devices, self._keys, self._schedule, self._outbox
        )

    # ----------------------------------------------------------------------------------------------------------- append

    async def append(self, draft: Draft) -> Accepted:
        return self._appending.append(draft)

    async def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        return self._appending.first_answer(idempotency)

    async def next_due_ms(self) -> int | None:
        return self._schedule.next_ms()

    async def fire_due(self, now_ms: int, limit: int) -> Sequence[Appended]:
        return self._appending.fire_due(now_ms, limit)

    # ------------------------------------------------------------------------------------------------------------- logs

    async def head(self, channel: str) -> Head:
        return self._logs.head(channel)

    async def peek(self, channel: str) -> Head | None:
        log = self._logs.get(channel)
        return None if log is None else log.head()

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        return self._logs.read(channel, after, max_messages, max_bytes)

    async def survey(self, device_id: str, wants: Sequence[Want]) -> Sequence[Survey]:
        now_ms = self._wall_ms()
        return [self._logs.survey(want, self._cursors.get(device_id, want.channel), now_ms) for want in wants]

    async def count_readable(self, spans: Sequence[tuple[str, int, int]]) -> Sequence[int]:
        now_ms = self._wall_ms()
        return [
            log.count_readable(after, last, now_ms) if (log := self._logs.get(channel)) is not None else 0
            for channel, after, last in spans
        ]

    async def take_trimmed(self, limit: int) -> Sequence[tuple[str, int]]:
        return self._logs.trimmed.take(limit)

    async def status(self) -> StoreStatus:
        return StoreStatus(
            len(self._logs.channels),
            self._logs.publications,
            self._space.used,
            len(self._devices),
            len(self._schedule),
            len(self._letters),
            len(self._outbox),
            len(self._keys),
        )

    def sweep(self, channels: int) -> None:
        """Frees what is too old or expired in so many channels, the ones not swept for longest first, and expired keys.

        Call it often with a small number: it never looks at more than that.
        """
        self._logs.sweep(channels)
        self._keys.sweep(SWEEP_KEYS, self._wall_ms())

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
                notices += self._logs.take_back(done, clearing_id, move.at_ms or now_ms)
        return notices

    def _bury(self, failed: Undeliverable, now_ms: int) -> bool:
        """Makes a dead letter; False if the publication may not be read any more."""
        log = self._logs.get(failed.channel)
        entry = log.find(failed.offset) if log is not None and log.epoch == failed.epoch else None
        if entry is None or not entry.readable(now_ms):
            return False
        letter = DeadLetter(failed.device_id, entry.publication, failed.attempts, failed.reason, failed.at_ms)
        self._letters.add(letter)
        if is_addressed(failed.channel):
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

    async def subscribers(self, channel: str, after: str, limit: int) -> Sequence[str]:
        return self._cursors.followers(channel, after, limit)

    # ---------------------------------------------------------------------------------------------------------- devices

    async def device(self, device_id: str) -> DeviceRecord | None:
        return self._devices.get(device_id)

    async def remember_device(self, record: DeviceRecord) -> None:
        self._devices.remember(record)

    async def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        return self._devices.drop_token(device_id, token, at_ms)

    async def device_of_token(self, token: bytes) -> DeviceRecord | None:
        return self._devices.of_token(token)

    async def forget_device(self, device_id: str) -> bool:
        self._cursors.forget_device(device_id)
        self._letters.forget_device(device_id)
        return self._devices.forget(device_id)

    async def devices_of_user(self, user_id: str, limit: int) -> Sequence[DeviceRecord]:
        return self._devices.of_user(user_id, limit)

    async def reach(self, channel: str, device_ids: Sequence[str]) -> Sequence[Reach]:
        found = []
        for device_id in device_ids:
            record = self._devices.get(device_id)
            if record is not None:
                cursor = self._cursors.get(device_id, channel)
                run, follows = self._presence.run(device_id), self._cursors.follows(device_id, channel)
                found.append(Reach(device_id, record.user_id, record.push_token, cursor, run, follows))
        return found

    async def devices_named(self, prefix: str, limit: int) -> Sequence[str]:
        return self._devices.named(prefix, limit)

    async def dead_letters(self, device_id: str, before_ms: int, limit: int) -> Sequence[DeadLetter]:
        return self._letters.of(device_id, before_ms, limit)

    async def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        return self._letters.get(device_id, message_id)

    async def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        return self._letters.drop(device_id, message_id)

    # --------------------------------------------------------------------------------------------------------- messages

    async def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        entry = self._logs.find(message_id)
        if entry is not None:
            return receipts.describe(self._logs.channels[entry.publication.channel], entry, max_devices)
        draft = self._schedule.get(message_id)
        return None if draft is None else scheduled(draft, self._logs.epoch, Durability.MEMORY)

    async def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], *, results: bool) -> Sequence[MessageReach | None]:
        return [await self._reach_with(message_id, device_ids, results=results) for message_id, device_ids in asked]

    async def _reach_with(self, message_id: str, device_ids: Sequence[str], *, results: bool) -> MessageReach | None:
        entry = self._logs.find(message_id)
        if entry is None:
            return None
        channel = entry.publication.channel
        record = replace(receipts.describe(self._logs.channels[channel], entry, 0), counts=NO_COUNTS, push_counts=NO_PUSHES)
        known = entry.pushes if results and entry.pushes else {}
        ended = {device_id: known[device_id] for device_id in device_ids if device_id in known}
        return MessageReach(record, tuple(await self.reach(channel, device_ids)), ended)

    async def reach_users(self, message_ids: Sequence[str], limit: int, *, results: bool) -> Sequence[MessageReach | None]:
        asked = [(message_id, self._devices_for(message_id, limit)) for message_id in message_ids]
        return await self.reach_with(asked, results=results)

    def _devices_for(self, message_id: str, limit: int) -> Sequence[str]:
        """The first devices of the user that a message is for."""
        entry = self._logs.find(message_id)
        kind, _, name = ("", "", "") if entry is None else entry.publication.channel.partition(":")
        return [record.device_id for record in self._devices.of_user(name, limit)] if kind == "user" else ()

    async def recall(self, message_id: str, notice_id: str, at_ms: int) -> Appended | None:
        draft = self._schedule.remove(message_id)
        if draft is not None:
            self._space.used -= draft_weight(draft)
            return None
        entry = self._logs.find(message_id)
        if entry is None or entry.publication.recalls:
            raise Refused(Code.UNKNOWN_RECIPIENT, "no message of this id is scheduled or in a log")
        if entry.recalled_at_ms:
            return None
        return self._logs.take_back([entry], lambda _: notice_id, at_ms)[0]

    async def record_pushes(self, records: Sequence[PushRecord]) -> None:
        for record in records:
            ours = not record.lease or self._outbox.complete(record.lease)
            entry = self._logs.find(record.message_id)
            if entry is None:
                continue
            if is_addressed(entry.publication.channel):
                self._logs.pushed(entry, record.device_id, record.result)
            elif ours:
                entry.push_counted(record.result.outcome, record.count)

    async def push_of(self, apns_id: str) -> PushRecord | None:
        return self._logs.push_of(apns_id)

    # --------------------------------------------------------------------------------------------------------- presence

    async def _keep_close(self, device_id: str, close: Close) -> None:
        self._devices.closed(device_id, close)

    # ----------------------------------------------------------------------------------------------------------- outbox

    async def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        return self._outbox.add(OutboxWork(kind, key, body, not_before_ms))

    async def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> Sequence[OutboxEntry]:
        return self._outbox.lease(kind, limit, now_ms, lease_ms)

    async def outbox_complete(self, token: str) -> bool:
        return self._outbox.complete(token)

    async def outbox_release(self, token: str, not_before_ms: int) -> bool:
        return self._outbox.release(token, not_before_ms)

    async def outbox_hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        self._outbox.hasten(kind, keys, not_before_ms)

    async def outbox_replace(self, token: str, works: Sequence[OutboxWork], records: Sequence[PushRecord] = ()) -> bool:
        replaced = self._outbox.replace(token, works)
        if replaced:
            await self.record_pushes(records)
        return replaced

    async def outbox_branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        return self._outbox.branch(token, body, works)

    async def outbox_next_ms(self, kind: str) -> int | None:
        return self._outbox.next_ms(kind)
