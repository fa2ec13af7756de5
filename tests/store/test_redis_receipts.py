"""What the store in Redis does beside the contract with what devices reach: bounded steps, several nodes, any name and number."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from streampush.config import StoreConfig
from streampush.protocol.terms import Milestone
from streampush.push.ids import clearing_id
from streampush.push.store_ports import Store
from streampush.push.values import Cursor, CursorMove, DeviceRecord, Mark, PushOutcome, PushRecord, PushResult, Undeliverable
from streampush.store.memory.log import MAX_RECEIPT_ROWS
from streampush.store.redis import Scripts
from streampush.store.redis.recording import AT_ONCE
from streampush.store.redis.scripts import RedisLike
from streampush.store.redis.store import RedisStore
from tests.redis_server import shared_server
from tests.store.contract_base import LIMITS, ContractBase
from tests.store.redis_world import RedisTestCase, soon

WRITTEN, DELIVERED, PROCESSED, DEAD = Milestone.WRITTEN, Milestone.DELIVERED, Milestone.PROCESSED, Milestone.DEAD_LETTERED
LARGEST = 2**53 - 1
ODD = "ä €:{x} /\U0001f4a5*?[]'\"%"


class Counting:
    """Counts the commands that go to Redis."""

    def __init__(self, redis: RedisLike) -> None:
        self._redis = redis
        self.commands = 0

    def command(self, *parts: bytes | str | int) -> Awaitable[Any]:
        self.commands += 1
        return self._redis.command(*parts)


class RedisReceiptTests(RedisTestCase, ContractBase):
    """`self.counting` counts what the store of `device_with` asks of Redis."""

    async def device_with(self, count: int, channel: str = "device:d", limits: StoreConfig = LIMITS, **fields: Any) -> Store:
        """A store that knows the device d, with messages m1, m2 … in a channel."""
        self.prefix = self.new_prefix()
        self.counting = Counting(self.link)
        store = RedisStore(Scripts(self.counting, self.prefix), limits, lambda: self.now_ms, lambda: "epoch", soon)
        await store.remember_device(DeviceRecord("d", "u"))
        for number in range(1, count + 1):
            await store.append(self.draft(channel, message_id=f"m{number}", **fields))
        self.counting.commands = 0
        return store

    # ------------------------------------------------------------------------------------------------------- in bounded steps

    async def test_a_move_over_many_messages_is_done_in_several_steps_with_all_receipts(self) -> None:
        store = await self.device_with(900)
        await store.record([CursorMove("d", "device:d", "epoch", 900, 870, 3, 5)])
        assert self.counting.commands >= 1 + 2 * 870 // 500
        rows = [await self.row(store, f"m{number}") for number in range(1, 901)]
        assert rows == [{DELIVERED: 5, PROCESSED: 5}] * 870 + [{DELIVERED: 5}] * 30
        assert await self.cursor(store, "d", "device:d") == Cursor("epoch", 900, 870, 3)

    async def test_a_usual_call_is_one_step(self) -> None:
        store = await self.device_with(10)
        moves = [CursorMove("d", "device:d", "epoch", offset, offset - 1, 0, 5) for offset in range(1, 11)]
        await store.record(moves, [Mark("d", "device:d", "epoch", 1, 10, WRITTEN, 4)])
        assert self.counting.commands == 1

    async def test_a_mark_over_many_messages_of_a_topic_counts_each_once(self) -> None:
        store = await self.device_with(700, "news", want_receipt=True)
        await store.record(
            [], [Mark("", "news", "epoch", 1, 700, WRITTEN, 5, 3), Mark("", "news", "epoch", 600, 650, WRITTEN, 5, 1)]
        )
        assert self.counting.commands > 1
        for number, expected in ((1, 3), (499, 3), (500, 3), (501, 3), (600, 4), (650, 4), (651, 3), (700, 3)):
            assert (await self.record_of(store, f"m{number}")).counts == {WRITTEN: expected}

    async def test_many_devices_on_a_topic_are_counted_once_each_over_all_steps(self) -> None:
        store = await self.device_with(3, "news", want_receipt=True)
        moves = [CursorMove(f"d{number}", "news", "epoch", 3, 2, 0, 5) for number in range(5 * AT_ONCE)]
        await store.record(moves)
        assert self.counting.commands > 2
        counts = [dict((await self.record_of(store, f"m{number}")).counts) for number in (1, 2, 3)]
        assert counts == [{DELIVERED: 1000, PROCESSED: 1000}] * 2 + [{DELIVERED: 1000}]
        assert await self.cursor(store, "d999", "news") == Cursor("epoch", 3, 2)

    async def test_what_was_dead_lettered_in_an_earlier_step_of_the_call_is_not_counted_as_delivered(self) -> None:
        store = await self.device_with(600, "news", want_receipt=True)
        failed = [Undeliverable("d", "news", "epoch", offset, 9, "poison", 4) for offset in range(1, 541)]
        await store.record([CursorMove("d", "news", "epoch", 600, 600, 0, 5)], [], failed)
        for number, expected in ((1, {DEAD: 1}), (540, {DEAD: 1}), (541, {DELIVERED: 1, PROCESSED: 1})):
            assert (await self.record_of(store, f"m{number}")).counts == expected
        assert (await store.status()).dead_letters == 540

    async def test_between_two_steps_a_cursor_is_on_its_way_and_has_no_attempts_for_what_is_behind_it(self) -> None:
        store = await self.device_with(600)
        other = self.same_store(LIMITS, self.prefix)
        answers = [
            Deferred.fromCoroutine(work)
            for work in (store.record([CursorMove("d", "device:d", "epoch", 600, 0, 7, 5)]), self.cursor(other, "d", "device:d"))
        ]  # the question is sent right behind the first step
        between = await answers[1]
        assert between is not None
        assert 0 < between.offset < 600
        assert between == Cursor("epoch", between.offset)
        await answers[0]
        assert await self.cursor(store, "d", "device:d") == Cursor("epoch", 600, 0, 7)

    async def test_a_cursor_that_is_forgotten_between_two_steps_stays_so(self) -> None:
        store = await self.device_with(600, "news", want_receipt=True)
        other = self.same_store(LIMITS, self.prefix)
        answers = [
            Deferred.fromCoroutine(work)
            for work in (store.record([CursorMove("d", "news", "epoch", 600, 0, 0, 5)]), other.forget_cursor("d", "news"))
        ]
        for answer in answers:
            await answer
        assert await self.cursor(store, "d", "news") is None
        assert (await self.record_of(store, "m1")).counts == {DELIVERED: 1}

    async def test_hundreds_of_cleared_messages_are_recalled_with_a_notice_each(self) -> None:
        store = await self.device_with(150, clear_on_processed=True)
        notices = await store.record([CursorMove("d", "device:d", "epoch", 150, 150, 0, 5)])
        assert [notice.publication.recalls for notice in notices] == [f"m{number}" for number in range(1, 151)]
        assert {notice.publication.message_id for notice in notices} == {clearing_id(f"m{number}") for number in range(1, 151)}
        assert [notice.publication.offset for notice in notices] == list(range(151, 301))
        assert {notice.publication.published_at_ms for notice in notices} == {5}
        assert await self.readable(store, "device:d") == [clearing_id(f"m{number}") for number in range(1, 151)]

    async def test_a_message_of_a_user_is_recalled_once_though_two_devices_processed_it_in_one_call(self) -> None:
        store = await self.device_with(1, "user:u", clear_on_processed=True)
        moves = [CursorMove(name, "user:u", "epoch", 1, 1, 0, at_ms) for name, at_ms in (("d", 0), ("e", 7))]
        (notice,) = await store.record(moves)
        assert (notice.publication.recalls, notice.publication.published_at_ms) == ("m1", self.now_ms)
        assert await store.record(moves) == []

    async def test_a_message_that_was_recalled_is_not_recalled_again_by_a_device_that_has_it(self) -> None:
        store = await self.device_with(1, "user:u", clear_on_processed=True)
        await store.record([CursorMove(name, "user:u", "epoch", 1, 0, 0, 5) for name in "de"])
        assert len(await store.record([CursorMove("d", "user:u", "epoch", 1, 1, 0, 6)])) == 1
        assert await store.record([CursorMove("e", "user:u", "epoch", 1, 1, 0, 7)]) == []
        assert await self.row(store, "m1", "e") == {DELIVERED: 5, PROCESSED: 7}

    async def test_on_a_topic_what_was_passed_over_is_not_counted(self) -> None:
        store = await self.device_with(3, "news", want_receipt=True)
        await store.record([CursorMove("d", "news", "epoch", 3, 3, 0, 5, 2)])
        assert [(await self.record_of(store, f"m{number}")).counts for number in (1, 2)] == [{}, {}]
        assert (await self.record_of(store, "m3")).counts == {DELIVERED: 1, PROCESSED: 1}

    async def test_a_move_back_keeps_the_cursor_from_being_the_one_not_moved_for_longest(self) -> None:
        store = await self.device_with(0)
        narrow = RedisStore(Scripts(self.link, self.prefix), LIMITS, lambda: self.now_ms, lambda: "epoch", soon, max_cursors=2)
        for channel, offset in (("a", 5), ("b", 5), ("a", 4), ("c", 1)):
            await narrow.record([CursorMove("d", channel, "epoch", offset)])
        assert await store.cursors("d") == {"a": Cursor("epoch", 5), "c": Cursor("epoch", 1)}

    async def test_of_one_message_a_bounded_number_of_devices_has_a_row(self) -> None:
        store = await self.device_with(1, "user:u")
        await store.record([CursorMove(f"d{number:05}", "user:u", "epoch", 1, 1, 0, 5) for number in range(MAX_RECEIPT_ROWS + 1)])
        await store.record_pushes([PushRecord("m1", "late", PushResult(1, PushOutcome.DELIVERED, "", "A"))])
        record = await store.message("m1", 20_000)
        assert record is not None
        assert len(record.devices) == MAX_RECEIPT_ROWS
        assert record.devices[-1].device_id == "d09999"
        assert await store.push_of("A") is None
        await store.record_pushes([PushRecord("m1", "d00007", PushResult(1, PushOutcome.DELIVERED, "", "B"))])
        assert await store.push_of("B") is not None  # it has a row

    async def test_letters_above_a_limit_that_was_lowered_go(self) -> None:
        store = await self.device_with(20)
        await store.record([], [], [Undeliverable("d", "device:d", "epoch", offset, 1, "", offset) for offset in range(1, 20)])
        strict = RedisStore(Scripts(self.link, self.prefix), LIMITS, lambda: self.now_ms, lambda: "epoch", soon, max_dead_letters=5)
        await strict.record([], [], [Undeliverable("d", "device:d", "epoch", 20, 1, "", 20)])
        letters = await store.dead_letters("d", 0, 100)
        assert [letter.publication.message_id for letter in letters] == ["m20", "m19", "m18", "m17", "m16"]

    async def test_of_letters_of_one_moment_the_first_go_first(self) -> None:
        await self.device_with(3)
        strict = RedisStore(Scripts(self.link, self.prefix), LIMITS, lambda: self.now_ms, lambda: "epoch", soon, max_dead_letters=2)
        await strict.record([], [], [Undeliverable("d", "device:d", "epoch", offset, 1, "", 5) for offset in (3, 1, 2)])
        assert [letter.publication.message_id for letter in await strict.dead_letters("d", 0, 9)] == ["m1", "m2"]

    # ------------------------------------------------------------------------------------------------------------------- pushes

    async def test_an_id_that_two_devices_had_is_that_of_the_last_one(self) -> None:
        store = await self.device_with(1, "user:u")
        for device_id, apns_id in (("d", "A"), ("e", "A"), ("d", "B")):
            await store.record_pushes([PushRecord("m1", device_id, PushResult(1, PushOutcome.DELIVERED, "", apns_id))])
        found = await store.push_of("A")
        assert found is not None
        assert found.device_id == "e"

    async def test_nobody_is_reached_with_what_waits_for_its_time(self) -> None:
        store = await self.device_with(0)
        await store.append(self.draft("user:u", message_id="m", deliver_at_ms=self.now_ms + 9))
        assert await store.reach_with([("m", ["d"])], results=True) == [None]
        assert await store.reach_users(["m"], 5, results=True) == [None]

    # -------------------------------------------------------------------------------------------------------------- what is left

    async def test_nothing_is_left_of_a_message_that_has_left_the_log(self) -> None:
        store = await self.device_with(1, limits=replace(LIMITS, history_messages=1))
        await store.append(self.draft("news", message_id="n1", want_receipt=True))
        await store.record([CursorMove("d", name, "epoch", 1, 1, 0, 5) for name in ("device:d", "news")])
        await store.record_pushes([PushRecord(one, "d", PushResult(1, PushOutcome.DELIVERED, "", "A")) for one in ("m1", "n1")])
        kept = {"rcp:m1", "cnt:n1", "apns"}
        prefix = f"{{{self.prefix}}}:"
        assert kept <= await self.keys_left(prefix)
        for channel in ("device:d", "news"):
            await store.append(self.draft(channel))
        assert not kept & await self.keys_left(prefix)

    async def test_nothing_is_left_of_letters_that_were_dropped_or_whose_device_was_forgotten(self) -> None:
        for dropped in (True, False):
            store = await self.device_with(2, payload=b"x" * 100)
            held = (await store.status()).bytes
            await store.record([], [], [Undeliverable("d", "device:d", "epoch", offset, 1, "", 5) for offset in (1, 2, 2)])
            assert (await store.status()).bytes == 2 * held
            if dropped:
                assert await store.drop_dead_letter("d", "m1")
                assert await store.drop_dead_letter("d", "m2")
            else:
                assert await store.forget_device("d")
            status = await store.status()
            assert (status.dead_letters, status.bytes) == (0, held)
            assert not {"letters:d", "letter:d", "letterpay:d", "letterbytes"} & await self.keys_left(f"{{{self.prefix}}}:")

    async def test_letters_without_weight_are_counted_and_go(self) -> None:
        store = await self.device_with(0)
        empty = replace(self.draft("device:d", b"", message_id="m"), headers={}, content_type="")
        await store.append(empty)
        await store.record([], [], [Undeliverable("d", "device:d", "epoch", 1, 1, "", 5)] * 2)
        assert (await store.status()).dead_letters == 1
        assert await store.drop_dead_letter("d", "m")
        await store.record([], [], [Undeliverable("d", "device:d", "epoch", 1, 1, "", 5)])
        assert await store.forget_device("d")
        assert (await store.status()).dead_letters == 0

    async def test_letters_of_one_moment_are_told_in_the_order_of_their_making(self) -> None:
        store = await self.device_with(4)
        await store.record([], [], [Undeliverable("d", "device:d", "epoch", offset, 1, "", 5) for offset in (3, 1, 4, 2)])
        letters = await store.dead_letters("d", 0, 3)
        assert [letter.publication.message_id for letter in letters] == ["m3", "m1", "m4"]

    # --------------------------------------------------------------------------------------------------- nodes, names and numbers

    async def test_what_one_node_records_another_one_tells(self) -> None:
        one = await self.device_with(3)
        other = self.same_store(LIMITS, self.prefix)
        await one.record([CursorMove("d", "device:d", "epoch", 2, 1, 0, 5)])
        await other.record([CursorMove("d", "device:d", "epoch", 1, 1, 0, 6)])  # back: it came later, and is older
        await other.record([CursorMove("d", "device:d", "epoch", 3, 3, 0, 7)])
        for store in (one, other):
            assert [await self.row(store, f"m{number}") for number in (1, 2, 3)] == [
                {DELIVERED: 5, PROCESSED: 5},
                {DELIVERED: 5, PROCESSED: 7},
                {DELIVERED: 7, PROCESSED: 7},
            ]

    async def test_after_a_failover_a_cursor_counts_on_and_what_is_said_of_the_lost_past_is_not_heard(self) -> None:
        store = await self.device_with(3)
        await store.record([CursorMove("d", "device:d", "epoch", 2, 2, 0, 5)])
        await self.link.command("HSET", f"{{{self.prefix}}}:totals", "epoch", "later")
        await self.link.command("ZADD", f"{{{self.prefix}}}:epochs", 1, "epoch")
        late = Mark("d", "device:d", "epoch", 3, 3, WRITTEN, 6), Undeliverable("d", "device:d", "epoch", 3, 9, "", 6)
        await store.record([CursorMove("d", "device:d", "epoch", 3, 3, 0, 6)], [late[0]], [late[1]])
        assert await self.cursor(store, "d", "device:d") == Cursor("later", 2, 2)
        await store.record([CursorMove("d", "device:d", "later", 3, 2, 0, 7)])
        rows = [await self.row(store, f"m{number}") for number in (1, 2, 3)]
        assert rows == [{DELIVERED: 5, PROCESSED: 5}] * 2 + [{DELIVERED: 7}]

    async def another_node(self) -> RedisStore:
        """The same store over a connection of its own."""
        link = self.make_link(shared_server().url)
        await link.command("PING")
        return RedisStore(Scripts(link, self.prefix), LIMITS, lambda: self.now_ms, lambda: "epoch", soon)

    async def test_two_nodes_that_clear_messages_at_once_recall_each_once(self) -> None:
        nodes = [await self.device_with(40, "user:u", clear_on_processed=True), await self.another_node()]
        at_once = [
            Deferred.fromCoroutine(nodes[offset % 2].record([CursorMove(f"d{offset}", "user:u", "epoch", offset, offset, 0, 5)]))
            for offset in range(1, 41)
        ]
        notices = [notice.publication for work in at_once for notice in await work]
        assert sorted(notice.offset for notice in notices) == list(range(41, 81))
        assert {notice.recalls for notice in notices} == {f"m{number}" for number in range(1, 41)}

    async def test_two_nodes_that_count_at_once_lose_no_count(self) -> None:
        nodes = [await self.device_with(2, "news", want_receipt=True), await self.another_node()]
        at_once = [
            Deferred.fromCoroutine(
                nodes[number % 2].record(
                    [CursorMove(f"d{number}", "news", "epoch", 2, 1, 0, 5)], [Mark("", "news", "epoch", 1, 2, WRITTEN, 5, 2)]
                )
            )
            for number in range(30)
        ]
        at_once += [
            Deferred.fromCoroutine(node.record_pushes([PushRecord("m2", "", PushResult(1, PushOutcome.REJECTED), count=4)] * 3))
            for node in nodes
        ]
        for work in at_once:
            await work
        record = await self.record_of(nodes[0], "m2")
        assert (record.counts, record.push_counts) == ({WRITTEN: 60, DELIVERED: 30}, {PushOutcome.REJECTED: 24})
        assert (await self.record_of(nodes[1], "m1")).counts == {WRITTEN: 60, DELIVERED: 30, PROCESSED: 30}

    async def test_names_and_texts_of_any_kind_come_back_as_they_were(self) -> None:
        store = await self.device_with(0)
        payload = bytes(range(256)) * 3
        await store.remember_device(DeviceRecord(ODD, ODD))
        for channel in (f"device:{ODD}", f"user:{ODD}"):
            message_id = f"{channel} {ODD}"
            await store.append(self.draft(channel, payload, message_id=message_id, clear_on_processed=True, publisher=ODD))
            await store.record(
                [], [Mark(ODD, channel, "epoch", 1, 1, WRITTEN, 3)], [Undeliverable(ODD, channel, "epoch", 1, 9, ODD, 4)]
            )
            result = PushResult(1, PushOutcome.REJECTED, ODD, f"{ODD} {channel}")
            await store.record_pushes([PushRecord(message_id, ODD, result)])
            assert await store.push_of(f"{ODD} {channel}") == PushRecord(message_id, ODD, result)
            assert await self.row(store, message_id, ODD) == {WRITTEN: 3, DEAD: 4}
            letter = await store.dead_letter(ODD, message_id)
            assert letter is not None
            assert (letter.publication.payload, letter.reason, letter.device_id) == (payload, ODD, ODD)
            (found,) = await store.reach_with([(message_id, [ODD])], results=True)
            assert found is not None
            assert (found.record.publisher, found.reaches[0].device_id, found.results) == (ODD, ODD, {ODD: result})
        assert len(await store.dead_letters(ODD, 0, 10)) == 2

    async def test_rows_are_told_in_the_order_of_python_whatever_the_locale_of_redis(self) -> None:
        store = await self.device_with(1, "user:u")
        names = ["Z", "a", "Ä", "ä", "z", "-", "é", "\U0001f4a5", "\uffee", "10", "9"]
        await store.record([CursorMove(name, "user:u", "epoch", 1, 0, 0, 5) for name in names])
        assert [row.device_id for row in (await self.record_of(store, "m1")).devices] == sorted(names)

    async def test_numbers_at_their_limits_come_back_as_they_were(self) -> None:
        store = await self.device_with(1)
        await store.record([], [Mark("d", "device:d", "epoch", 1, LARGEST, WRITTEN, LARGEST)])
        await store.record([], [], [Undeliverable("d", "device:d", "epoch", 1, 2**31 - 1, "", LARGEST)])
        await store.record([CursorMove("d", "device:d", "epoch", LARGEST, LARGEST, 2**31 - 1, LARGEST)])
        await store.record_pushes([PushRecord("m1", "d", PushResult(LARGEST, PushOutcome.UNKNOWN, "", ""))])
        (receipt,) = (await self.record_of(store, "m1")).devices
        assert (receipt.times, receipt.push and receipt.push.at_ms) == ({WRITTEN: LARGEST, DEAD: LARGEST}, LARGEST)
        assert await self.cursor(store, "d", "device:d") == Cursor("epoch", LARGEST, LARGEST, 2**31 - 1)
        (letter,) = await store.dead_letters("d", 0, 10)
        assert (letter.at_ms, letter.attempts) == (LARGEST, 2**31 - 1)
        assert await store.dead_letters("d", LARGEST, 10) == []
