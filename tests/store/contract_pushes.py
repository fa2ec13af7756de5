"""Part of the contract of a store: how pushes to devices that are away ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streampush.protocol.terms import Milestone
from streampush.push.store_ports import Store
from streampush.push.values import (
    Cursor,
    CursorMove,
    DeviceReceipt,
    DeviceRecord,
    PushOutcome,
    PushRecord,
    PushResult,
    PushToken,
    Reach,
    Session,
)
from tests.store.contract_base import LIMITS, ContractBase

DELIVERED, REJECTED, CANCELLED = PushOutcome.DELIVERED, PushOutcome.REJECTED, PushOutcome.CANCELLED


def pushed(
    message_id: str = "m1",
    device_id: str = "d",
    at_ms: int = 5,
    outcome: PushOutcome = DELIVERED,
    apns_id: str = "",
    lease: str = "",
) -> PushRecord:
    return PushRecord(message_id, device_id, PushResult(at_ms, outcome, "because", apns_id), lease)


class PushContract(ContractBase):
    """record_pushes, push_of, reach_with, reach_users."""

    async def push(self, store: Store, message_id: str = "m1", device_id: str = "d") -> PushResult | None:
        """How the push of a message to the device ended."""
        rows = {receipt.device_id: receipt.push for receipt in (await self.record_of(store, message_id)).devices}
        return rows.get(device_id)

    async def lease_of(self, store: Store, key: str, now_ms: int = 0) -> str:
        """A lease, of ten milliseconds, of work that is added if it is not there."""
        await store.outbox_add("push", key, b"", 0)
        (entry,) = await store.outbox_lease("push", 1, now_ms, 10)
        return entry.token

    # ---------------------------------------------------------------------------------------------- devices and users

    async def test_how_a_push_ended_is_told_with_the_message_also_of_a_device_that_has_no_milestone(self) -> None:
        store, _ = await self.with_device(2)
        await store.record_pushes([pushed("m1", apns_id="A"), pushed("m2", outcome=REJECTED)])
        assert (await self.record_of(store, "m1")).devices == (DeviceReceipt("d", {}, PushResult(5, DELIVERED, "because", "A")),)
        assert await self.push(store, "m2") == PushResult(5, REJECTED, "because")
        assert (await self.record_of(store, "m1")).push_counts == {}

    async def test_pushes_and_milestones_of_a_device_are_told_together(self) -> None:
        store, epoch = await self.with_device(1)
        await store.record([CursorMove("d", "device:d", epoch, 1, at_ms=9)])
        await store.record_pushes([pushed()])
        assert (await self.record_of(store, "m1")).devices == (
            DeviceReceipt("d", {Milestone.DELIVERED: 9}, PushResult(5, DELIVERED, "because")),
        )
        await store.record([CursorMove("d", "device:d", epoch, 1, 1, at_ms=10)])
        assert await self.row(store, "m1") == {Milestone.DELIVERED: 9, Milestone.PROCESSED: 10}
        assert await self.push(store) == PushResult(5, DELIVERED, "because")

    async def test_each_device_of_a_user_has_its_own(self) -> None:
        store, _ = await self.with_device()
        await store.remember_device(DeviceRecord("c", "u"))
        await store.append(self.draft("user:u", message_id="m1"))
        await store.record_pushes([pushed(device_id="d", outcome=REJECTED), pushed(device_id="c")])
        rows = (await self.record_of(store, "m1")).devices
        assert [(row.device_id, row.push and row.push.outcome) for row in rows] == [("c", DELIVERED), ("d", REJECTED)]
        record = await store.message("m1", 1)
        assert record is not None
        assert [row.device_id for row in record.devices] == ["c"]

    async def test_the_newest_result_stands_and_of_equal_ones_the_last(self) -> None:
        store, _ = await self.with_device(1)
        await store.record_pushes(
            [pushed(at_ms=5, outcome=PushOutcome.UNKNOWN), pushed(at_ms=7), pushed(at_ms=6, outcome=REJECTED)]
        )
        assert await self.push(store) == PushResult(7, DELIVERED, "because")
        await store.record_pushes([pushed(at_ms=7, outcome=CANCELLED)])
        assert await self.push(store) == PushResult(7, CANCELLED, "because")

    async def test_results_of_messages_that_are_not_there_are_dropped(self) -> None:
        store = self.make_store(LIMITS)
        await store.record_pushes([pushed("gone", apns_id="A")])
        await store.record_pushes([])
        assert await store.message("gone", 10) is None
        assert await store.push_of("A") is None

    # --------------------------------------------------------------------------------------------------------- by apns id

    async def test_a_push_is_found_by_its_apns_id(self) -> None:
        store, _ = await self.with_device(2)
        await store.record_pushes([pushed("m1", apns_id="A"), pushed("m2", apns_id="B"), pushed("m2", "e")])
        assert await store.push_of("A") == PushRecord("m1", "d", PushResult(5, DELIVERED, "because", "A"))
        assert await store.push_of("B") == PushRecord("m2", "d", PushResult(5, DELIVERED, "because", "B"))
        assert await store.push_of("C") is None
        assert await store.push_of("") is None

    async def test_a_push_that_was_followed_by_another_one_is_found_by_the_new_id_only(self) -> None:
        store, _ = await self.with_device(1)
        await store.record_pushes([pushed(at_ms=5, apns_id="A")])
        await store.record_pushes([pushed(at_ms=4, apns_id="older")])
        assert await store.push_of("older") is None
        assert await store.push_of("A") is not None
        await store.record_pushes([pushed(at_ms=6, apns_id="B")])
        assert await store.push_of("A") is None
        assert await store.push_of("B") is not None

    async def test_results_go_when_the_log_drops_their_message(self) -> None:
        store, _ = await self.with_device(limits=replace(LIMITS, history_messages=2))
        for channel in ("device:d", "news"):
            for number in range(1, 4):
                message_id = f"{channel}-{number}"
                await store.append(self.draft(channel, message_id=message_id))
                await store.record_pushes([pushed(message_id, apns_id=message_id)])
        assert await store.push_of("device:d-1") is None
        assert await store.push_of("device:d-2") is not None
        assert await store.message("news-1", 10) is None
        assert (await self.record_of(store, "news-3")).push_counts == {DELIVERED: 1}
        await store.append(self.draft("news", message_id="news-1"))  # the id again, and nothing of what was
        assert (await self.record_of(store, "news-1")).push_counts == {}

    # ------------------------------------------------------------------------------------------------------------- topics

    async def test_of_a_topic_results_are_counted_and_nobody_is_named(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 2)
        await store.record_pushes([pushed("m1", f"d{number}", apns_id=f"A{number}") for number in range(5)])
        await store.record_pushes([pushed("m1", outcome=REJECTED), pushed("m1", outcome=CANCELLED), pushed("m1", outcome=REJECTED)])
        record = await self.record_of(store, "m1")
        assert (record.devices, record.counts) == ((), {})
        assert record.push_counts == {DELIVERED: 5, REJECTED: 2, CANCELLED: 1}
        assert (await self.record_of(store, "m2")).push_counts == {}
        assert await store.push_of("A1") is None

    async def test_every_outcome_can_be_told_and_counted(self) -> None:
        store, _ = await self.with_device(1)
        await store.append(self.draft(message_id="topic"))
        for number, outcome in enumerate(PushOutcome):
            await store.record_pushes([pushed("m1", at_ms=number, outcome=outcome), pushed("topic", outcome=outcome)])
            assert await self.push(store) == PushResult(number, outcome, "because")
        assert (await self.record_of(store, "topic")).push_counts == dict.fromkeys(PushOutcome, 1)

    # ------------------------------------------------------------------------------------------------------------- leases

    async def test_work_is_done_in_the_same_step(self) -> None:
        store, _ = await self.with_device(1)
        lease, other = await self.lease_of(store, "a"), await self.lease_of(store, "b")
        await store.record_pushes([pushed(lease=lease), pushed("gone", lease=other)])
        assert await store.outbox_next_ms("push") is None
        assert not await store.outbox_complete(lease)
        assert (await store.status()).outbox == 0
        assert await self.push(store) is not None

    async def test_a_result_under_a_lease_that_has_passed_on_is_told_of_a_device_and_not_counted_of_a_topic(self) -> None:
        store, _ = await self.with_device(1)
        await store.append(self.draft(message_id="topic"))
        for message_id in ("m1", "topic"):
            lost, held = await self.lease_of(store, "a"), await self.lease_of(store, "a", 10)
            await store.record_pushes([pushed(message_id, lease=lost)])
            assert (await store.status()).outbox == 1
            await store.record_pushes([pushed(message_id, outcome=REJECTED, lease=held)])
            assert (await store.status()).outbox == 0
        assert await self.push(store) == PushResult(5, REJECTED, "because")
        assert (await self.record_of(store, "topic")).push_counts == {REJECTED: 1}

    async def test_a_lease_counts_once(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        lease = await self.lease_of(store, "a")
        await store.record_pushes([pushed(lease=lease), pushed(outcome=REJECTED, lease=lease)])
        assert (await self.record_of(store, "m1")).push_counts == {DELIVERED: 1}

    async def test_hundreds_are_recorded_at_once(self) -> None:
        store, _ = await self.with_device(300)
        await store.append(self.draft(message_id="topic"))
        leases = [await self.lease_of(store, f"w{number}") for number in range(300)]
        rows = [pushed(f"m{number + 1}", apns_id=f"A{number}", lease=lease) for number, lease in enumerate(leases)]
        await store.record_pushes([*rows, *(pushed("topic", f"d{number}") for number in range(300))])
        assert (await store.status()).outbox == 0
        assert await store.push_of("A299") == PushRecord("m300", "d", PushResult(5, DELIVERED, "because", "A299"))
        assert (await self.record_of(store, "topic")).push_counts == {DELIVERED: 300}

    # ------------------------------------------------------------------------------------------- whom a push may go to

    async def reached(
        self, store: Store, *asked: tuple[str, Sequence[str]], results: bool = False
    ) -> list[tuple[str, list[str], dict[str, PushOutcome]] | None]:
        """For each message its channel, the devices that it may reach, and how pushes of it ended."""
        found = await store.reach_with(asked, results=results)
        return [
            None
            if one is None
            else (
                one.record.channel,
                [reach.device_id for reach in one.reaches],
                {device_id: result.outcome for device_id, result in one.results.items()},
            )
            for one in found
        ]

    async def test_messages_and_how_devices_may_be_reached_with_them_are_told_in_the_order_of_the_question(self) -> None:
        store, _ = await self.with_device(2)
        await store.remember_device(DeviceRecord("c", "u"))
        await store.append(self.draft(message_id="topic"))
        assert await self.reached(store, ("topic", ["d", "nobody", "c"]), ("gone", ["d"]), ("m2", ["d"]), ("m1", [])) == [
            ("news", ["d", "c"], {}),
            None,
            ("device:d", ["d"], {}),
            ("device:d", [], {}),
        ]
        assert await self.reached(store) == []

    async def test_each_device_is_reached_as_it_stands_to_the_channel_of_its_message(self) -> None:
        store, epoch = await self.with_device(1)
        token = PushToken(b"secret", "app", sandbox=True, registered_at_ms=7)
        await store.remember_device(DeviceRecord("d", "u", push_token=token))
        await store.append(self.draft("user:u", message_id="user"))
        await store.append(self.draft(message_id="topic"))
        await store.add_subscription("d", "news", 1, 10)
        await store.record([CursorMove("d", "user:u", epoch, 1)])
        await store.begin_session(Session("d", "s", "node 2"))
        found = await store.reach_with([("topic", ["d"]), ("user", ["d"]), ("m1", ["d"])], results=False)
        assert [one and one.reaches for one in found] == [
            (Reach("d", "u", token, None, "node 2", True),),
            (Reach("d", "u", token, Cursor(epoch, 1), "node 2", False),),
            (Reach("d", "u", token, None, "node 2", False),),
        ]

    async def test_the_message_is_told_as_when_it_is_asked_for_alone_but_for_what_became_of_it(self) -> None:
        store, _ = await self.with_device(1, collapse_key="k", publisher="p")
        await store.append(self.draft("device:d", message_id="newer", collapse_key="k"))
        await store.append(self.draft(message_id="topic", want_receipt=True, ttl_ms=500))
        await store.recall("topic", "notice", self.now_ms)
        await store.record_pushes([pushed("m1"), pushed("topic")])
        for message_id in ("m1", "topic"):
            (found,) = await store.reach_with([(message_id, ["d"])], results=True)
            assert found is not None
            assert found.record == replace(await self.record_of(store, message_id), devices=(), counts={}, push_counts={})

    async def test_how_pushes_ended_is_told_of_the_devices_that_are_asked_for_if_it_is_wanted(self) -> None:
        store, _ = await self.with_device(2)
        await store.remember_device(DeviceRecord("c", "u"))
        await store.append(self.draft("user:u", message_id="user"))
        await store.append(self.draft(message_id="topic"))
        await store.record_pushes([pushed("m1"), pushed("user", "c", outcome=REJECTED), pushed("user"), pushed("topic")])
        asked = [("m1", ["d"]), ("m2", ["d"]), ("user", ["c"]), ("topic", ["d"])]
        told = await self.reached(store, *asked, results=True)
        assert [one and one[2] for one in told] == [{"d": DELIVERED}, {}, {"c": REJECTED}, {}]
        assert [one and one[2] for one in await self.reached(store, *asked)] == [{}, {}, {}, {}]

    async def test_a_device_that_is_known_only_by_a_milestone_has_no_result(self) -> None:
        store, epoch = await self.with_device(1)
        await store.record([CursorMove("d", "device:d", epoch, 1, at_ms=9)])
        assert await self.reached(store, ("m1", ["d"]), results=True) == [("device:d", ["d"], {})]

    async def test_hundreds_of_messages_to_hundreds_of_devices_are_one_question(self) -> None:
        store, _ = await self.with_device(300)
        for number in range(300):
            await store.remember_device(DeviceRecord(f"d{number:03}", "u"))
        names = [f"d{number:03}" for number in range(300)]
        await store.append(self.draft(message_id="topic"))
        asked = [("topic", names), *((f"m{number}", ["d"]) for number in range(1, 301))]
        assert await self.reached(store, *asked) == [("news", names, {}), *[("device:d", ["d"], {})] * 300]

    # ------------------------------------------------------------------------------------------------ the devices of users

    async def users_reached(
        self, store: Store, message_ids: Sequence[str], limit: int = 10, *, results: bool = False
    ) -> list[tuple[str, list[str], dict[str, PushOutcome]] | None]:
        """For each message its channel, the devices of its user, and how pushes of it ended."""
        return [
            None
            if one is None
            else (
                one.record.channel,
                [reach.device_id for reach in one.reaches],
                {device_id: result.outcome for device_id, result in one.results.items()},
            )
            for one in await store.reach_users(message_ids, limit, results=results)
        ]

    async def with_users(self) -> Store:
        """Three devices of u, one of v; a message to each, one to a topic and one to a device."""
        store, _ = await self.with_device(1)
        for device_id, user_id in (("d", "u"), ("e", "v"), ("c", "u"), ("b", "u"), ("a", "")):
            await store.remember_device(DeviceRecord(device_id, user_id))
        for channel, message_id in (("user:u", "to u"), ("user:v", "to v"), ("user:u", "to u again"), ("news", "topic")):
            await store.append(self.draft(channel, message_id=message_id))
        return store

    async def test_the_devices_of_each_messages_user_are_told_in_the_order_of_their_ids_and_nobody_for_others(self) -> None:
        store = await self.with_users()
        asked = ["topic", "to u again", "gone", "to v", "to u", "m1"]
        assert await self.users_reached(store, asked) == [
            ("news", [], {}),
            ("user:u", ["b", "c", "d"], {}),
            None,
            ("user:v", ["e"], {}),
            ("user:u", ["b", "c", "d"], {}),
            ("device:d", [], {}),
        ]
        assert await self.users_reached(store, []) == []

    async def test_of_each_user_no_more_devices_are_told_than_the_limit_says(self) -> None:
        store = await self.with_users()
        assert await self.users_reached(store, ["to u", "to v"], 2) == [("user:u", ["b", "c"], {}), ("user:v", ["e"], {})]

    async def test_a_device_that_went_to_another_user_or_was_forgotten_is_not_told(self) -> None:
        store = await self.with_users()
        await store.remember_device(DeviceRecord("c", "v"))
        await store.forget_device("b")
        assert await self.users_reached(store, ["to u", "to v"]) == [("user:u", ["d"], {}), ("user:v", ["c", "e"], {})]
        await store.forget_device("d")
        assert await self.users_reached(store, ["to u"]) == [("user:u", [], {})]

    async def test_the_devices_of_a_user_stand_to_its_channel_as_when_they_are_asked_for_by_name(self) -> None:
        store = await self.with_users()
        epoch = (await store.head("user:u")).epoch
        token = PushToken(b"secret", "app", sandbox=True, registered_at_ms=7)
        await store.remember_device(DeviceRecord("d", "u", push_token=token))
        await store.record([CursorMove("d", "user:u", epoch, 1), CursorMove("c", "user:v", epoch, 1)])
        await store.begin_session(Session("b", "s", "node 2"))
        await store.append(self.draft("user:u", message_id="recalled", want_receipt=True, ttl_ms=500))
        await store.recall("recalled", "notice", self.now_ms)
        message_ids = ["to u", "to u again", "recalled"]
        found = await store.reach_users(message_ids, 10, results=True)
        assert found == await store.reach_with([(message_id, ["b", "c", "d"]) for message_id in message_ids], results=True)
        assert found[0] is not None
        assert [(reach.run, reach.cursor, reach.token) for reach in found[0].reaches] == [
            ("node 2", None, None),
            ("", None, None),
            ("", Cursor(epoch, 1), token),
        ]

    async def test_how_pushes_to_the_devices_of_a_user_ended_is_told_if_it_is_wanted(self) -> None:
        store = await self.with_users()
        await store.record_pushes([pushed("to u", "c", outcome=REJECTED), pushed("to u"), pushed("to v", "e"), pushed("to u", "e")])
        told = await self.users_reached(store, ["to u", "to v", "to u again", "topic"], results=True)
        assert [one and one[2] for one in told] == [{"c": REJECTED, "d": DELIVERED}, {"e": DELIVERED}, {}, {}]
        told = await self.users_reached(store, ["to u", "to v"])
        assert [one and one[2] for one in told] == [{}, {}]

    async def test_hundreds_of_messages_to_hundreds_of_users_are_one_question(self) -> None:
        store = self.make_store(LIMITS)
        for number in range(300):
            await store.remember_device(DeviceRecord(f"d{number:03}", f"u{number % 150:03}"))
            await store.append(self.draft(f"user:u{number % 150:03}", message_id=f"m{number}"))
        found = await self.users_reached(store, [f"m{number}" for number in range(300)])
        names = [(f"user:u{n % 150:03}", [f"d{n % 150:03}", f"d{n % 150 + 150:03}"], {}) for n in range(300)]
        assert found[:150] == names[:150]
        assert found[150:] == names[150:]
