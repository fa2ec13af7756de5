"""Part of the contract of a store: work for senders, under leases."""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.codes import Code
from streampush.push.ports import Store
from tests.store.contract_base import LIMITS, ContractBase


class OutboxContract(ContractBase):
    """outbox_add, outbox_lease, outbox_complete, outbox_release, outbox_next_ms."""

    async def outbox(self, *keys: str, not_before_ms: int = 0) -> Store:
        """A store with work of the kind "apns"."""
        store = self.make_store(LIMITS)
        for key in keys:
            assert await store.outbox_add("apns", key, key.encode(), not_before_ms)
        return store

    async def leased(self, store: Store, now_ms: int, limit: int = 10, kind: str = "apns") -> list[str]:
        """The keys of what is leased for ten milliseconds."""
        return [entry.key for entry in await store.outbox_lease(kind, limit, now_ms, 10)]

    async def test_work_is_leased_with_its_body(self) -> None:
        store = await self.outbox("a")
        (entry,) = await store.outbox_lease("apns", 10, 0, 10)
        assert (entry.kind, entry.key, entry.body, entry.attempts) == ("apns", "a", b"a", 1)
        assert entry.token

    async def test_work_of_a_key_that_is_there_is_not_added_again(self) -> None:
        store = await self.outbox("a")
        assert not await store.outbox_add("apns", "a", b"other", 0)
        assert await store.outbox_add("webhook", "a", b"other", 0)
        (entry,) = await store.outbox_lease("apns", 10, 0, 10)
        assert entry.body == b"a"
        assert not await store.outbox_add("apns", "a", b"other", 0)  # leased is there too

    async def test_work_that_is_done_is_gone_and_may_be_added_again(self) -> None:
        store = await self.outbox("a")
        (entry,) = await store.outbox_lease("apns", 10, 0, 10)
        assert await store.outbox_complete(entry.token)
        assert not await store.outbox_complete(entry.token)
        assert await self.leased(store, 1000) == []
        assert await store.outbox_add("apns", "a", b"again", 0)

    async def test_kinds_are_apart(self) -> None:
        store = await self.outbox("a")
        await store.outbox_add("webhook", "w", b"", 0)
        assert await self.leased(store, 0, kind="webhook") == ["w"]
        assert await self.leased(store, 0) == ["a"]
        assert await self.leased(store, 0, kind="other") == []

    async def test_what_is_due_is_leased_the_earliest_first(self) -> None:
        store = await self.outbox()
        for key, not_before_ms in (("c", 30), ("a", 10), ("b1", 20), ("b2", 20)):
            await store.outbox_add("apns", key, b"", not_before_ms)
        assert await self.leased(store, 9) == []
        assert await self.leased(store, 20, limit=2) == ["a", "b1"]
        assert await self.leased(store, 20) == ["b2"]

    async def test_what_is_leased_is_nobody_elses_until_the_lease_ends(self) -> None:
        store = await self.outbox("a")
        assert await self.leased(store, 100) == ["a"]
        assert await self.leased(store, 109) == []
        (entry,) = await store.outbox_lease("apns", 10, 110, 10)
        assert (entry.key, entry.attempts) == ("a", 2)

    async def test_a_lease_that_has_passed_to_somebody_else_is_worth_nothing(self) -> None:
        store = await self.outbox("a")
        (first,) = await store.outbox_lease("apns", 10, 0, 10)
        (second,) = await store.outbox_lease("apns", 10, 10, 10)
        assert first.token != second.token
        assert not await store.outbox_complete(first.token)
        assert not await store.outbox_release(first.token, 0)
        assert await self.leased(store, 11) == []
        assert await store.outbox_complete(second.token)

    async def test_a_lease_that_ended_and_nobody_took_over_is_still_good(self) -> None:
        store = await self.outbox("a", "b")
        first, second = await store.outbox_lease("apns", 10, 0, 10)
        self.now_ms += 1000
        assert await store.outbox_complete(first.token)
        assert await store.outbox_release(second.token, 50)
        assert await self.leased(store, 49) == []

    async def test_released_work_is_due_when_it_was_said_and_has_no_lease(self) -> None:
        store = await self.outbox("a")
        (entry,) = await store.outbox_lease("apns", 10, 0, 10)
        assert await store.outbox_release(entry.token, 500)
        assert not await store.outbox_release(entry.token, 1)
        assert not await store.outbox_complete(entry.token)
        assert await self.leased(store, 499) == []
        (again,) = await store.outbox_lease("apns", 10, 500, 10)
        assert again.attempts == 2

    async def test_an_unknown_token_is_worth_nothing(self) -> None:
        store = await self.outbox("a")
        assert not await store.outbox_complete("none")
        assert not await store.outbox_release("", 0)
        assert not await store.outbox_complete("")

    async def test_the_next_time_is_when_work_is_due_or_a_lease_ends(self) -> None:
        store = await self.outbox()
        assert await store.outbox_next_ms("apns") is None
        await store.outbox_add("apns", "b", b"", 50)
        await store.outbox_add("apns", "a", b"", 20)
        await store.outbox_add("webhook", "w", b"", 1)
        assert await store.outbox_next_ms("apns") == 20
        (entry,) = await store.outbox_lease("apns", 1, 45, 10)
        assert await store.outbox_next_ms("apns") == 50
        await self.leased(store, 52)
        assert await store.outbox_next_ms("apns") == 55
        await store.outbox_complete(entry.token)
        assert await store.outbox_next_ms("apns") == 62

    async def test_work_above_the_quota_is_refused(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=2))
        await store.outbox_add("apns", "a", b"", 0)
        await store.outbox_add("webhook", "b", b"", 0)
        await self.refused(store.outbox_add("apns", "c", b"", 0), Code.QUOTA_EXCEEDED)
        assert not await store.outbox_add("apns", "a", b"", 0)
        (entry,) = await store.outbox_lease("apns", 1, 0, 10)
        await store.outbox_complete(entry.token)
        assert await store.outbox_add("apns", "c", b"", 0)
