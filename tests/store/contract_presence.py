"""Part of the contract of a store: who is connected."""

from __future__ import annotations

from streampush.protocol.codes import Advice
from streampush.push.store_ports import Store
from streampush.push.values import ChannelPresence, Close, Cursor, CursorMove, DeviceRecord, PushToken, Reach, Session
from tests.store.contract_base import LIMITS, ContractBase

LOST = Close(2001, Advice.RECONNECT, "heartbeat lost", 7)
REPLACED = Close(1006, Advice.DO_NOT_RECONNECT, "replaced", 9)


def session(device_id: str = "d", session_id: str = "s", node: str = "node", user_id: str = "") -> Session:
    return Session(device_id, session_id, node, user_id, "192.0.2.1", "app", "1.0", 5)


class PresenceContract(ContractBase):
    """begin_session, end_session, session_follows, extend_run, forget_run, forget_former, and the questions."""

    async def followers(self, store: Store, channel: str = "news", limit: int = 10) -> tuple[int, tuple[str, ...]]:
        presence = await store.channel_presence(channel, limit)
        assert presence.channel == channel
        return presence.devices, tuple(presence.device_ids)

    async def connect(self, store: Store, device_id: str, *channels: str, node: str = "node", user_id: str = "") -> int:
        generation = await store.begin_session(session(device_id, node=node, user_id=user_id))
        await store.session_follows(device_id, generation, channels, follows=True)
        return generation

    async def present(self, store: Store, *device_ids: str) -> list[str]:
        """Those of the devices that are present."""
        return [device_id for device_id in device_ids if await store.session(device_id) is not None]

    # ------------------------------------------------------------------------------------------------------------- reach

    async def test_reach_tells_token_cursor_node_and_subscription_of_the_known_devices_in_the_order_asked_for(self) -> None:
        store = self.make_store(LIMITS)
        token = PushToken(b"\x00t", "app", sandbox=True, registered_at_ms=7)
        await store.remember_device(DeviceRecord("a", "u", push_token=token))
        await store.remember_device(DeviceRecord("b"))
        await store.record([CursorMove("a", "news", "e", 5, 4, 3), CursorMove("b", "sport", "e", 9)])
        await store.add_subscription("b", "news", 1, 10)
        await store.add_subscription("a", "sport", 1, 10)
        await self.connect(store, "b", "news", node="n1")
        assert list(await store.reach("news", ["b", "nobody", "a"])) == [
            Reach("b", "", None, None, "n1", follows=True),
            Reach("a", "u", token, Cursor("e", 5, 4, 3), "", follows=False),
        ]
        assert list(await store.reach("news", [])) == []

    async def test_a_device_whose_node_is_gone_is_away(self) -> None:
        store = self.make_store(LIMITS)
        await store.remember_device(DeviceRecord("a"))
        await self.connect(store, "a", "news", node="n1")
        await store.forget_run("n1")
        (reach,) = await store.reach("news", ["a"])
        assert reach.run == ""

    # ---------------------------------------------------------------------------------------------------------- sessions

    async def test_a_device_is_present_while_its_session_lasts(self) -> None:
        store = self.make_store(LIMITS)
        assert await store.session("d") is None
        generation = await store.begin_session(session())
        assert await store.session("d") == session()
        assert await store.end_session("d", generation, LOST)
        assert await store.session("d") is None

    async def test_generations_rise_whatever_happens_between(self) -> None:
        store = self.make_store(LIMITS)
        generations = [await store.begin_session(session())]
        generations.append(await store.begin_session(session(node="other")))
        await store.end_session("d", generations[-1], LOST)
        generations.append(await store.begin_session(session()))
        await store.forget_run("node")
        generations.append(await store.begin_session(session()))
        assert generations == sorted(set(generations))
        assert generations[0] > 0

    async def test_a_newer_session_replaces_the_older_and_the_end_of_the_older_is_ignored(self) -> None:
        store, _ = await self.with_device()
        older = await store.begin_session(session(session_id="older"))
        newer = await store.begin_session(session(session_id="newer", node="other"))
        assert not await store.end_session("d", older, REPLACED)
        assert await store.session("d") == session(session_id="newer", node="other")
        assert await self.last_close(store) is None
        assert await store.end_session("d", newer, LOST)
        assert not await store.end_session("d", older, REPLACED)
        assert await self.last_close(store) == LOST

    async def last_close(self, store: Store) -> Close | None:
        record = await store.device("d")
        assert record is not None
        return record.last_close

    async def test_a_session_ends_once(self) -> None:
        store, _ = await self.with_device()
        generation = await store.begin_session(session())
        assert await store.end_session("d", generation, LOST)
        assert not await store.end_session("d", generation, REPLACED)
        assert not await store.end_session("nobody", generation, REPLACED)
        assert await self.last_close(store) == LOST

    async def test_how_it_ended_is_kept_with_everything_else_that_is_known_of_the_device(self) -> None:
        store = self.make_store(LIMITS)
        await store.remember_device(DeviceRecord("d", "u", 1, 2, attributes={"tier": "gold"}))
        generation = await store.begin_session(session())
        await store.end_session("d", generation, LOST)
        assert await store.device("d") == DeviceRecord("d", "u", 1, 2, attributes={"tier": "gold"}, last_close=LOST)

    async def test_a_session_of_a_device_that_is_not_known_ends_too(self) -> None:
        store = self.make_store(LIMITS)
        generation = await store.begin_session(session())
        assert await store.end_session("d", generation, LOST)
        assert await store.device("d") is None

    async def test_sessions_of_a_user_are_listed_in_order_of_their_devices(self) -> None:
        store = self.make_store(LIMITS)
        for device_id, user_id in (("c", "u"), ("a", "u"), ("x", "v"), ("b", "u"), ("y", "")):
            await self.connect(store, device_id, user_id=user_id)
        assert [one.device_id for one in await store.user_sessions("u", 10)] == ["a", "b", "c"]
        assert [one.device_id for one in await store.user_sessions("u", 2)] == ["a", "b"]
        assert list(await store.user_sessions("nobody", 10)) == list(await store.user_sessions("", 10)) == []

    async def test_a_session_belongs_to_the_user_that_it_was_begun_with(self) -> None:
        store = self.make_store(LIMITS)
        await self.connect(store, "d", user_id="u")
        await self.connect(store, "d", user_id="v")
        assert list(await store.user_sessions("u", 10)) == []
        assert [one.device_id for one in await store.user_sessions("v", 10)] == ["d"]

    async def test_a_connection_that_was_made_earlier_does_not_replace_a_later_one_of_another_process(self) -> None:
        store = self.make_store(LIMITS)
        generation = await store.begin_session(session(session_id="later", node="b"), 2_000)
        await store.session_follows("d", generation, ["news"], follows=True)
        assert await store.begin_session(session(session_id="earlier", node="a"), 60_000) == 0
        assert await store.session("d") == session(session_id="later", node="b")
        assert await self.followers(store) == (1, ("d",))
        assert await store.end_session("d", generation, LOST)

    async def test_a_connection_that_was_made_later_replaces_an_earlier_one_however_late_it_is_told(self) -> None:
        store = self.make_store(LIMITS)
        earlier = await store.begin_session(session(session_id="earlier", node="a"), 60_000)
        later = await store.begin_session(session(session_id="later", node="b"), 30_000)
        assert later > earlier
        assert await store.session("d") == session(session_id="later", node="b")

    async def test_of_two_connections_that_were_made_within_a_second_the_one_told_last_stays(self) -> None:
        store = self.make_store(LIMITS)
        await store.begin_session(session(session_id="one", node="a"), 30_000)
        assert await store.begin_session(session(session_id="two", node="b"), 30_500) > 0
        await store.begin_session(session(session_id="one", node="a"), 100)
        assert await store.begin_session(session(session_id="two", node="b"), 900) > 0
        assert await store.session("d") == session(session_id="two", node="b")

    async def test_one_process_says_itself_which_of_its_connections_is_the_newer(self) -> None:
        store = self.make_store(LIMITS)
        await store.begin_session(session(session_id="one"))
        assert await store.begin_session(session(session_id="two"), 60_000) > 0
        assert await store.session("d") == session(session_id="two")

    async def test_a_later_connection_of_a_process_that_lives_no_more_keeps_nobody_out(self) -> None:
        store = self.make_store(LIMITS)
        await store.extend_run("dead", self.now_ms)
        await store.begin_session(session(session_id="later", node="dead"))
        assert await store.begin_session(session(session_id="earlier", node="a"), 60_000) > 0
        assert await store.session("d") == session(session_id="earlier", node="a")

    # ---------------------------------------------------------------------------------------------------------- channels

    async def test_followers_are_counted_and_some_are_named_in_order(self) -> None:
        store = self.make_store(LIMITS)
        for device_id in ("c", "a", "b"):
            await self.connect(store, device_id, "news", "sport" if device_id == "a" else "news")
        assert await self.followers(store) == (3, ("a", "b", "c"))
        assert await self.followers(store, limit=2) == (3, ("a", "b"))
        assert await self.followers(store, limit=0) == (3, ())
        assert await self.followers(store, "sport") == (1, ("a",))
        assert await store.channel_presence("other", 10) == ChannelPresence("other", 0, ())

    async def test_who_follows_no_longer_is_not_counted(self) -> None:
        store = self.make_store(LIMITS)
        generation = await self.connect(store, "d", "news", "sport")
        await store.session_follows("d", generation, ["news", "never"], follows=False)
        assert [await self.followers(store, channel) for channel in ("news", "sport")] == [(0, ()), (1, ("d",))]

    async def test_following_twice_counts_once(self) -> None:
        store = self.make_store(LIMITS)
        generation = await self.connect(store, "d", "news", "news")
        await store.session_follows("d", generation, ["news"], follows=True)
        assert await self.followers(store) == (1, ("d",))
        await store.session_follows("d", generation, ["news"], follows=False)
        await store.session_follows("d", generation, ["news"], follows=False)
        assert await self.followers(store) == (0, ())

    async def test_whoever_is_gone_follows_nothing(self) -> None:
        store = self.make_store(LIMITS)
        generation = await self.connect(store, "d", "news")
        await store.end_session("d", generation, LOST)
        assert await self.followers(store) == (0, ())
        await store.session_follows("d", generation, ["news"], follows=True)
        assert await self.followers(store) == (0, ())

    async def test_a_newer_session_begins_by_following_nothing_and_the_older_one_has_no_say(self) -> None:
        store = self.make_store(LIMITS)
        older = await self.connect(store, "d", "news", "sport")
        await self.connect(store, "d", "sport", node="other")
        assert [await self.followers(store, channel) for channel in ("news", "sport")] == [(0, ()), (1, ("d",))]
        await store.session_follows("d", older, ["news"], follows=True)
        await store.session_follows("d", older, ["sport"], follows=False)
        assert [await self.followers(store, channel) for channel in ("news", "sport")] == [(0, ()), (1, ("d",))]

    async def test_a_session_that_is_not_the_newest_is_found_with_the_one_that_is(self) -> None:
        store = self.make_store(LIMITS)
        older = await self.connect(store, "a", "news")
        newer = await self.connect(store, "a", node="other")
        alone = await self.connect(store, "b")
        gone = await self.connect(store, "c")
        await store.end_session("c", gone, LOST)
        asked = [("a", older), ("a", newer), ("b", alone), ("c", gone), ("never", 1)]
        assert list(await store.newer_sessions(asked)) == [("a", newer), ("c", 0), ("never", 0)]
        assert list(await store.newer_sessions([("b", alone + 1)])) == [("b", 0)]
        assert list(await store.newer_sessions([])) == []

    # ------------------------------------------------------------------------------------------------------------- nodes

    async def test_sessions_of_a_node_are_present_until_its_lease_ends(self) -> None:
        store = self.make_store(LIMITS)
        await store.extend_run("node", self.now_ms + 100)
        await self.connect(store, "a", "news", user_id="u")
        await self.connect(store, "b", "news", user_id="u", node="without lease")
        self.now_ms += 99
        assert await self.present(store, "a", "b") == ["a", "b"]
        self.now_ms += 1
        assert await self.present(store, "a", "b") == ["b"]
        assert await self.followers(store) == (1, ("b",))
        assert [one.device_id for one in await store.user_sessions("u", 10)] == ["b"]

    async def test_a_node_that_comes_back_has_its_sessions_still(self) -> None:
        store = self.make_store(LIMITS)
        await store.extend_run("node", self.now_ms + 100)
        await self.connect(store, "a", "news")
        self.now_ms += 200
        await store.extend_run("node", self.now_ms + 100)
        assert await self.present(store, "a") == ["a"]
        assert await self.followers(store) == (1, ("a",))

    async def test_a_session_of_a_node_whose_lease_ended_can_end_and_be_replaced(self) -> None:
        store, _ = await self.with_device()
        await store.extend_run("dead", self.now_ms + 100)
        generation = await self.connect(store, "d", "news", node="dead")
        self.now_ms += 100
        await self.connect(store, "e", "news", node="dead")
        newer = await self.connect(store, "d", "news")
        assert newer > generation
        assert await self.followers(store) == (1, ("d",))

    async def test_a_node_that_began_anew_has_no_sessions_and_others_keep_theirs(self) -> None:
        store = self.make_store(LIMITS)
        generation = await self.connect(store, "a", "news", user_id="u")
        await self.connect(store, "b", "news", node="other")
        await store.extend_run("node", self.now_ms + 100)
        await store.forget_run("node")
        assert await self.present(store, "a", "b") == ["b"]
        assert await self.followers(store) == (1, ("b",))
        assert not await store.end_session("a", generation, LOST)
        await store.forget_run("never heard of")

    async def test_what_a_former_run_of_a_node_has_left_is_forgotten_when_the_next_one_begins(self) -> None:
        store = self.make_store(LIMITS)
        for number, run in enumerate(("n/1", "n/2", "n/x/1", "nn/1", "n")):
            await store.extend_run(run, self.now_ms + 100)
            await self.connect(store, f"d{number}", "news", node=run, user_id="u")
        await store.forget_former("n/2")
        assert await self.present(store, "d0", "d1", "d2", "d3", "d4") == ["d1", "d2", "d3"]
        assert await self.followers(store) == (3, ("d1", "d2", "d3"))
        self.now_ms += 100
        assert await self.present(store, "d1", "d2", "d3") == []  # their leases are as they were

    async def test_a_session_tells_the_node_whose_run_has_it(self) -> None:
        store = self.make_store(LIMITS)
        for run, node in (("n/1", "n"), ("a/b/1", "a/b"), ("n", "n")):
            await self.connect(store, "d", node=run)
            found = await store.session("d")
            assert found is not None
            assert (found.run, found.node) == (run, node)

    async def test_a_node_that_was_forgotten_may_begin_again(self) -> None:
        store = self.make_store(LIMITS)
        await store.extend_run("node", self.now_ms + 100)
        await store.forget_run("node")
        await self.connect(store, "a", "news")
        self.now_ms += 1000
        assert await self.present(store, "a") == ["a"]  # it has said nothing of a lease since
