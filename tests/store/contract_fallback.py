"""Part of the contract of a store: what is to be done for devices that do not take a publication is kept with it, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streampush.config import StoreConfig
from streampush.protocol.codes import Code
from streampush.push.store_ports import Store
from streampush.push.values import FALLBACK, Accepted, Idempotency
from tests.store.contract_base import LIMITS, ContractBase

ROOM = 2048


class FallbackContract(ContractBase):
    """append and fire_due, of drafts with a fallback."""

    async def works(self, store: Store, now_ms: int = 0) -> list[tuple[str, bytes]]:
        """Key and body of the work that is due."""
        leased = await store.outbox_lease(FALLBACK, 100, now_ms or self.now_ms, 0)
        return [(entry.key, entry.body) for entry in leased]

    async def publish(self, store: Store, message_id: str, fallback: bytes = b"alert", **fields: Any) -> Accepted:
        return await store.append(self.draft(message_id=message_id, fallback=fallback, **fields))

    async def test_a_fallback_is_work_that_is_due_when_the_message_was_published(self) -> None:
        store = self.make_store(LIMITS)
        await self.publish(store, "m")
        assert await store.outbox_next_ms(FALLBACK) == self.now_ms
        assert await self.works(store, self.now_ms - 1) == []
        assert await self.works(store) == [("m", b"alert")]

    async def test_a_message_without_a_fallback_leads_to_no_work(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        assert await store.outbox_next_ms(FALLBACK) is None

    async def test_a_fallback_is_no_part_of_what_is_delivered(self) -> None:
        store = self.make_store(LIMITS)
        await self.publish(store, "m")
        page = await store.read("news", 0, 10, 1000)
        assert [publication.payload for publication in page.publications] == [b"payload"]
        assert (await self.record_of(store, "m")).size == len(b"payload")

    async def test_a_duplicate_leads_to_no_more_work(self) -> None:
        store = self.make_store(LIMITS)
        key = Idempotency("p", "key", b"1", self.now_ms + 1000)
        await self.publish(store, "m1", idempotency=key)
        assert (await self.publish(store, "m2", idempotency=key)).duplicate
        assert await self.works(store) == [("m1", b"alert")]

    async def test_a_version_that_was_overtaken_leads_to_no_work(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(version=2))
        assert (await self.publish(store, "m", version=1)).superseded
        assert await self.works(store) == []

    async def test_a_fallback_without_room_in_the_outbox_is_refused_and_nothing_is_stored(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=1))
        await self.publish(store, "m1")
        await self.refused(self.publish(store, "m2"), Code.QUOTA_EXCEEDED)
        await self.refused(self.publish(store, "m3", channel="other"), Code.QUOTA_EXCEEDED)
        assert await store.message("m2", 10) is None
        assert await store.peek("other") is None
        assert await self.works(store) == [("m1", b"alert")]
        assert (await store.append(self.draft())).offset == 2  # without one there is room

    async def test_the_bytes_of_a_fallback_count_until_the_work_is_done(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=ROOM))
        before = (await store.status()).bytes
        await self.publish(store, "m1", b"x" * 1500, payload=b"")
        held = (await store.status()).bytes
        assert held >= before + 1500
        await self.refused(self.publish(store, "m2", b"x" * 1000), Code.QUOTA_EXCEEDED)
        await self.refused(store.append(self.draft(payload=b"x" * 1000)), Code.QUOTA_EXCEEDED)
        (entry,) = await store.outbox_lease(FALLBACK, 1, self.now_ms, 10)
        await store.outbox_complete(entry.token)
        assert (await store.status()).bytes == held - 1500
        assert (await store.append(self.draft(payload=b"x" * 1000))).offset == 2

    # -------------------------------------------------------------------------------------------------------- scheduled

    async def scheduled(self, message_id: str = "m", limits: StoreConfig = LIMITS, **fields: Any) -> Store:
        """A store with a message that waits for a hundred milliseconds."""
        store = self.make_store(limits)
        await self.publish(store, message_id, deliver_at_ms=self.now_ms + 100, **fields)
        return store

    async def test_what_waits_for_its_time_leads_to_work_then(self) -> None:
        store = await self.scheduled()
        assert await store.outbox_next_ms(FALLBACK) is None
        self.now_ms += 150
        assert len(await store.fire_due(self.now_ms, 10)) == 1
        assert await store.outbox_next_ms(FALLBACK) == self.now_ms
        assert await self.works(store) == [("m", b"alert")]

    async def test_what_waits_and_is_of_no_use_then_leads_to_no_work(self) -> None:
        store = await self.scheduled(version=1)
        await store.append(self.draft(version=2))
        assert await store.fire_due(self.now_ms + 100, 10) == []
        assert await self.works(store, self.now_ms + 100) == []

    async def test_what_was_accepted_leads_to_work_although_the_outbox_is_full_then(self) -> None:
        store = await self.scheduled(limits=replace(LIMITS, max_outbox=1))
        await store.outbox_add("other", "a", b"", 0)
        assert len(await store.fire_due(self.now_ms + 100, 10)) == 1
        assert await self.works(store, self.now_ms + 100) == [("m", b"alert")]

    async def test_what_waits_is_taken_although_the_outbox_is_full_now(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=1))
        await store.outbox_add("other", "a", b"", 0)
        assert (await self.publish(store, "m", deliver_at_ms=self.now_ms + 100)).deliver_at_ms

    async def test_the_bytes_of_a_fallback_count_while_its_message_waits_and_are_counted_once(self) -> None:
        store = await self.scheduled(limits=replace(LIMITS, max_bytes=ROOM), fallback=b"x" * 1500)
        waiting = (await store.status()).bytes
        assert waiting >= 1500
        await self.refused(store.append(self.draft(payload=b"x" * 1000)), Code.QUOTA_EXCEEDED)
        await store.fire_due(self.now_ms + 100, 10)
        assert (await store.status()).bytes == waiting

    async def test_a_recalled_message_that_waited_leaves_nothing_of_its_fallback(self) -> None:
        store = await self.scheduled(fallback=b"x" * 1500)
        assert await store.recall("m", "notice", self.now_ms) is None
        assert await store.fire_due(self.now_ms + 100, 10) == []
        assert await self.works(store, self.now_ms + 100) == []
        assert (await store.status()).bytes == 0
