"""Part of the contract of a store: single messages, and their recall."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streampush.protocol.codes import Code
from streampush.protocol.terms import Priority
from tests.store.contract_base import LIMITS, ContractBase


class MessageContract(ContractBase):
    """message, recall."""

    async def test_a_message_in_a_log_is_described(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        wishes: dict[str, Any] = {"priority": Priority.HIGH, "collapse_key": "k", "want_receipt": True, "publisher": "key:k"}
        answer = await store.append(self.draft(payload=b"12345", ttl_ms=1000, message_id="m", **wishes))
        record = await self.record_of(store, "m")
        assert (record.message_id, record.channel, record.epoch, record.offset) == ("m", "news", answer.epoch, 2)
        assert (record.publisher, record.priority, record.collapse_key) == ("key:k", Priority.HIGH, "k")
        assert (record.published_at_ms, record.expires_at_ms, record.deliver_at_ms) == (self.now_ms, self.now_ms + 1000, 0)
        assert (record.want_receipt, record.size, record.recalls, record.recalled_at_ms) == (True, 5, "", 0)

    async def test_an_unknown_message_is_none(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=1))
        await self.fill(store, 2)
        assert await store.message("other", 10) is None
        assert await store.message("m1", 10) is None

    async def test_an_expired_message_is_known_while_the_log_has_it(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(ttl_ms=10, message_id="m"))
        self.now_ms += 10
        assert (await self.record_of(store, "m")).size == 7

    # ----------------------------------------------------------------------------------------------------------- recall

    async def test_a_recalled_message_is_read_no_more_and_its_notice_is(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="m1", publisher="key:k"))
        await store.append(self.draft(message_id="m2"))
        appended = await store.recall("m1", "notice", self.now_ms + 5)
        assert appended is not None
        notice = appended.publication
        assert (notice.channel, notice.offset, notice.message_id, notice.recalls) == ("news", 3, "notice", "m1")
        assert (notice.payload, notice.published_at_ms, notice.expires_at_ms) == (b"", self.now_ms + 5, 0)
        assert (appended.epoch, appended.durability) == ((await store.head("news")).epoch, store.durability)
        page = await store.read("news", 0, 10, 1000)
        assert [publication.message_id for publication in page.publications] == ["m2", "notice"]
        assert (page.publications[1], page.expired) == (notice, 0)

    async def test_message_and_notice_tell_of_each_other(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="m1", publisher="key:k"))
        await store.recall("m1", "notice", self.now_ms + 5)
        record, notice = await self.record_of(store, "m1"), await self.record_of(store, "notice")
        assert (record.recalled_at_ms, record.size, record.recalls) == (self.now_ms + 5, 7, "")
        assert (record.durability, notice.durability) == (store.durability, store.durability)
        assert (notice.recalls, notice.offset, notice.publisher, notice.recalled_at_ms) == ("m1", 2, "key:k", 0)

    async def test_a_recalled_message_keeps_its_id_and_is_no_loss(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="m1", ttl_ms=10))
        await store.recall("m1", "notice", self.now_ms)
        self.now_ms += 10
        assert (await self.spot(store, 0)).expired == 0
        assert await self.message_id(store, 1) == "m1"

    async def test_a_message_is_recalled_once(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        assert await store.recall("m1", "notice", self.now_ms) is not None
        assert await store.recall("m1", "again", self.now_ms + 9) is None
        assert await self.readable(store) == ["notice"]
        assert (await self.record_of(store, "m1")).recalled_at_ms == self.now_ms

    async def test_a_scheduled_message_is_dropped(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="m", deliver_at_ms=self.now_ms + 100))
        assert await store.recall("m", "notice", self.now_ms) is None
        assert await store.message("m", 10) is None
        assert await store.next_due_ms() is None
        assert list(await store.fire_due(self.now_ms + 100, 10)) == []
        status = await store.status()
        assert (status.scheduled, status.bytes, status.publications) == (0, 0, 0)
        await self.refused(store.recall("m", "notice", self.now_ms), Code.UNKNOWN_RECIPIENT)

    async def test_a_scheduled_message_that_was_delivered_is_recalled_like_any_other(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="m", deliver_at_ms=self.now_ms + 100))
        await store.fire_due(self.now_ms + 100, 10)
        assert await store.recall("m", "notice", self.now_ms + 100) is not None
        assert await self.readable(store) == ["notice"]

    async def test_what_is_unknown_or_trimmed_or_a_notice_cannot_be_recalled(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await self.fill(store, 3)
        await store.recall("m3", "notice", self.now_ms)
        for message_id in ("other", "m1", "notice"):
            await self.refused(store.recall(message_id, "another", self.now_ms), Code.UNKNOWN_RECIPIENT)
        assert (await store.head("news")).top_offset == 4

    async def test_what_expired_or_was_superseded_is_recalled_with_a_notice_for_those_who_have_it(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="expired", ttl_ms=10))
        await store.append(self.draft(message_id="superseded", collapse_key="k"))
        await store.append(self.draft(message_id="newer", collapse_key="k"))
        self.now_ms += 10
        assert await store.recall("expired", "n1", self.now_ms) is not None
        assert await store.recall("superseded", "n2", self.now_ms) is not None
        assert await self.readable(store) == ["newer", "n1", "n2"]

    async def test_a_recall_does_not_bring_back_what_was_superseded(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(message_id="superseded", collapse_key="k"))
        await store.append(self.draft(message_id="newer", collapse_key="k"))
        await store.recall("newer", "notice", self.now_ms)
        assert await self.readable(store) == ["notice"]

    async def test_a_recall_frees_the_payload(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await store.append(self.draft("a", b"x" * 1500, message_id="m"))
        await store.recall("m", "notice", self.now_ms)
        assert (await store.append(self.draft("b", b"x" * 1500))).offset == 1

    async def test_a_notice_counts_in_the_history_of_its_channel(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await self.fill(store, 2)
        await store.recall("m2", "notice", self.now_ms)
        head = await store.head("news")
        assert (head.floor_offset, head.floor_id, head.top_offset) == (1, "m1", 3)

    async def test_a_message_to_a_device_that_was_forgotten_can_be_recalled(self) -> None:
        store, _ = await self.with_device(1)
        await store.forget_device("d")
        assert await store.recall("m1", "notice", self.now_ms) is not None
