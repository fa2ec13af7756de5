"""What the contract leaves to a store of several nodes, of devices, presence and the outbox: two stores on one server, big things
in steps, and names and numbers of any kind."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from streampush.config import StoreConfig
from streampush.protocol.codes import Advice
from streampush.push.values import ChannelPresence, Close, DeviceRecord, OutboxWork, PushToken, Session
from streampush.store.redis import RedisLink, Scripts
from streampush.store.redis.scripts import load_scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import shared_server
from tests.store.contract import LIMITS
from tests.store.redis_world import RedisTestCase, soon

LOST = Close(2001, Advice.RECONNECT, "heartbeat lost", 7)
EXACT = 2**53 - 1
"""The greatest number that Redis' scripts and scores have exactly."""

ODD = ("a:b", "a", "{a}", "", " ", "*?[a]", "a\x00b", "line\nline", "\r\n", "ä\U0001f600", "1:a", "\x7f\x80", "%s%c")
"""Names with what means something elsewhere: in keys, patterns, ranges, lines, formats, and in what we put names together with."""

EVERY_BYTE = bytes(range(256))


class CountingRedis:
    """Runs commands by a link, and tells which scripts were run."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._names: dict[object, str] = {script.digest: script.name for script in load_scripts().values()}
        self.ran: list[str] = []

    def command(self, *parts: bytes | str | int) -> Awaitable[Any]:
        if parts[0] == "EVALSHA":
            self.ran.append(self._names[parts[1]])
        return self._link.command(*parts)


class SeveralNodesCase(RedisTestCase):
    def nodes(self, limits: StoreConfig = LIMITS) -> tuple[RedisStore, RedisStore]:
        """The stores of two nodes, with the same keys, which are empty."""
        prefix = self.new_prefix()
        return self.same_store(limits, prefix), self.same_store(limits, prefix)

    def counting(self) -> tuple[RedisStore, Scripts, list[str]]:
        """A store, its scripts, and the names of those that it has run."""
        redis = CountingRedis(self.link)
        scripts = Scripts(redis, self.new_prefix())
        return RedisStore(scripts, LIMITS, lambda: self.now_ms, lambda: "epoch", soon), scripts, redis.ran

    async def all_of(self, *works: Any) -> list[Any]:
        """What they give that are begun at the same time."""
        return await gatherResults([Deferred.fromCoroutine(work) for work in works])


class PresenceTests(SeveralNodesCase):
    async def test_sessions_of_one_device_that_begin_on_two_nodes_at_once_have_one_order(self) -> None:
        one, two = self.nodes()
        begun = [store.begin_session(Session("d", node, node)) for store, node in ((one, "n1"), (two, "n2")) * 20]
        generations = await self.all_of(*begun)
        assert len(set(generations)) == 40
        last = generations.index(max(generations))
        node = ("n1", "n2")[last % 2]
        assert [await store.session("d") for store in (one, two)] == [Session("d", node, node)] * 2
        for generation in sorted(generations)[:-1]:
            assert not await one.end_session("d", generation, LOST)
        assert await two.end_session("d", max(generations), LOST)

    async def test_generations_rise_also_when_redis_has_forgotten_them(self) -> None:
        one, _ = self.nodes()
        before = [await one.begin_session(Session("d", "s", "n")) for _ in range(3)]
        self.now_ms += 100  # a failover takes longer
        other, _ = self.nodes()
        assert await other.begin_session(Session("d", "s", "n")) > max(before)

    async def test_a_clock_that_goes_back_gives_no_generation_again(self) -> None:
        one, _ = self.nodes()
        before = await one.begin_session(Session("d", "s", "n"))
        self.now_ms -= 1_000_000
        assert await one.begin_session(Session("d", "s", "n")) == before + 1

    async def test_where_redis_may_not_be_asked_the_time_the_clock_of_the_node_says_which_connection_was_later(self) -> None:
        rights = ("~*", "&*", "+@all", "-time")
        await self.link.command("ACL", "SETUSER", "timeless", "on", ">pw", *rights)
        self.addCleanup(self.link.command, "ACL", "DELUSER", "timeless")
        link = self.make_link(shared_server().url.replace("redis://", "redis://timeless:pw@"))
        store = RedisStore(Scripts(link, self.new_prefix()), LIMITS, lambda: self.now_ms, lambda: "epoch", soon)
        await store.begin_session(Session("d", "later", "b"), 2_000)
        assert await store.begin_session(Session("d", "earlier", "a"), 60_000) == 0
        self.now_ms += 60_000
        assert await store.begin_session(Session("d", "latest", "a"), 2_000) > 0

    async def test_who_follows_is_known_on_every_node(self) -> None:
        one, two = self.nodes()
        for number, store in enumerate((one, two, one, two)):
            generation = await store.begin_session(Session(f"d{number}", "s", f"n{number % 2}"))
            await store.session_follows(f"d{number}", generation, ["news"], follows=True)
        assert await one.channel_presence("news", 3) == ChannelPresence("news", 4, ("d0", "d1", "d2"))
        await two.extend_run("n1", self.now_ms)
        assert await one.channel_presence("news", 3) == ChannelPresence("news", 2, ("d0", "d2"))

    async def test_a_node_with_many_sessions_is_forgotten_in_steps_and_its_newer_ones_stay(self) -> None:
        store, scripts, ran = self.counting()
        for number in range(150):
            generation = await store.begin_session(Session(f"d{number}", "s", "n", "u"))
            await store.session_follows(f"d{number}", generation, [f"c{channel}" for channel in range(20)], follows=True)
        forgetting = Deferred.fromCoroutine(store.forget_run("n"))
        await store.begin_session(Session("late", "s", "n"))  # behind the first step
        await forgetting
        assert 8 <= ran.count("forget_run") <= 12
        assert await store.session("late") == Session("late", "s", "n")
        assert list(await store.user_sessions("u", 10)) == []
        assert (await store.channel_presence("c7", 10)).devices == 0
        assert await self.keys_left(scripts.prefix) == {"sess:late", "nodeof:n", "totals"}

    async def test_a_node_that_is_being_forgotten_has_no_session_from_the_first_step_on(self) -> None:
        store, scripts, _ = self.counting()
        await store.extend_run("n", self.now_ms + 100)
        for number in range(300):
            await store.begin_session(Session(f"d{number}", "s", "n", "u"))
        assert await scripts.run("forget_run", "n", 0) > 0
        assert await store.session("d299") is None
        assert list(await store.user_sessions("u", 300)) == []

    async def test_what_a_node_has_left_goes_an_hour_after_the_end_of_its_lease(self) -> None:
        store, scripts, _ = self.counting()
        for node in ("gone", "gone too", "lives"):
            await store.extend_run(node, self.now_ms)
            for number in range(100):
                await store.begin_session(Session(f"{node} {number}", "s", node))
        self.now_ms += 3_600_000
        await store.extend_run("lives", self.now_ms)
        assert await store.sweep()
        await store.extend_run("gone too", self.now_ms)  # in time
        while await store.sweep():
            pass
        left = await self.keys_left(scripts.prefix)
        assert not [key for key in left if "gone" in key and "too" not in key]
        assert len(left) == 2 * 101 + len({"leases", "totals"})

    async def test_a_session_that_follows_very_much_ends_and_is_replaced_in_steps(self) -> None:
        store, scripts, ran = self.counting()
        channels = [f"c{number}" for number in range(2500)]
        generation = await store.begin_session(Session("d", "s", "n"))
        await store.session_follows("d", generation, channels, follows=True)
        assert ran.count("session_follows") == 7
        generation = await store.begin_session(Session("d", "s2", "n2"))
        await store.session_follows("d", generation, channels, follows=True)
        assert await store.end_session("d", generation, LOST)
        assert (ran.count("begin_session"), ran.count("end_session")) == (1 + 7, 7)
        assert await self.keys_left(scripts.prefix) == {"totals"}

    async def test_sessions_of_a_user_are_found_behind_many_that_are_gone(self) -> None:
        store, _ = self.nodes()
        await store.extend_run("gone", self.now_ms)
        for number in range(401):
            await store.begin_session(Session(f"d{number:03}", "s", "gone" if number < 400 else "n", "u"))
        assert [one.device_id for one in await store.user_sessions("u", 5)] == ["d400"]

    async def test_names_of_any_kind_are_kept_apart(self) -> None:
        store, _ = self.nodes()
        places = [(device, node, f"{device}{node}") for device in ODD for node in ODD]
        for device, node, channel in places:
            generation = await store.begin_session(Session(f"{node}/{device}", device, node, channel, device, node, channel))
            await store.session_follows(f"{node}/{device}", generation, [channel, "all", *ODD], follows=True)
        for device, node, channel in places:
            expected = Session(f"{node}/{device}", device, node, channel, device, node, channel)
            assert await store.session(f"{node}/{device}") == expected
        assert await store.channel_presence("all", 3) == ChannelPresence("all", len(places), tuple(self.first_three(places)))
        await store.forget_run("a")
        assert (await store.channel_presence("all", 0)).devices == len(places) - len(ODD)
        assert await store.session("a:b/1:a") is not None

    def first_three(self, places: list[tuple[str, str, str]]) -> list[str]:
        return sorted(f"{node}/{device}" for device, node, _ in places)[:3]


class DevicesTests(SeveralNodesCase):
    async def test_names_and_tokens_of_any_kind_are_kept_as_they_are(self) -> None:
        store, other = self.nodes()
        records = [
            DeviceRecord(
                f"d{name}",
                name,
                EXACT,
                EXACT,
                PushToken(EVERY_BYTE + name.encode(), name, True, EXACT),
                {name: name, "ü": "\u20ac"},
                Close(1001, Advice.RETRY, name, EXACT),
            )
            for name in ODD
        ]
        for record in records:
            await store.remember_device(record)
        for name, record in zip(ODD, records, strict=True):
            token = record.push_token
            assert token is not None
            assert await other.device(f"d{name}") == record
            assert await other.device_of_token(token.token) == record
            assert list(await other.devices_of_user(name, 10)) == ([record] if name else [])
            assert (await other.devices_named(f"d{name}", 1))[0] == f"d{name}"
        assert list(await store.devices_named("", 100)) == sorted(f"d{name}" for name in ODD)

    async def test_subscriptions_to_names_of_any_kind_are_kept_apart(self) -> None:
        store, _ = self.nodes()
        await store.remember_device(DeviceRecord("d"))
        for number, name in enumerate(ODD):
            await store.add_subscription("d", name, EXACT - number, 100)
        assert {one.channel: one.since_ms for one in await store.subscriptions("d")} == {
            name: EXACT - number for number, name in enumerate(ODD)
        }
        for name in ODD:
            assert list(await store.subscribers(name, "", 10)) == ["d"]

    async def test_two_nodes_that_remember_at_once_do_not_exceed_the_limit(self) -> None:
        one, two = self.nodes(replace(LIMITS, max_devices=3))
        works = [(one, two)[number % 2].remember_device(DeviceRecord(f"d{number}")) for number in range(6)]
        found: list[object] = []
        for work in [Deferred.fromCoroutine(work) for work in works]:
            work.addBoth(found.append)
            await work
        assert sum(one is None for one in found) == 3
        assert len(await one.devices_named("", 10)) == 3

    async def test_a_device_that_follows_very_much_is_forgotten_in_steps(self) -> None:
        store, scripts, ran = self.counting()
        await store.remember_device(DeviceRecord("d", "u", push_token=PushToken(b"t", "app", False)))
        await self.all_of(*[store.add_subscription("d", f"c{number}", 1, 2000) for number in range(1500)])
        assert await store.forget_device("d")
        assert ran.count("forget_device") == 5
        assert await self.keys_left(scripts.prefix) == {"totals"}


class OutboxTests(SeveralNodesCase):
    async def test_two_nodes_that_lease_at_once_never_have_the_same_work(self) -> None:
        one, two = self.nodes()
        for number in range(100):
            await one.outbox_add("push", f"{number:03}", b"x", number)
        leased = await self.all_of(*[store.outbox_lease("push", 7, 1000, 5000) for store in (one, two) * 10])
        keys = [entry.key for entries in leased for entry in entries]
        assert sorted(keys) == [f"{number:03}" for number in range(100)]
        tokens = [entry.token for entries in leased for entry in entries]
        done = await self.all_of(*[store.outbox_complete(token) for token in tokens for store in (one, two)])
        assert sum(done) == 100

    async def test_a_lease_is_no_good_for_work_of_the_same_key_that_came_later(self) -> None:
        one, two = self.nodes()
        tokens = []
        for store in (one, two, one):
            await store.outbox_add("push", "a", b"x", 0)
            (entry,) = await store.outbox_lease("push", 1, 0, 10)
            tokens.append(entry.token)
            assert await store.outbox_complete(entry.token)
        await two.outbox_add("push", "a", b"x", 0)
        await two.outbox_lease("push", 1, 0, 10)
        assert await self.all_of(*[one.outbox_complete(token) for token in tokens]) == [False] * 3

    async def test_kinds_keys_and_bodies_of_any_kind_are_kept_as_they_are(self) -> None:
        store, other = self.nodes()
        for kind in ODD:
            for key in ODD:
                assert await store.outbox_add(kind, key, EVERY_BYTE + key.encode(), EXACT)
        for kind in ODD:
            assert await other.outbox_next_ms(kind) == EXACT
            leased = await other.outbox_lease(kind, 100, EXACT, 0)
            assert {entry.key: entry.body for entry in leased} == {key: EVERY_BYTE + key.encode() for key in ODD}
            for entry in leased:
                follows = await other.outbox_branch(entry.token, b"on", [OutboxWork(kind, f"{entry.key} on", EVERY_BYTE, 0)])
                assert follows is not None
                assert await other.outbox_complete(follows)
            assert await store.outbox_next_ms(kind) == 0

    async def test_what_is_no_token_is_worth_nothing(self) -> None:
        store, _ = self.nodes()
        await store.outbox_add("push", "a", b"x", 0)
        (entry,) = await store.outbox_lease("push", 1, 0, 10)
        for token in ("/", "x/", "x/9/", f"x{entry.token}", f"{entry.token}x", "x/99999999999999999999/a", "x/-1/a"):
            assert not await store.outbox_complete(token)
        assert await store.outbox_complete(entry.token)

    async def test_work_that_is_done_leaves_nothing(self) -> None:
        store, scripts, _ = self.counting()
        await store.outbox_add("push", "a", b"x", 0)
        (entry,) = await store.outbox_lease("push", 1, 0, 10)
        await store.outbox_release(entry.token, 0)
        (entry,) = await store.outbox_lease("push", 1, 0, 10)
        assert entry.attempts == 2
        await store.outbox_complete(entry.token)
        assert await self.keys_left(scripts.prefix) == {"totals"}
