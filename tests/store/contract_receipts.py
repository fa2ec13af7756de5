"""Part of the contract of a store: receipts, and what became a dead letter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streampush.protocol.terms import Milestone
from streampush.push.store_ports import Store
from streampush.push.values import CursorMove, DeviceRecord, Mark, Undeliverable
from tests.store.contract_base import LIMITS, ContractBase

DELIVERED, PROCESSED, WRITTEN = Milestone.DELIVERED, Milestone.PROCESSED, Milestone.WRITTEN
REJECTED, DEAD_LETTERED = Milestone.REJECTED, Milestone.DEAD_LETTERED

CHANNEL = "device:d"


def move(epoch: str, offset: int, processed: int = 0, at_ms: int = 0, begun: int = 0, **fields: Any) -> CursorMove:
    return CursorMove(fields.get("device_id", "d"), fields.get("channel", CHANNEL), epoch, offset, processed, 0, at_ms, begun)


def mark(epoch: str, first: int, last: int, milestone: Milestone, at_ms: int, channel: str = CHANNEL, count: int = 1) -> Mark:
    return Mark("d" if channel == CHANNEL else "", channel, epoch, first, last, milestone, at_ms, count)


def failed(epoch: str, offset: int, at_ms: int = 1, device_id: str = "d", channel: str = CHANNEL) -> Undeliverable:
    return Undeliverable(device_id, channel, epoch, offset, 10, "poison", at_ms)


class ReceiptContract(ContractBase):
    """record, as far as it concerns messages; dead_letters, dead_letter, drop_dead_letter."""

    async def rows(self, store: Store, *message_ids: str) -> list[dict[Milestone, int]]:
        return [await self.row(store, message_id) for message_id in message_ids]

    # --------------------------------------------------------------------------------------------- to devices and users

    async def test_a_message_that_nobody_has_seen_has_no_rows(self) -> None:
        store, _ = await self.with_device(1)
        record = await self.record_of(store, "m1")
        assert (record.devices, dict(record.counts)) == ((), {})

    async def test_what_a_cursor_passes_is_delivered(self) -> None:
        store, epoch = await self.with_device(4)
        await store.record([move(epoch, 1, at_ms=11)])
        await store.record([move(epoch, 3, at_ms=13)])
        assert await self.rows(store, "m1", "m2", "m3", "m4") == [{DELIVERED: 11}, {DELIVERED: 13}, {DELIVERED: 13}, {}]

    async def test_what_the_processed_offset_passes_is_processed(self) -> None:
        store, epoch = await self.with_device(3)
        await store.record([move(epoch, 2, at_ms=11)])
        await store.record([move(epoch, 3, 1, at_ms=12)])
        await store.record([move(epoch, 3, 3, at_ms=13)])
        assert await self.rows(store, "m1", "m2", "m3") == [
            {DELIVERED: 11, PROCESSED: 12},
            {DELIVERED: 11, PROCESSED: 13},
            {DELIVERED: 12, PROCESSED: 13},
        ]

    async def test_delivered_and_processed_may_come_in_one_move(self) -> None:
        store, epoch = await self.with_device(2)
        await store.record([move(epoch, 2, 2, at_ms=5)])
        assert await self.rows(store, "m1", "m2") == [{DELIVERED: 5, PROCESSED: 5}] * 2

    async def test_the_moves_of_a_batch_are_done_one_after_the_other(self) -> None:
        store, epoch = await self.with_device(3)
        await store.record([move(epoch, 1, at_ms=1), move(epoch, 3, at_ms=3, begun=2)])
        assert await self.rows(store, "m1", "m2", "m3") == [{DELIVERED: 1}, {}, {DELIVERED: 3}]

    async def test_where_delivery_begins_nothing_was_delivered(self) -> None:
        store, epoch = await self.with_device(4)
        await store.record([move(epoch, 2, 2, at_ms=1, begun=2)])
        await store.record([move(epoch, 4, 3, at_ms=2, begun=2)])
        assert await self.rows(store, "m1", "m2", "m3", "m4") == [{}, {}, {DELIVERED: 2, PROCESSED: 2}, {DELIVERED: 2}]

    async def test_the_first_time_stands(self) -> None:
        store, epoch = await self.with_device(1)
        await store.record([], [mark(epoch, 1, 1, WRITTEN, 10)])
        await store.record([], [mark(epoch, 1, 1, WRITTEN, 5)])
        await store.record([move(epoch, 1, at_ms=20)])
        await store.record([replace(move("other", 0), at_ms=21)])  # the cursor is put back
        await store.record([move(epoch, 1, at_ms=22)])
        assert await self.row(store, "m1") == {WRITTEN: 10, DELIVERED: 20}

    async def test_marks_are_made_of_every_message_of_the_range_that_is_there(self) -> None:
        store, epoch = await self.with_device(3)
        await store.record([], [mark(epoch, 2, 9, WRITTEN, 7)])
        assert await self.rows(store, "m1", "m2", "m3") == [{}, {WRITTEN: 7}, {WRITTEN: 7}]

    async def test_a_user_message_has_a_row_for_each_device_in_order_and_some_may_be_asked_for(self) -> None:
        store = self.make_store(LIMITS)
        for device_id in ("c", "a", "b"):
            await store.remember_device(DeviceRecord(device_id, "u"))
        epoch = (await store.append(self.draft("user:u", message_id="m"))).epoch
        await store.record([move(epoch, 1, at_ms=at, device_id=name, channel="user:u") for at, name in ((3, "c"), (1, "a"))])
        await store.record([], [Mark("b", "user:u", epoch, 1, 1, REJECTED, 2)])
        rows = [(row.device_id, dict(row.times)) for row in (await self.record_of(store, "m")).devices]
        assert rows == [("a", {DELIVERED: 1}), ("b", {REJECTED: 2}), ("c", {DELIVERED: 3})]
        some = await store.message("m", 2)
        assert some is not None
        assert [row.device_id for row in some.devices] == ["a", "b"]

    async def test_what_was_rejected_is_delivered_and_not_processed(self) -> None:
        store, epoch = await self.with_device(2)
        await store.record([move(epoch, 2, 2, at_ms=2)], [mark(epoch, 1, 1, REJECTED, 1)])
        assert await self.rows(store, "m1", "m2") == [{REJECTED: 1, DELIVERED: 2}, {DELIVERED: 2, PROCESSED: 2}]

    async def test_what_was_dead_lettered_is_neither_delivered_nor_processed(self) -> None:
        store, epoch = await self.with_device(3)
        await store.record([move(epoch, 2, 2, at_ms=2)], [], [failed(epoch, 2, 1)])
        await store.record([], [], [failed(epoch, 3, 3)])
        await store.record([move(epoch, 3, 3, at_ms=4)])
        assert await self.rows(store, "m1", "m2", "m3") == [{DELIVERED: 2, PROCESSED: 2}, {DEAD_LETTERED: 1}, {DEAD_LETTERED: 3}]

    async def test_what_may_no_longer_be_read_is_delivered_only_if_it_was_written(self) -> None:
        store, _ = await self.with_device()
        for pair in ("written", "not"):
            await store.append(self.draft("device:d", ttl_ms=10, message_id=f"expired {pair}"))
            await store.append(self.draft("device:d", collapse_key=pair, message_id=f"superseded {pair}"))
            await store.append(self.draft("device:d", collapse_key=pair, message_id=f"newer {pair}"))
            await store.append(self.draft("device:d", message_id=f"recalled {pair}"))
        epoch = (await store.head("device:d")).epoch
        await store.record([], [mark(epoch, 1, 4, WRITTEN, 1)])
        for pair in ("written", "not"):
            await store.recall(f"recalled {pair}", f"notice {pair}", self.now_ms)
        self.now_ms += 10
        await store.record([move(epoch, 8, 8, at_ms=2)])
        done = {WRITTEN: 1, DELIVERED: 2, PROCESSED: 2}
        names = ("expired", "superseded", "newer", "recalled")
        assert await self.rows(store, *(f"{name} written" for name in names)) == [done] * 4
        assert await self.rows(store, *(f"{name} not" for name in names)) == [{}, {}, {DELIVERED: 2, PROCESSED: 2}, {}]

    async def test_a_recall_notice_has_receipts_too(self) -> None:
        store, _ = await self.with_device(1)
        notice = await store.recall("m1", "notice", self.now_ms)
        assert notice is not None
        await store.record([move(notice.epoch, 2, at_ms=2)])
        assert await self.rows(store, "m1", "notice") == [{}, {DELIVERED: 2}]

    async def test_what_names_another_epoch_changes_no_receipt(self) -> None:
        store, _ = await self.with_device(1)
        await store.record([move("other", 1, 1, at_ms=1)], [mark("other", 1, 1, WRITTEN, 1)], [failed("other", 1)])
        assert await self.row(store, "m1") == {}
        assert await self.letters(store) == []

    async def test_a_move_that_is_ignored_makes_no_receipts(self) -> None:
        store, epoch = await self.with_device(3)
        await store.record([move(epoch, 3, at_ms=1, begun=3)])
        await store.record([move(epoch, 2, 2, at_ms=2)])
        assert await self.rows(store, "m1", "m2", "m3") == [{}, {}, {}]

    async def test_receipts_go_with_their_message(self) -> None:
        store, epoch = await self.with_device(1, replace(LIMITS, history_messages=1))
        await store.record([move(epoch, 1, at_ms=1)])
        await store.append(self.draft("device:d", message_id="m2"))
        assert await store.message("m1", 10) is None
        await store.record([move(epoch, 2, at_ms=2)], [mark(epoch, 1, 2, WRITTEN, 2)], [failed(epoch, 1)])
        assert await self.row(store, "m2") == {WRITTEN: 2, DELIVERED: 2}

    async def test_marks_of_a_channel_that_is_not_there_are_ignored(self) -> None:
        store = self.make_store(LIMITS)
        marks = [mark("e", 1, 2, WRITTEN, 1, "news"), mark("e", 1, 2, WRITTEN, 1)]
        await store.record([move("e", 3, 3, channel="news")], marks, [failed("e", 1)])
        assert await store.peek("news") is None
        assert await store.peek(CHANNEL) is None

    # -------------------------------------------------------------------------------------------------------- to topics

    async def topic(self, store: Store, *ids: str, **fields: Any) -> str:
        for message_id in ids:
            await store.append(self.draft(message_id=message_id, want_receipt=True, **fields))
        return (await store.head("news")).epoch

    async def counts(self, store: Store, message_id: str) -> dict[Milestone, int]:
        record = await self.record_of(store, message_id)
        assert record.devices == ()
        return dict(record.counts)

    async def test_on_a_topic_devices_are_counted(self) -> None:
        store = self.make_store(LIMITS)
        epoch = await self.topic(store, "m1", "m2")
        await store.record([], [mark(epoch, 1, 2, WRITTEN, 1, "news", 3), mark(epoch, 2, 2, WRITTEN, 1, "news", 2)])
        for name, offset, processed in (("a", 1, 0), ("b", 2, 2), ("a", 2, 1), ("a", 2, 1)):
            await store.record([move(epoch, offset, processed, device_id=name, channel="news")])
        await store.record([], [mark(epoch, 2, 2, REJECTED, 1, "news")])
        assert await self.counts(store, "m1") == {WRITTEN: 3, DELIVERED: 2, PROCESSED: 2}
        assert await self.counts(store, "m2") == {WRITTEN: 5, DELIVERED: 2, PROCESSED: 1, REJECTED: 1}

    async def test_a_topic_message_without_wish_for_a_receipt_has_none(self) -> None:
        store = self.make_store(LIMITS)
        epoch = await self.fill(store, 2)
        await self.topic(store, "wanted")
        await store.record([move(epoch, 3, 3, channel="news")], [mark(epoch, 1, 3, WRITTEN, 1, "news", 3)], [])
        assert await self.counts(store, "m1") == {}
        assert await self.counts(store, "wanted") == {WRITTEN: 3, DELIVERED: 1, PROCESSED: 1}

    async def test_on_a_topic_what_may_no_longer_be_read_is_not_counted(self) -> None:
        store = self.make_store(LIMITS)
        await self.topic(store, "expired", ttl_ms=10)
        await self.topic(store, "superseded", "newer", collapse_key="k")
        epoch = await self.topic(store, "recalled")
        await store.recall("recalled", "notice", self.now_ms)
        self.now_ms += 10
        await store.record([move(epoch, 4, 4, channel="news")])
        assert [await self.counts(store, name) for name in ("expired", "superseded", "recalled")] == [{}, {}, {}]
        assert await self.counts(store, "newer") == {DELIVERED: 1, PROCESSED: 1}

    async def test_on_a_topic_a_dead_letter_is_counted_and_not_delivered(self) -> None:
        store = self.make_store(LIMITS)
        epoch = await self.topic(store, "m1", "m2")
        await store.record([move(epoch, 2, 2, channel="news")], [], [failed(epoch, 1, channel="news")])
        assert await self.counts(store, "m1") == {DEAD_LETTERED: 1}
        assert await self.counts(store, "m2") == {DELIVERED: 1, PROCESSED: 1}

    # ----------------------------------------------------------------------------------------------------- dead letters

    async def letters(self, store: Store, device_id: str = "d", before_ms: int = 0, limit: int = 100) -> list[str]:
        return [letter.publication.message_id for letter in await store.dead_letters(device_id, before_ms, limit)]

    async def test_what_could_not_be_delivered_is_a_dead_letter_with_a_copy(self) -> None:
        store, epoch = await self.with_device(2, payload=b"\x00poison")
        (_, publication) = (await store.read(CHANNEL, 0, 10, 1000)).publications
        await store.record([], [], [failed(epoch, 2, 77)])
        (letter,) = await store.dead_letters("d", 0, 10)
        assert letter == await store.dead_letter("d", "m2")
        assert (letter.device_id, letter.attempts, letter.reason, letter.at_ms) == ("d", 10, "poison", 77)
        assert (letter.publication, letter.publication.payload) == (publication, b"\x00poison")
        assert (await store.status()).dead_letters == 1

    async def test_a_dead_letter_outlives_its_message_in_the_log(self) -> None:
        store, epoch = await self.with_device(1, replace(LIMITS, history_messages=1))
        await store.record([], [], [failed(epoch, 1)])
        await store.append(self.draft(CHANNEL))
        letter = await store.dead_letter("d", "m1")
        assert letter is not None
        assert letter.publication.payload == b"payload"

    async def test_what_may_not_be_read_becomes_no_dead_letter(self) -> None:
        store, _ = await self.with_device()
        for fields in ({"ttl_ms": 10}, {"collapse_key": "k"}, {"collapse_key": "k"}, {"message_id": "gone"}):
            await store.append(self.draft(CHANNEL, **fields))
        await store.recall("gone", "notice", self.now_ms)
        self.now_ms += 10
        epoch = (await store.head(CHANNEL)).epoch
        await store.record([], [], [failed(epoch, offset) for offset in (0, 1, 2, 4, 9)])
        assert await self.letters(store) == []
        assert await self.row(store, "gone") == {}

    async def test_dead_letters_are_listed_the_newest_first_and_in_pages(self) -> None:
        store, epoch = await self.with_device(4)
        for offset, at_ms in ((1, 10), (3, 30), (2, 20), (4, 40)):
            await store.record([], [], [failed(epoch, offset, at_ms)])
        assert await self.letters(store) == ["m4", "m3", "m2", "m1"]
        assert await self.letters(store, limit=2) == ["m4", "m3"]
        assert await self.letters(store, before_ms=30) == ["m2", "m1"]
        assert await self.letters(store, before_ms=30, limit=1) == ["m2"]

    async def test_a_dead_letter_is_one_devices_own(self) -> None:
        store = self.make_store(LIMITS)
        epoch = await self.fill(store, 1)
        await store.record([], [], [failed(epoch, 1, device_id=name, channel="news") for name in ("a", "b")])
        assert await store.drop_dead_letter("a", "m1")
        assert (await self.letters(store, "a"), await self.letters(store, "b")) == ([], ["m1"])
        assert await store.dead_letter("a", "m1") is None

    async def test_a_dead_letter_can_be_dropped_once(self) -> None:
        store, epoch = await self.with_device(2)
        await store.record([], [], [failed(epoch, 1), failed(epoch, 2)])
        assert await store.drop_dead_letter("d", "m1")
        assert not await store.drop_dead_letter("d", "m1")
        assert not await store.drop_dead_letter("nobody", "m1")
        assert await self.letters(store) == ["m2"]
        assert (await store.status()).dead_letters == 1

    async def test_the_same_message_is_one_dead_letter_the_latest(self) -> None:
        store, epoch = await self.with_device(1)
        await store.record([], [], [failed(epoch, 1, 10)])
        await store.record([], [], [replace(failed(epoch, 1, 20), reason="again")])
        (letter,) = await store.dead_letters("d", 0, 10)
        assert (letter.reason, letter.at_ms) == ("again", 20)
        assert await self.row(store, "m1") == {DEAD_LETTERED: 10}
        assert (await store.status()).dead_letters == 1

    async def test_of_each_device_the_newest_thousand_dead_letters_are_kept(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2000))
        await store.remember_device(DeviceRecord("d", "u"))
        epoch = ""
        for number in range(1, 1004):
            epoch = (await store.append(self.draft(CHANNEL, b"", message_id=f"m{number}"))).epoch
        await store.record([], [], [failed(epoch, offset, offset) for offset in range(1, 1004)])
        assert (await self.letters(store, limit=2000))[-2:] == ["m5", "m4"]
        assert (await store.status()).dead_letters == 1000
