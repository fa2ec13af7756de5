"""The store in memory: the contract, and how it keeps its memory bounded."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.protocol.terms import Durability
from streampush.push.values import CursorMove, DeviceRecord, Undeliverable
from streampush.store.memory import MemoryStore
from streampush.store.memory import log as log_module
from streampush.store.memory.log import COMPACT_AFTER
from tests.store.contract import LIMITS, StoreContract


class MemoryStoreTests(StoreContract, TestCase):
    def make_store(self, limits: StoreConfig) -> MemoryStore:
        epochs = count(1)
        return MemoryStore(limits, lambda: self.now_ms, lambda: f"epoch-{next(epochs)}")

    def test_it_promises_memory_only(self) -> None:
        assert self.make_store(LIMITS).durability is Durability.MEMORY

    async def test_a_sweep_trims_what_is_too_old_in_a_silent_channel(self) -> None:
        store = self.make_store(replace(LIMITS, history_age=10.0))
        await self.fill(store, 3)
        self.now_ms += 10_001
        store.sweep(1)
        assert (await store.head("news")).floor_offset == 2

    async def test_a_sweep_frees_the_payload_of_what_has_expired(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.fill(store, 1, "a", b"x" * 2000, ttl_ms=10)
        self.now_ms += 10
        store.sweep(1)
        assert (await store.append(self.draft("b", b"x" * 2000))).offset == 1
        assert await self.message_id(store, 1, "a") == "a-m1"

    async def test_freeing_twice_does_not_free_more(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.fill(store, 2, "a", b"x" * 500, ttl_ms=10)
        await self.fill(store, 1, "b", b"x" * 900)
        self.now_ms += 10
        for _ in range(5):
            store.sweep(10)
        with self.assertRaises(Exception) as caught:
            await store.append(self.draft("c", b"x" * 1500))
        assert "its limit" in str(caught.exception)

    async def test_sweeping_a_few_at_a_time_reaches_every_channel(self) -> None:
        store = self.make_store(replace(LIMITS, history_age=10.0))
        for number in range(10):
            await self.fill(store, 2, f"c{number}")
        self.now_ms += 10_001
        for _ in range(5):
            store.sweep(2)
        assert [(await store.head(f"c{number}")).floor_offset for number in range(10)] == [1] * 10

    async def test_dropped_entries_do_not_pile_up(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=5))
        await self.fill(store, 3 * COMPACT_AFTER)
        assert len(store._logs.channels["news"]._entries) <= COMPACT_AFTER + 10

    async def test_the_payload_of_dropped_entries_is_freed_at_once(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=5))
        await self.fill(store, COMPACT_AFTER, payload=b"x" * 100)
        assert sum(len(entry.publication.payload) for entry in store._logs.channels["news"]._entries if entry is not None) == 500

    async def test_expired_messages_are_counted_beside_dropped_ones(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=5))
        await self.fill(store, 3, ttl_ms=10)
        await self.fill(store, 4)
        self.now_ms += 10
        assert [(await self.spot(store, offset)).expired for offset in (0, 2, 3, 7)] == [1, 1, 0, 0]
        await self.fill(store, 1)  # now the last one that expires is dropped
        assert [(await self.spot(store, offset)).expired for offset in (0, 4)] == [0, 0]

    async def test_forgotten_cursors_leave_nothing_behind(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([])
        for number in range(10):
            await store.forget_cursor(f"d{number}", "news")
        assert store._cursors._cursors == {}

    async def test_expired_keys_are_swept_and_leave_nothing_behind(self) -> None:
        store = self.make_store(LIMITS)
        for number in range(5):
            await store.append(self.keyed(f"k{number}", scope=f"p{number % 2}"))
        assert len(store._keys) == 5
        self.now_ms += 10_000
        store.sweep(10)
        assert (len(store._keys), store._keys._answers, store._keys._scopes) == (0, {}, {})

    async def test_keys_that_are_too_many_leave_nothing_behind_of_their_publishers(self) -> None:
        store = self.make_store(replace(LIMITS, max_idempotency_keys_total=3))
        for number in range(20):
            await store.append(self.keyed(scope=f"device:{number}"))
        assert (len(store._keys), list(store._keys._scopes)) == (3, ["device:17", "device:18", "device:19"])

    async def test_what_leaves_the_log_is_found_by_id_no_more(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=5))
        for number in range(3000):
            await store.append(self.draft(collapse_key=f"k{number}", version=1))
        log = store._logs.channels["news"]
        assert (len(store._logs.entries), len(log._latest), log.wanting) == (5, 5, 0)

    async def test_receipts_of_one_message_have_a_bounded_number_of_rows(self) -> None:
        self.patch(log_module, "MAX_RECEIPT_ROWS", 2)
        store = self.make_store(LIMITS)
        await store.remember_device(DeviceRecord("a", "u"))
        epoch = (await store.append(self.draft("user:u", message_id="m"))).epoch
        for device_id in ("a", "b", "c", "a"):
            await store.record([CursorMove(device_id, "user:u", epoch, 1, at_ms=1)])
        assert [row.device_id for row in (await self.record_of(store, "m")).devices] == ["a", "b"]

    async def test_everything_that_is_held_is_freed_with_what_it_belongs_to(self) -> None:
        store = self.make_store(LIMITS)
        await store.remember_device(DeviceRecord("d", "u"))
        epoch = (await store.append(self.draft("device:d", message_id="m"))).epoch
        await store.append(self.draft("device:d", deliver_at_ms=self.now_ms + 10, message_id="later"))
        await store.add_subscription("d", "news", 1, 10)
        await store.record([CursorMove("d", "news", "e", 1)], [], [Undeliverable("d", "device:d", epoch, 1, 1, "poison", 1)])
        await store.outbox_add("apns", "k", b"body", 0)
        (work,) = await store.outbox_lease("apns", 1, 0, 10)
        await store.outbox_complete(work.token)
        await store.recall("later", "n", self.now_ms)
        await store.recall("m", "notice", self.now_ms)
        await store.forget_device("d")
        assert (await store.status()).bytes == len("text/plain")  # of the entry that is kept for its id
        assert (store._cursors._cursors, store._cursors._durable, store._letters._letters) == ({}, {}, {})
        assert (store._schedule._drafts, store._outbox._work, store._outbox._leased, store._devices._users) == ({}, {}, {}, {})

    async def test_places_in_queues_that_were_left_do_not_pile_up(self) -> None:
        store = self.make_store(LIMITS)
        await store.outbox_add("apns", "k", b"", 0)
        for number in range(1000):
            (work,) = await store.outbox_lease("apns", 1, number, 10)
            await store.outbox_release(work.token, number)
            await store.append(self.draft(message_id="m", deliver_at_ms=self.now_ms + 10))
            await store.recall("m", "notice", self.now_ms)
        assert len(store._outbox._due["apns"]) <= 102
        assert len(store._schedule._due) <= 102
