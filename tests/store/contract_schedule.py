"""Part of the contract of a store: publications that wait for their time."""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.codes import Code
from streampush.push.store_ports import Store
from tests.store.contract_base import LIMITS, ContractBase


class ScheduleContract(ContractBase):
    """append with deliver_at_ms, next_due_ms, fire_due."""

    async def later(self, store: Store, message_id: str, delay_ms: int, channel: str = "news", **fields: object) -> None:
        draft = self.draft(channel, message_id=message_id, deliver_at_ms=self.now_ms + delay_ms, **fields)  # type: ignore[arg-type]
        await store.append(draft)

    async def fired(self, store: Store, now_ms: int, limit: int = 100) -> list[str]:
        return [appended.publication.message_id for appended in await store.fire_due(now_ms, limit)]

    async def test_a_scheduled_message_has_no_offset_and_begins_no_log(self) -> None:
        store = self.make_store(LIMITS)
        due_ms = self.now_ms + 100
        answer = await store.append(self.draft(message_id="m", deliver_at_ms=due_ms))
        assert (answer.message_id, answer.offset, answer.deliver_at_ms, answer.appended) == ("m", 0, due_ms, None)
        assert answer.durability is store.durability
        assert answer.epoch == (await store.head("news")).epoch
        assert await store.peek("news") is None

    async def test_a_scheduled_message_is_described(self) -> None:
        store = self.make_store(LIMITS)
        await self.later(store, "m", 100, publisher="key:k", want_receipt=True)
        record = await self.record_of(store, "m")
        assert (record.offset, record.deliver_at_ms, record.published_at_ms) == (0, self.now_ms + 100, self.now_ms)
        assert record.durability is store.durability
        assert (record.channel, record.publisher, record.want_receipt, record.size) == ("news", "key:k", True, 7)

    async def test_the_next_due_time_is_that_of_the_earliest(self) -> None:
        store = self.make_store(LIMITS)
        assert await store.next_due_ms() is None
        await self.later(store, "b", 200)
        await self.later(store, "a", 100)
        assert await store.next_due_ms() == self.now_ms + 100

    async def test_what_is_due_is_appended_the_earliest_first(self) -> None:
        store = self.make_store(LIMITS)
        for message_id, delay_ms in (("c", 300), ("a", 100), ("b1", 200), ("b2", 200), ("d", 301)):
            await self.later(store, message_id, delay_ms)
        assert await self.fired(store, self.now_ms + 99) == []
        assert await self.fired(store, self.now_ms + 300) == ["a", "b1", "b2", "c"]
        assert await self.readable(store) == ["a", "b1", "b2", "c"]
        assert await store.next_due_ms() == self.now_ms + 301
        assert await self.fired(store, self.now_ms + 400) == ["d"]
        assert await store.next_due_ms() is None

    async def test_only_so_many_are_appended_at_once(self) -> None:
        store = self.make_store(LIMITS)
        for number in range(5):
            await self.later(store, f"m{number}", number)
        assert await self.fired(store, self.now_ms + 9, 3) == ["m0", "m1", "m2"]
        assert await self.fired(store, self.now_ms + 9, 3) == ["m3", "m4"]

    async def test_a_fired_message_is_like_any_other_and_published_now(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        await self.later(store, "m", 100)
        (appended,) = await store.fire_due(self.now_ms + 150, 10)
        publication = appended.publication
        assert (publication.offset, publication.payload, publication.published_at_ms) == (2, b"payload", self.now_ms + 150)
        assert (dict(publication.headers), publication.content_type) == ({"k": "v"}, "text/plain")
        assert (appended.epoch, appended.durability) == ((await store.head("news")).epoch, store.durability)
        record = await self.record_of(store, "m")
        assert (record.offset, record.deliver_at_ms) == (2, self.now_ms + 100)

    async def test_what_has_expired_when_it_is_due_is_dropped(self) -> None:
        store = self.make_store(LIMITS)
        await self.later(store, "gone", 100, ttl_ms=150)
        await self.later(store, "stays", 100, ttl_ms=151)
        assert await self.fired(store, self.now_ms + 150) == ["stays"]
        assert await store.message("gone", 10) is None
        assert await store.next_due_ms() is None

    async def test_a_version_that_was_overtaken_while_it_waited_is_dropped(self) -> None:
        store = self.make_store(LIMITS)
        await self.later(store, "old", 100, version=4, collapse_key="k")
        await self.later(store, "new", 100, version=6, collapse_key="k")
        await store.append(self.draft(version=5, collapse_key="k", message_id="now"))
        assert await self.fired(store, self.now_ms + 100) == ["new"]
        assert await self.readable(store) == ["new"]

    async def test_a_version_that_waits_does_not_count_yet(self) -> None:
        store = self.make_store(LIMITS)
        await self.later(store, "later", 100, version=9)
        assert not (await store.append(self.draft(version=5))).superseded

    async def test_a_version_that_is_overtaken_already_is_not_scheduled(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(version=5))
        answer = await store.append(self.draft(version=5, deliver_at_ms=self.now_ms + 100))
        assert (answer.superseded, answer.offset, answer.deliver_at_ms) == (True, 1, 0)
        assert await store.next_due_ms() is None

    async def test_a_fired_message_supersedes_the_earlier_of_its_collapse_key(self) -> None:
        store = self.make_store(LIMITS)
        await self.later(store, "later", 100, collapse_key="k")
        await store.append(self.draft(collapse_key="k", message_id="now"))
        assert await self.readable(store) == ["now"]
        await self.fired(store, self.now_ms + 100)
        assert await self.readable(store) == ["later"]

    async def test_what_waits_for_a_device_that_was_forgotten_is_dropped(self) -> None:
        store, _ = await self.with_device()
        await self.later(store, "m", 100, "device:d")
        await store.forget_device("d")
        assert await self.fired(store, self.now_ms + 100) == []
        assert await store.message("m", 10) is None

    async def test_the_recipient_must_be_known_when_it_is_scheduled(self) -> None:
        store = self.make_store(LIMITS)
        await self.refused(store.append(self.draft("user:u", deliver_at_ms=self.now_ms + 100)), Code.UNKNOWN_RECIPIENT)
        assert await store.next_due_ms() is None

    async def test_scheduled_messages_above_the_quota_are_refused(self) -> None:
        store = self.make_store(replace(LIMITS, max_scheduled=1))
        await self.later(store, "m", 100)
        await self.refused(store.append(self.draft(deliver_at_ms=self.now_ms + 1)), Code.QUOTA_EXCEEDED)
        assert (await store.append(self.draft())).offset == 1
        await self.fired(store, self.now_ms + 100)
        await self.later(store, "m2", 100)

    async def test_scheduled_bytes_count_against_the_quota_and_are_counted_once(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.later(store, "m", 100, payload=b"x" * 1500)
        await self.refused(store.append(self.draft(payload=b"x" * 1000)), Code.QUOTA_EXCEEDED)
        await self.fired(store, self.now_ms + 100)
        before = (await store.status()).bytes
        await self.refused(store.append(self.draft(payload=b"x" * 1000)), Code.QUOTA_EXCEEDED)
        assert (await store.append(self.draft(payload=b"x" * 400))).offset == 2
        assert (await store.status()).bytes > before

    async def test_what_was_accepted_is_appended_although_there_is_no_room_for_its_channel(self) -> None:
        store = self.make_store(replace(LIMITS, max_channels=1))
        await self.later(store, "m", 100, "later")
        await self.fill(store, 1)
        assert await self.fired(store, self.now_ms + 100) == ["m"]
        assert await self.readable(store, "later") == ["m"]
