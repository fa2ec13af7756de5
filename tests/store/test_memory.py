"""The store in memory: the contract, and how it keeps its memory bounded."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.protocol.terms import Durability
from streampush.store.memory import MemoryStore
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
        assert len(store._logs["news"]._entries) <= COMPACT_AFTER + 10

    async def test_the_payload_of_dropped_entries_is_freed_at_once(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=5))
        await self.fill(store, COMPACT_AFTER, payload=b"x" * 100)
        assert sum(len(entry.publication.payload) for entry in store._logs["news"]._entries if entry is not None) == 500

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
