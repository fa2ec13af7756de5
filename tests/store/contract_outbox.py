"""Part of the contract of a store: work for senders, under leases."""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.codes import Code
from streampush.push.store_ports import Store
from streampush.push.values import OutboxWork, PushOutcome, PushRecord, PushResult
from tests.store.contract_base import LIMITS, ContractBase


class OutboxContract(ContractBase):
    """outbox_add, outbox_lease, outbox_complete, outbox_release, outbox_replace, outbox_branch, outbox_next_ms."""

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

    async def test_hastened_work_is_due_at_that_time_if_it_was_due_later(self) -> None:
        store = await self.outbox("a", "b", not_before_ms=1000)
        await store.outbox_hasten("apns", ["a", "none"], 100)
        await store.outbox_hasten("other", ["b"], 100)
        assert await store.outbox_next_ms("apns") == 100
        assert await self.leased(store, 99) == []
        assert await self.leased(store, 100) == ["a"]
        await store.outbox_hasten("apns", ["b"], 2000)
        assert await self.leased(store, 1000) == ["a", "b"]

    async def test_leased_work_is_not_hastened(self) -> None:
        store = await self.outbox("a")
        (entry,) = await store.outbox_lease("apns", 10, 0, 10)
        await store.outbox_hasten("apns", ["a"], 1)
        assert await self.leased(store, 9) == []
        assert await store.outbox_release(entry.token, 500)
        await store.outbox_hasten("apns", ["a"], 20)
        assert await self.leased(store, 20) == ["a"]

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

    # ---------------------------------------------------------------------------------------------------------- replace

    async def lease(self, store: Store, now_ms: int = 0) -> str:
        """A lease of the first work that is due."""
        (entry,) = await store.outbox_lease("apns", 1, now_ms, 10)
        return entry.token

    async def test_work_that_is_replaced_is_gone_and_what_it_led_to_is_there(self) -> None:
        store = await self.outbox("a")
        works = [OutboxWork("push", "p1", b"one", 5), OutboxWork("push", "p2", b"two", 7), OutboxWork("apns", "b", b"", 9)]
        assert await store.outbox_replace(await self.lease(store), works)
        assert await self.leased(store, 1000) == ["b"]
        leased = await store.outbox_lease("push", 10, 7, 10)
        assert [(entry.key, entry.body, entry.attempts) for entry in leased] == [("p1", b"one", 1), ("p2", b"two", 1)]
        assert await store.outbox_next_ms("push") == 17

    async def test_what_is_replaced_by_nothing_is_done(self) -> None:
        store = await self.outbox("a")
        token = await self.lease(store)
        assert await store.outbox_replace(token, [])
        assert not await store.outbox_complete(token)
        assert (await store.status()).outbox == 0

    async def test_work_that_is_there_already_is_left_as_it_is(self) -> None:
        store = await self.outbox("a")
        await store.outbox_add("push", "p1", b"old", 50)
        works = [OutboxWork("push", "p1", b"new", 5), OutboxWork("push", "p2", b"first", 6), OutboxWork("push", "p2", b"second", 6)]
        assert await store.outbox_replace(await self.lease(store), works)
        leased = await store.outbox_lease("push", 10, 50, 10)
        assert [(entry.key, entry.body) for entry in leased] == [("p2", b"first"), ("p1", b"old")]

    async def test_work_may_be_followed_by_work_of_its_own_kind_and_key(self) -> None:
        store = await self.outbox("a")
        assert await store.outbox_replace(await self.lease(store), [OutboxWork("apns", "a", b"goes on", 20)])
        (entry,) = await store.outbox_lease("apns", 10, 20, 10)
        assert (entry.key, entry.body, entry.attempts) == ("a", b"goes on", 1)

    async def test_a_lease_that_has_passed_on_replaces_nothing(self) -> None:
        store = await self.outbox("a")
        first = await self.lease(store)
        second = await self.lease(store, 10)
        works = [OutboxWork("push", "p", b"", 0)]
        assert not await store.outbox_replace(first, works)
        assert not await store.outbox_replace("", works)
        assert await store.outbox_next_ms("push") is None
        assert await store.outbox_replace(second, works)
        assert not await store.outbox_replace(second, works)

    async def test_what_accepted_work_leads_to_may_be_twice_the_limit(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=2, max_bytes=1000))
        for key in ("a", "b"):
            await store.outbox_add("apns", key, b"", 0)
        works = [OutboxWork("push", f"p{number}", b"x" * 1000, 0) for number in range(4)]
        token = await self.lease(store)
        await self.refused(store.outbox_replace(token, works), Code.QUOTA_EXCEEDED)
        assert await store.outbox_next_ms("push") is None
        assert await store.outbox_replace(token, works[:3])
        assert (await store.status()).outbox == 4
        await self.refused(store.outbox_add("apns", "c", b"", 0), Code.QUOTA_EXCEEDED)
        token = await self.lease(store)
        await self.refused(store.outbox_replace(token, [OutboxWork("push", key, b"", 0) for key in "xy"]), Code.QUOTA_EXCEEDED)
        assert await store.outbox_replace(token, [OutboxWork("push", "x", b"", 0)])

    async def test_work_may_be_followed_by_one_even_above_that(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=1))
        for number in range(3):
            await store.append(self.draft(deliver_at_ms=self.now_ms + 1, fallback=b"x", message_id=f"m{number}"))
        await store.outbox_add("apns", "a", b"", 0)
        await store.fire_due(self.now_ms + 1, 10)
        assert (await store.status()).outbox == 4
        token = await self.lease(store)
        works = [OutboxWork("push", key, b"", 0) for key in "xy"]
        await self.refused(store.outbox_replace(token, works), Code.QUOTA_EXCEEDED)
        assert await store.outbox_replace(token, works[:1])

    async def test_work_that_follows_itself_counts_among_what_it_becomes(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=1))
        await store.outbox_add("apns", "a", b"", 0)
        token = await self.lease(store)
        works = [OutboxWork("apns", key, b"", 0) for key in "abc"]
        await self.refused(store.outbox_replace(token, works), Code.QUOTA_EXCEEDED)
        assert await store.outbox_replace(token, works[:2])
        assert (await store.status()).outbox == 2

    async def test_hundreds_replace_one_and_their_bytes_are_counted(self) -> None:
        store = await self.outbox("a")
        works = [OutboxWork("push", f"p{number:03}", b"x" * number, number) for number in range(300)]
        assert await store.outbox_replace(await self.lease(store), works)
        status = await store.status()
        assert (status.outbox, status.bytes) == (300, sum(range(300)))
        leased = await store.outbox_lease("push", 1000, 300, 10)
        assert [entry.key for entry in leased] == [work.key for work in works]
        for entry in leased:
            assert await store.outbox_complete(entry.token)
        assert (await store.status()).bytes == 0

    async def test_results_are_recorded_in_the_same_step_if_the_lease_is_good(self) -> None:
        store = await self.outbox("a")
        await store.append(self.draft(message_id="topic"))
        first, second = await self.lease(store), await self.lease(store, 10)
        delivered = [PushRecord("topic", "", PushResult(1, PushOutcome.DELIVERED), count=7)]
        works = [OutboxWork("push", "p", b"", 0)]
        assert not await store.outbox_replace(first, works, delivered)
        assert (await self.record_of(store, "topic")).push_counts == {}
        assert await store.outbox_replace(second, works, delivered)
        assert not await store.outbox_replace(second, [], delivered)
        assert (await self.record_of(store, "topic")).push_counts == {PushOutcome.DELIVERED: 7}
        assert await store.outbox_next_ms("push") == 0

    # ----------------------------------------------------------------------------------------------------------- branch

    async def test_work_that_branches_goes_on_under_its_lease_and_what_it_led_to_is_there(self) -> None:
        store = await self.outbox("a")
        token = await store.outbox_branch(await self.lease(store), b"goes on", [OutboxWork("apns", "b", b"next", 5)])
        assert token
        status = await store.status()
        assert (status.outbox, status.bytes) == (2, len(b"goes on") + len(b"next"))
        assert await self.leased(store, 9) == ["b"]
        (again,) = await store.outbox_lease("apns", 1, 10, 10)
        assert (again.key, again.body, again.attempts) == ("a", b"goes on", 2)
        assert not await store.outbox_complete(token)

    async def test_the_lease_has_another_token_behind_a_branch(self) -> None:
        store = await self.outbox("a")
        first = await self.lease(store)
        second = await store.outbox_branch(first, b"1", [])
        assert second
        assert await store.outbox_branch(first, b"2", [OutboxWork("apns", "b", b"", 0)]) is None
        assert not await store.outbox_complete(first)
        third = await store.outbox_branch(second, b"3", [])
        assert third
        assert len({first, second, third}) == 3
        assert await store.outbox_replace(third, [])
        assert (await store.status()).outbox == 0

    async def test_a_branch_leaves_work_that_is_there_as_it_is_also_itself(self) -> None:
        store = await self.outbox("a")
        await store.outbox_add("push", "p", b"old", 0)
        works = [OutboxWork("push", "p", b"new", 0), OutboxWork("apns", "a", b"new", 0)]
        token = await store.outbox_branch(await self.lease(store), b"own", works)
        assert token
        (entry,) = await store.outbox_lease("push", 10, 0, 10)
        assert entry.body == b"old"
        assert await store.outbox_release(token, 20)
        assert [one.body for one in await store.outbox_lease("apns", 10, 20, 10)] == [b"own"]

    async def test_a_lease_that_has_passed_on_branches_to_nothing(self) -> None:
        store = await self.outbox("a")
        first = await self.lease(store)
        await self.lease(store, 10)
        assert await store.outbox_branch(first, b"", [OutboxWork("push", "p", b"", 0)]) is None
        assert await store.outbox_branch("", b"", []) is None
        assert await store.outbox_next_ms("push") is None

    async def test_a_branch_is_refused_as_a_replacement_is(self) -> None:
        store = self.make_store(replace(LIMITS, max_outbox=1))
        await store.outbox_add("apns", "a", b"old", 0)
        token = await self.lease(store)
        works = [OutboxWork("push", key, b"", 0) for key in "xy"]
        await self.refused(store.outbox_branch(token, b"new", works), Code.QUOTA_EXCEEDED)
        assert (await store.status()).bytes == len(b"old")
        follows = await store.outbox_branch(token, b"new", works[:1])
        assert follows
        assert (await store.status()).outbox == 2
        assert await store.outbox_branch(follows, b"", [])
