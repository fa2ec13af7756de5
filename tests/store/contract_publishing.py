"""Part of the contract of a store: the first answer to a key, and what is recalled because a device has processed it."""

from __future__ import annotations

from dataclasses import replace

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Milestone
from streampush.push.ids import clearing_id
from streampush.push.store_ports import Store
from streampush.push.values import Appended, CursorMove, DeviceRecord, Draft, Idempotency, Mark


class PublishingContract:
    """Mixed into StoreContract."""

    now_ms: int

    def make_store(self, limits: StoreConfig) -> Store:
        """See StoreContract."""
        raise NotImplementedError

    def key(self, key: str = "k", fingerprint: bytes = b"f") -> Idempotency:
        return Idempotency("publisher:p", key, fingerprint, self.now_ms + 60_000)

    def with_key(self, message_id: str = "m1", **fields: object) -> Draft:
        draft = Draft("news", message_id, b"x", self.now_ms, idempotency=self.key())
        return replace(draft, **fields)  # type: ignore[arg-type]  # any field

    async def test_the_first_answer_to_a_key_is_given_without_storing_anything(self) -> None:
        store = self.make_store(StoreConfig())
        assert await store.first_answer(self.key()) is None
        first = await store.append(self.with_key())
        assert await store.first_answer(self.key()) == replace(first, duplicate=True, appended=None)
        assert (await store.head("news")).top_offset == 1

    async def test_the_first_answer_to_a_scheduled_message_is_that_it_is_scheduled(self) -> None:
        store = self.make_store(StoreConfig())
        await store.append(self.with_key(deliver_at_ms=self.now_ms + 10))
        await store.fire_due(self.now_ms + 10, 10)
        answer = await store.first_answer(self.key())
        assert answer is not None
        assert (answer.offset, answer.deliver_at_ms, answer.duplicate) == (0, self.now_ms + 10, True)

    async def test_a_key_with_another_fingerprint_has_no_first_answer(self) -> None:
        store = self.make_store(StoreConfig())
        await store.append(self.with_key())
        try:
            await store.first_answer(self.key(fingerprint=b"other"))
        except Refused as refused:
            assert refused.code is Code.DUPLICATE
        else:
            raise AssertionError("not refused")

    async def test_the_first_answer_is_forgotten_with_its_key(self) -> None:
        store = self.make_store(StoreConfig())
        await store.append(self.with_key())
        self.now_ms += 60_000
        assert await store.first_answer(self.key()) is None
        assert await store.first_answer(replace(self.key("other"), scope="publisher:q")) is None

    # ---------------------------------------------------------------------------------------------------------- clearing

    async def household(self, channel: str = "user:ada", **fields: object) -> tuple[Store, str]:
        """A store with two devices of a user, and three messages m1, m2, m3 that are cleared when processed; and the epoch."""
        store = self.make_store(StoreConfig())
        for device_id in ("phone", "tablet"):
            await store.remember_device(DeviceRecord(device_id, "ada"))
        epoch = ""
        for number in (1, 2, 3):
            draft = Draft(channel, f"m{number}", b"x", self.now_ms, clear_on_processed=True)
            epoch = (await store.append(replace(draft, **fields))).epoch  # type: ignore[arg-type]  # any field
        return store, epoch

    async def processed(self, store: Store, epoch: str, offset: int, device_id: str = "phone") -> list[Appended]:
        self.now_ms += 1
        return list(await store.record([CursorMove(device_id, "user:ada", epoch, offset, offset, at_ms=self.now_ms)]))

    async def test_what_a_device_has_processed_is_recalled_in_the_same_step(self) -> None:
        store, epoch = await self.household()
        notices = await self.processed(store, epoch, 2)
        assert [(each.publication.message_id, each.publication.recalls, each.publication.offset) for each in notices] == [
            (clearing_id("m1"), "m1", 4),
            (clearing_id("m2"), "m2", 5),
        ]
        assert {(each.epoch, each.durability, each.publication.payload) for each in notices} == {(epoch, store.durability, b"")}
        page = await store.read("user:ada", 0, 10, 1000)
        assert [each.message_id for each in page.publications] == ["m3", clearing_id("m1"), clearing_id("m2")]
        record = await store.message("m1", 10)
        assert record is not None
        assert record.recalled_at_ms == self.now_ms
        assert record.devices[0].times[Milestone.PROCESSED] == self.now_ms

    async def test_what_is_recalled_and_too_old_at_once_takes_its_bytes_along_once(self) -> None:
        store, epoch = await self.household()
        self.now_ms += int(StoreConfig().history_age * 1000) + 1
        assert len(await self.processed(store, epoch, 3)) == 3
        assert (await store.status()).bytes == 0

    async def test_it_is_recalled_once(self) -> None:
        store, epoch = await self.household()
        await self.processed(store, epoch, 1)
        assert await self.processed(store, epoch, 1) == []
        assert await self.processed(store, epoch, 1, "tablet") == []
        await store.recall("m2", "notice", self.now_ms)
        assert [each.publication.recalls for each in await self.processed(store, epoch, 3)] == ["m3"]

    async def test_a_device_that_processes_what_was_recalled_meanwhile_recalls_nothing(self) -> None:
        store, epoch = await self.household()
        await store.record([], [Mark("tablet", "user:ada", epoch, 1, 1, Milestone.WRITTEN, self.now_ms)])
        await self.processed(store, epoch, 1)
        assert await self.processed(store, epoch, 1, "tablet") == []
        record = await store.message("m1", 10)
        assert record is not None
        assert Milestone.PROCESSED in record.devices[1].times

    async def test_a_move_without_a_time_recalls_too(self) -> None:
        store, epoch = await self.household()
        await store.record([CursorMove("phone", "user:ada", epoch, 1, 1)])
        assert await store.record([CursorMove("tablet", "user:ada", epoch, 1, 1)]) == []

    async def test_what_is_delivered_rejected_or_of_another_epoch_is_not_recalled(self) -> None:
        store, epoch = await self.household()
        assert await store.record([CursorMove("phone", "user:ada", epoch, 3, at_ms=1)]) == []
        reject = Mark("tablet", "user:ada", epoch, 1, 1, Milestone.REJECTED, 1)
        assert await store.record([CursorMove("tablet", "user:ada", epoch, 1, 1, at_ms=1)], [reject]) == []
        assert await store.record([CursorMove("other", "user:ada", "another", 3, 3, at_ms=1)]) == []

    async def test_what_does_not_ask_for_it_is_not_recalled(self) -> None:
        store, epoch = await self.household(clear_on_processed=False)
        assert await self.processed(store, epoch, 3) == []
