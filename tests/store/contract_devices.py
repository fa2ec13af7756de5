"""Part of the contract of a store: devices, their cursors, and what they follow for good."""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.codes import Advice, Code
from streampush.push.store_ports import Store
from streampush.push.values import Close, Cursor, CursorMove, DeviceRecord, PushToken, Undeliverable
from tests.store.contract_base import LIMITS, ContractBase


class DeviceContract(ContractBase):
    """record, as far as it concerns cursors; subscriptions; devices."""

    # ---------------------------------------------------------------------------------------------------------- cursors

    async def test_a_cursor_is_where_it_was_moved(self) -> None:
        store = self.make_store(LIMITS)
        assert await self.cursor(store, "d", "news") is None
        moves = [CursorMove("d", "news", "e", 3, 2, 1), CursorMove("d", "sport", "f", 4), CursorMove("d2", "news", "e", 5)]
        await store.record(moves)
        assert await self.cursor(store, "d", "news") == Cursor("e", 3, 2, 1)
        assert await self.cursor(store, "d", "sport") == Cursor("f", 4)
        assert await self.cursor(store, "d2", "news") == Cursor("e", 5)

    async def test_all_cursors_of_a_device_are_listed_and_nobody_elses(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "a", "e", 1), CursorMove("d", "b", "e", 2), CursorMove("other", "c", "e", 3)])
        assert {channel: cursor.offset for channel, cursor in (await store.cursors("d")).items()} == {"a": 1, "b": 2}
        assert await store.cursors("nobody") == {}

    async def test_a_move_back_within_an_epoch_is_ignored(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "news", "e", 3, 1, 2)])
        await store.record([CursorMove("d", "news", "e", 2, 2, 9)])
        assert await self.cursor(store, "d", "news") == Cursor("e", 3, 1, 2)

    async def test_the_moves_of_a_batch_are_made_in_their_order(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "news", "e", 3), CursorMove("d", "news", "f", 1), CursorMove("d", "news", "f", 2)])
        assert await self.cursor(store, "d", "news") == Cursor("f", 2)
        await store.record([])

    async def test_at_the_same_offset_attempts_are_replaced_and_processed_only_rises(self) -> None:
        store = self.make_store(LIMITS)
        for processed, attempts, cursor in (
            (2, 1, Cursor("e", 3, 2, 1)),
            (3, 5, Cursor("e", 3, 3, 5)),
            (1, 0, Cursor("e", 3, 3, 0)),
        ):
            await store.record([CursorMove("d", "news", "e", 3, processed, attempts)])
            assert await self.cursor(store, "d", "news") == cursor

    async def test_a_move_forward_brings_its_attempts_and_processed_only_rises(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "news", "e", 3, 3, 7)])
        await store.record([CursorMove("d", "news", "e", 5, 1)])
        assert await self.cursor(store, "d", "news") == Cursor("e", 5, 3, 0)

    async def test_a_cursor_of_a_new_epoch_replaces_the_old_one(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "news", "e", 3, 3, 3)])
        await store.record([CursorMove("d", "news", "f", 1)])
        assert await self.cursor(store, "d", "news") == Cursor("f", 1)

    async def test_a_cursor_is_forgotten(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "news", "e", 3), CursorMove("d", "sport", "e", 3)])
        await store.forget_cursor("d", "news")
        await store.forget_cursor("nobody", "news")
        assert await self.cursor(store, "d", "news") is None
        assert await self.cursor(store, "d", "sport") is not None

    async def crowd(self, store: Store, count: int) -> None:
        await store.record([CursorMove("d", f"c{number}", "e", 1) for number in range(count)])

    async def test_a_device_keeps_a_bounded_number_of_cursors_the_latest_moved_ones(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "old", "e", 1), CursorMove("d", "older", "e", 1)])
        await store.record([CursorMove("d", "old", "e", 2)])
        await self.crowd(store, 999)
        assert await self.cursor(store, "d", "older") is None
        assert await self.cursor(store, "d", "old") == Cursor("e", 2)
        assert len(await store.cursors("d")) == 1000

    async def test_cursors_of_durable_subscriptions_are_dropped_last(self) -> None:
        store, _ = await self.with_device()
        await store.add_subscription("d", "old", 1, 10)
        await store.record([CursorMove("d", "old", "e", 1), CursorMove("d", "older", "e", 1)])
        await self.crowd(store, 1500)
        assert await self.cursor(store, "d", "old") == Cursor("e", 1)
        assert await self.cursor(store, "d", "older") is None

    async def test_a_cursor_is_dropped_last_from_when_its_subscription_is_durable_until_it_is_not(self) -> None:
        store, _ = await self.with_device()
        await store.record([CursorMove("d", "kept", "e", 1), CursorMove("d", "left", "e", 1)])
        for channel in ("kept", "left"):
            await store.add_subscription("d", channel, 1, 10)
        await store.remove_subscription("d", "left")
        await self.crowd(store, 999)
        assert await self.cursor(store, "d", "kept") == Cursor("e", 1)
        assert await self.cursor(store, "d", "left") is None

    async def test_a_move_back_is_a_move_for_the_order_in_which_cursors_are_dropped(self) -> None:
        store = self.make_store(LIMITS)
        await store.record([CursorMove("d", "back", "e", 2), CursorMove("d", "older", "e", 1)])
        await store.record([CursorMove("d", "back", "e", 1)])
        await self.crowd(store, 999)
        assert await self.cursor(store, "d", "back") == Cursor("e", 2)
        assert await self.cursor(store, "d", "older") is None

    # ---------------------------------------------------------------------------------------------------- subscriptions

    async def subscribed(self, store: Store, device_id: str = "d") -> list[tuple[str, int]]:
        return [(one.channel, one.since_ms) for one in await store.subscriptions(device_id)]

    async def test_durable_subscriptions_are_listed_in_order_with_their_beginning(self) -> None:
        store, _ = await self.with_device()
        for channel, at_ms in (("b", 1), ("a", 2), ("c", 3)):
            assert await store.add_subscription("d", channel, at_ms, 10)
        assert not await store.add_subscription("d", "b", 9, 10)
        assert await self.subscribed(store) == [("a", 2), ("b", 1), ("c", 3)]
        assert await self.subscribed(store, "other") == []

    async def test_a_durable_subscription_is_removed_once(self) -> None:
        store, _ = await self.with_device()
        await store.add_subscription("d", "a", 1, 10)
        assert await store.remove_subscription("d", "a")
        assert not await store.remove_subscription("d", "a")
        assert not await store.remove_subscription("other", "a")
        assert await self.subscribed(store) == []

    async def test_durable_subscriptions_above_the_number_are_refused_and_known_ones_are_not(self) -> None:
        store, _ = await self.with_device()
        await store.add_subscription("d", "a", 1, 2)
        await store.add_subscription("d", "b", 1, 2)
        await self.refused(store.add_subscription("d", "c", 1, 2), Code.QUOTA_EXCEEDED)
        assert not await store.add_subscription("d", "b", 1, 2)
        await store.remove_subscription("d", "a")
        assert await store.add_subscription("d", "c", 1, 2)

    async def test_only_a_known_device_can_subscribe_for_good(self) -> None:
        store = self.make_store(LIMITS)
        await self.refused(store.add_subscription("d", "a", 1, 10), Code.UNKNOWN_RECIPIENT)
        assert await self.subscribed(store) == []

    async def test_a_durable_subscription_begins_no_log_and_moves_no_cursor(self) -> None:
        store, _ = await self.with_device()
        await store.add_subscription("d", "a", 1, 10)
        assert await store.peek("a") is None
        assert await store.cursors("d") == {}

    async def followed(self, *device_ids: str) -> Store:
        """A store with devices that follow the topic for good."""
        store = self.make_store(LIMITS)
        for device_id in device_ids:
            await store.remember_device(DeviceRecord(device_id))
            await store.add_subscription(device_id, "topic", 1, 10)
        return store

    async def test_subscribers_are_read_in_order_from_any_place(self) -> None:
        names = ["b", "c2", "a", "c10", "~", "A", "c"]
        store = await self.followed(*names)
        found, after = [], ""
        while page := await store.subscribers("topic", after, 2):
            assert len(page) <= 2
            found += page
            after = page[-1]
        assert found == sorted(names)
        assert list(await store.subscribers("topic", "bb", 2)) == ["c", "c10"]
        assert list(await store.subscribers("topic", "~", 2)) == []

    async def test_subscribers_of_other_channels_and_of_none_are_not_among_them(self) -> None:
        store = await self.followed("a", "b")
        await store.add_subscription("b", "other", 1, 10)
        await store.record([CursorMove("b", "third", "e", 1)])
        assert list(await store.subscribers("other", "", 10)) == ["b"]
        assert list(await store.subscribers("third", "", 10)) == list(await store.subscribers("top", "", 10)) == []

    async def test_who_no_longer_follows_or_is_forgotten_is_no_subscriber(self) -> None:
        store = await self.followed("a", "b", "c")
        await store.remove_subscription("b", "topic")
        await store.forget_device("c")
        assert list(await store.subscribers("topic", "", 10)) == ["a"]
        await store.remove_subscription("a", "topic")
        assert list(await store.subscribers("topic", "", 10)) == []
        await store.add_subscription("a", "topic", 1, 10)
        await store.remember_device(DeviceRecord("c"))
        assert list(await store.subscribers("topic", "", 10)) == ["a"]

    # ------------------------------------------------------------------------------------------------------ push tokens

    async def with_token(self, at_ms: int = 100, token: bytes = b"t") -> Store:
        """A store with a device that registered a token at that time."""
        store = self.make_store(LIMITS)
        await self.register(store, "d", at_ms, token)
        return store

    async def register(self, store: Store, device_id: str, at_ms: int, token: bytes = b"t", topic: str = "org.example") -> None:
        await store.remember_device(DeviceRecord(device_id, "u", 1, 2, PushToken(token, topic, False, at_ms), {"a": "b"}))

    async def token_of(self, store: Store, device_id: str = "d") -> PushToken | None:
        record = await store.device(device_id)
        assert record is not None
        return record.push_token

    async def test_a_token_that_was_no_longer_good_after_it_was_registered_is_dropped(self) -> None:
        for at_ms in (100, 101):
            store = await self.with_token(100)
            assert await store.drop_token("d", b"t", at_ms)
            assert await store.device("d") == DeviceRecord("d", "u", 1, 2, None, {"a": "b"})
            assert not await store.drop_token("d", b"t", at_ms)

    async def test_a_token_that_was_registered_again_later_is_kept(self) -> None:
        store = await self.with_token(100)
        assert not await store.drop_token("d", b"t", 99)
        assert await self.token_of(store) == PushToken(b"t", "org.example", False, 100)

    async def test_another_token_than_the_one_that_is_no_longer_good_is_kept(self) -> None:
        store = await self.with_token(100)
        assert not await store.drop_token("d", b"other", 1000)
        assert not await store.drop_token("nobody", b"t", 1000)
        assert await self.token_of(store) is not None

    async def test_the_device_of_a_token_is_the_one_that_has_it(self) -> None:
        store = await self.with_token(100)
        assert await store.device_of_token(b"other") is None
        assert await store.device_of_token(b"t") == await store.device("d")
        await self.register(store, "new", 200)
        found = await store.device_of_token(b"t")
        assert found is not None
        assert found.device_id == "new"
        await store.drop_token("new", b"t", 200)
        assert await store.device_of_token(b"t") is None

    async def test_a_token_that_another_device_registers_is_its_own_from_then_on(self) -> None:
        store = await self.with_token(100)
        await self.register(store, "new", 100, topic="org.other")
        assert await self.token_of(store, "d") is None
        assert await self.token_of(store, "new") == PushToken(b"t", "org.other", False, 100)
        record = await store.device("d")
        assert record is not None
        assert (record.user_id, dict(record.attributes)) == ("u", {"a": "b"})

    async def test_a_record_that_is_older_than_the_registration_elsewhere_brings_no_token_back(self) -> None:
        store = await self.with_token(100)
        await self.register(store, "new", 200)
        await self.register(store, "d", 100)  # read before, and written now
        assert await self.token_of(store, "d") is None
        assert await self.token_of(store, "new") is not None

    async def test_a_token_that_was_given_up_is_free_for_others(self) -> None:
        store = await self.with_token(500)
        await self.register(store, "d", 600, b"next")
        await self.register(store, "new", 1, b"t")
        assert await self.token_of(store, "new") is not None
        await store.forget_device("d")
        await self.register(store, "third", 1, b"next")
        assert await self.token_of(store, "third") is not None

    # ---------------------------------------------------------------------------------------------------------- devices

    async def test_a_device_is_remembered_and_replaced(self) -> None:
        store = self.make_store(LIMITS)
        assert await store.device("d") is None
        await store.remember_device(DeviceRecord("d", "u", 1, 1))
        close = Close(2001, Advice.RECONNECT, "heartbeat lost", 8)
        record = DeviceRecord("d", "u", 1, 9, PushToken(b"\x00t", "org.example", True, 7), {"tier": "gold", "ä": ""}, close)
        await store.remember_device(record)
        assert await store.device("d") == record
        await store.remember_device(DeviceRecord("d"))
        assert await store.device("d") == DeviceRecord("d")

    async def test_a_user_is_known_while_a_device_is_bound_to_it(self) -> None:
        store = self.make_store(LIMITS)
        assert not await self.knows_user(store, "u")
        await store.remember_device(DeviceRecord("d1", "u"))
        await store.remember_device(DeviceRecord("d2", "u"))
        await store.remember_device(DeviceRecord("d1", "v"))
        assert await self.knows_user(store, "u")
        assert await self.knows_user(store, "v")
        await store.remember_device(DeviceRecord("d2", ""))
        assert not await self.knows_user(store, "u")
        assert not await self.knows_user(store, "")

    async def test_devices_of_a_user_are_listed_in_order(self) -> None:
        store = self.make_store(LIMITS)
        for device_id, user_id in (("c", "u"), ("a", "u"), ("x", "v"), ("b", "u"), ("y", "")):
            await store.remember_device(DeviceRecord(device_id, user_id, 1, 1))
        assert list(await store.devices_of_user("u", 2)) == [DeviceRecord("a", "u", 1, 1), DeviceRecord("b", "u", 1, 1)]
        assert [record.device_id for record in await store.devices_of_user("u", 10)] == ["a", "b", "c"]
        assert list(await store.devices_of_user("nobody", 10)) == list(await store.devices_of_user("", 10)) == []

    async def test_devices_are_found_by_the_beginning_of_their_ids_in_order(self) -> None:
        store = self.make_store(LIMITS)
        for device_id in ("phone-2", "phone-10", "phone", "Phone-1", "phonf", "pad", "~"):
            await store.remember_device(DeviceRecord(device_id))
        assert list(await store.devices_named("phone", 10)) == ["phone", "phone-10", "phone-2"]
        assert list(await store.devices_named("phone", 2)) == ["phone", "phone-10"]
        assert list(await store.devices_named("phone-1", 10)) == ["phone-10"]
        assert list(await store.devices_named("~", 10)) == ["~"]
        assert list(await store.devices_named("", 3)) == ["Phone-1", "pad", "phone"]
        assert list(await store.devices_named("x", 10)) == []
        await store.forget_device("phone")
        assert list(await store.devices_named("phone", 1)) == ["phone-10"]

    async def test_devices_above_the_quota_are_refused_and_known_ones_are_not(self) -> None:
        store = self.make_store(replace(LIMITS, max_devices=1))
        await store.remember_device(DeviceRecord("d1", "u1"))
        await self.refused(store.remember_device(DeviceRecord("d2", "u2")), Code.QUOTA_EXCEEDED)
        assert await store.device("d2") is None
        assert not await self.knows_user(store, "u2")
        await store.remember_device(DeviceRecord("d1", "u1", last_seen_ms=5))
        await store.forget_device("d1")
        await store.remember_device(DeviceRecord("d2", "u2"))

    async def test_a_forgotten_device_leaves_nothing_but_its_log(self) -> None:
        store, epoch = await self.with_device(2)
        await store.remember_device(DeviceRecord("other", "u"))
        await store.add_subscription("d", "news", 1, 10)
        await store.add_subscription("other", "news", 1, 10)
        moves = [CursorMove("d", "device:d", epoch, 1), CursorMove("d", "news", "e", 1), CursorMove("other", "news", "e", 1)]
        await store.record(moves, [], [Undeliverable("d", "device:d", epoch, 2, 1, "poison", 1)])
        assert await store.forget_device("d")
        assert not await store.forget_device("d")
        assert await store.device("d") is None
        assert (await store.cursors("d"), list(await store.subscriptions("d")), list(await store.dead_letters("d", 0, 9))) == (
            {},
            [],
            [],
        )
        assert await self.readable(store, "device:d") == ["m1", "m2"]
        assert (await store.cursors("other"), len(await store.subscriptions("other"))) == ({"news": Cursor("e", 1)}, 1)
        status = await store.status()
        assert (status.devices, status.dead_letters) == (1, 0)

    async def test_a_forgotten_device_that_comes_back_begins_anew(self) -> None:
        store, epoch = await self.with_device(1)
        await store.record([CursorMove("d", "device:d", epoch, 1)])
        await store.forget_device("d")
        await store.remember_device(DeviceRecord("d"))
        assert await store.cursors("d") == {}
        assert not await self.knows_user(store, "u")
        assert (await store.append(self.draft("device:d"))).offset == 2
