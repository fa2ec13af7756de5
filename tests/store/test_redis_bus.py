"""The bus over a real Redis: what it hears, what it makes good, and how it finds a connection that is dead."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from itertools import count
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from streampush.errors import StoreUnavailable
from streampush.observe.bus_figures import BusFigures
from streampush.protocol.terms import Durability, Milestone
from streampush.push.bus import Order, OrderKind
from streampush.push.values import (
    Appended,
    CursorMove,
    DeviceRecord,
    Mark,
    PushOutcome,
    PushRecord,
    PushResult,
    Session,
    Undeliverable,
)
from streampush.redis_url import parse_url
from streampush.store.redis.bus import RedisBus
from streampush.store.redis.connecting import Connector
from streampush.store.redis.link import RedisLink
from streampush.store.redis.scripts import Scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import RedisServer, shared_server
from tests.store.contract import LIMITS, NOW_MS
from tests.store.contract_base import ContractBase
from tests.store.redis_world import RedisTestCase, soon

_TOKENS = count(1)


class Ear:
    """See push.bus.Hearing."""

    def __init__(self) -> None:
        self.appended: list[Appended] = []
        self.seen_tops: list[tuple[str, int]] = []
        self.orders: list[Order] = []
        self.changes: list[str] = []
        self.times_back = 0

    def heard(self, appended: Appended) -> None:
        self.appended.append(appended)

    def seen(self, channel: str, epoch: str, top: int) -> None:
        self.seen_tops.append((channel, top))

    def changed(self, message_id: str) -> None:
        self.changes.append(message_id)

    def ordered(self, order: Order) -> None:
        self.orders.append(order)

    def back(self) -> None:
        self.times_back += 1


class BusTests(RedisTestCase, ContractBase):
    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.prefix = f"bus-{os.getpid()}-{next(_TOKENS)}"
        self.store = self.same_store(LIMITS, self.prefix)
        self.registry = CollectorRegistry()

    def bus(self, node: str, *, url: str = "", link: RedisLink | None = None, **options: Any) -> tuple[RedisBus, Ear]:
        bus = RedisBus(
            reactor,
            Connector(reactor, parse_url(url or shared_server().url)),
            link or self.link,
            Scripts(link or self.link, self.prefix).beginning(lambda: "epoch"),
            BusFigures(CollectorRegistry()),
            lambda: 0.1,
            run=node,
            token=f"token-{next(_TOKENS)}",
            durability=lambda: Durability.MEMORY,
            **options,
        )
        ear = Ear()
        self.addCleanup(lambda: Deferred.fromCoroutine(bus.stop()))
        bus.start(ear)
        return bus, ear

    async def until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.002)  # type: ignore[arg-type]  # a module stands for the reactor

    async def following(self, node: str, *channels: str, **options: Any) -> tuple[RedisBus, Ear]:
        """One that hears these channels, and has looked at their logs."""
        bus, ear = self.bus(node, **options)
        for channel in channels:
            bus.interest(channel, True)
        await self.until(lambda: len(ear.seen_tops) >= len(channels))
        ear.seen_tops.clear()
        return bus, ear

    async def test_what_is_appended_is_heard_whole(self) -> None:
        _, ear = await self.following("n", "news", "ö{}*")
        for channel in ("news", "ö{}*"):
            accepted = await self.store.append(self.draft(channel, b"\x00\xff", ttl_ms=50, collapse_key="k", want_receipt=True))
            await self.until(lambda: ear.appended)
            assert ear.appended == [accepted.appended]
            ear.appended.clear()

    async def test_a_large_one_is_heard_by_its_place(self) -> None:
        _, ear = await self.following("n", "news")
        await self.store.append(self.draft("news", b"x" * 100_000))
        await self.until(lambda: ear.seen_tops)
        assert (ear.seen_tops, ear.appended) == ([("news", 1)], [])

    async def test_only_what_is_followed_is_heard(self) -> None:
        bus, ear = await self.following("n", "news", "sport")
        bus.interest("sport", False)
        await self.store.append(self.draft("other"))
        bus.tell("n", Order(OrderKind.CLOSE, "d", "first"))  # behind the unsubscribing, on the connection of the store
        await self.until(lambda: ear.orders)
        await self.store.append(self.draft("sport"))
        await self.store.append(self.draft("news"))
        await self.until(lambda: ear.appended)
        assert [one.publication.channel for one in ear.appended] in (["news"], ["sport", "news"])

    async def test_what_was_appended_before_the_subscription_began_is_seen(self) -> None:
        await self.fill(self.store, 3)
        bus, ear = self.bus("n")
        bus.interest("news", True)
        await self.until(lambda: ear.seen_tops)
        assert ear.seen_tops == [("news", 3)]

    async def test_many_channels_are_followed_in_chunks(self) -> None:
        channels = [f"c{number}" for number in range(1200)]
        bus, ear = await self.following("n", *channels)
        for channel in channels[:-1]:
            bus.interest(channel, False)
        bus.interest("another", True)
        await self.until(lambda: ear.seen_tops)
        await self.store.append(self.draft("c1199"))
        await self.until(lambda: ear.appended)
        assert ear.appended[0].publication.channel == "c1199"

    async def test_recalls_and_what_was_scheduled_are_heard(self) -> None:
        _, ear = await self.following("n", "news")
        await self.store.append(self.draft("news", message_id="m"))
        await self.store.append(self.draft("news", message_id="late", deliver_at_ms=NOW_MS + 5))
        await self.store.recall("m", "notice", NOW_MS)
        await self.store.fire_due(NOW_MS + 5, 10)
        await self.until(lambda: len(ear.appended) == 3)
        heard = [(one.publication.message_id, one.publication.recalls) for one in ear.appended]
        assert heard == [("m", ""), ("notice", "m"), ("late", "")]

    async def watching(self, *message_ids: str) -> Ear:
        """One that hears of these messages, and has read each."""
        bus, ear = self.bus("n")
        for message_id in message_ids:
            bus.watch(message_id, True)
        await self.until(lambda: len(ear.changes) >= len(message_ids))
        assert sorted(ear.changes) == sorted(message_ids)
        ear.changes.clear()
        return ear

    async def told(self, ear: Ear, work: Awaitable[object]) -> list[str]:
        """What is heard of messages when this is done: what was published before the last hint is there with it."""
        await work
        await self.link.command("PUBLISH", f"{{{self.prefix}}}:msg:last", b"")
        await self.until(lambda: ear.changes[-1:] == ["last"])
        *told, _ = ear.changes
        ear.changes.clear()
        return told

    async def test_what_becomes_of_a_message_is_told_once_by_each_script(self) -> None:
        await self.store.remember_device(DeviceRecord("d"))
        for number in (1, 2):
            await self.store.append(self.draft("device:d", message_id=f"m{number}"))
        ear = await self.watching("m1", "last")
        epoch = (await self.store.head("device:d")).epoch
        written = [Mark("d", "device:d", epoch, 1, 2, Milestone.WRITTEN, NOW_MS)]
        assert await self.told(ear, self.store.record([], written)) == ["m1"]
        assert await self.told(ear, self.store.record([], written)) == []  # the first time stands
        both = CursorMove("d", "device:d", epoch, 2, 1, at_ms=NOW_MS)
        assert await self.told(ear, self.store.record([both])) == ["m1"]
        push = PushRecord("m1", "d", PushResult(NOW_MS, PushOutcome.DELIVERED))
        assert await self.told(ear, self.store.record_pushes([push, push])) == ["m1"]
        assert await self.told(ear, self.store.recall("m2", "notice", NOW_MS)) == []
        assert await self.told(ear, self.store.recall("m1", "another", NOW_MS)) == ["m1"]

    async def test_what_becomes_of_a_message_of_a_topic_is_told(self) -> None:
        fields: dict[str, Any] = {"want_receipt": True, "collapse_key": "k"}
        await self.store.append(self.draft("news", message_id="m", **fields))
        ear = await self.watching("m", "last")
        epoch = (await self.store.head("news")).epoch
        moves = [CursorMove(device_id, "news", epoch, 1, at_ms=NOW_MS) for device_id in "def"]
        assert await self.told(ear, self.store.record(moves)) == ["m"]
        dead = Undeliverable("g", "news", epoch, 1, 5, "rejected", NOW_MS)
        assert await self.told(ear, self.store.record([], (), [dead])) == ["m"]
        assert await self.told(ear, self.store.append(self.draft("news", message_id="newer", **fields))) == ["m"]

    async def test_what_becomes_of_a_scheduled_message_is_told(self) -> None:
        for message_id in ("fired", "recalled"):
            await self.store.append(self.draft("news", message_id=message_id, deliver_at_ms=NOW_MS + 5))
        ear = await self.watching("fired", "recalled", "last")
        assert await self.told(ear, self.store.recall("recalled", "notice", NOW_MS)) == ["recalled"]
        assert await self.told(ear, self.store.fire_due(NOW_MS + 5, 10)) == ["fired"]

    async def test_nothing_is_heard_of_a_message_that_is_watched_no_more(self) -> None:
        bus, ear = self.bus("n")
        for message_id in ("m", "other", "last"):
            bus.watch(message_id, True)
        await self.until(lambda: len(ear.changes) == 3)
        bus.watch("other", False)
        bus.watch("later", True)
        await self.until(lambda: len(ear.changes) == 4)
        ear.changes.clear()
        await self.link.command("PUBLISH", f"{{{self.prefix}}}:msg:other", b"")
        assert await self.told(ear, self.link.command("PUBLISH", f"{{{self.prefix}}}:msg:m", b"")) == ["m"]

    async def test_messages_that_are_watched_are_looked_at_when_the_connection_was_made_again(self) -> None:
        ear = await self.watching("m", "ö")
        await self.killed("pubsub")
        await self.until(lambda: len(ear.changes) == 2)
        assert sorted(ear.changes) == ["m", "ö"]

    async def test_orders_reach_their_node(self) -> None:
        one, first = await self.following("one")
        _, second = await self.following("two")
        await self.until(lambda: not one.reason(reactor.seconds()))  # type: ignore[attr-defined]
        await self.until(lambda: second.times_back)
        orders = [Order(kind, "d", "tëxt", 2**50) for kind in OrderKind]
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]  # both names are subscribed to
        for order in orders:
            one.tell("two", order)
        await self.until(lambda: len(second.orders) == len(orders))
        assert (second.orders, first.orders) == (orders, [])

    async def test_the_node_of_a_session_that_was_replaced_is_told(self) -> None:
        _, ear = await self.following("one", "news")
        await self.store.remember_device(DeviceRecord("d"))
        await self.store.begin_session(Session("d", "s1", "one"))
        await self.store.begin_session(Session("d", "s2", "one"))
        generation = await self.store.begin_session(Session("d", "s3", "two"))
        await self.until(lambda: ear.orders)
        assert ear.orders == [Order(OrderKind.REPLACED, "d", "", generation)]

    async def test_of_two_connections_made_at_one_time_before_an_outage_none_is_told_to_stay_away(self) -> None:
        """Nobody can say which one is live: it comes back, and has the device then. With more time between them it is known."""
        _, ear = await self.following("one", "news")
        for between, kind in ((500, OrderKind.CLOSE), (-500, OrderKind.CLOSE), (1500, OrderKind.REPLACED)):
            await self.store.begin_session(Session("d", "s1", "one"), 60_000)
            assert await self.store.begin_session(Session("d", "s2", "two"), 60_000 - between)
            await self.until(lambda: ear.orders)
            assert [(order.kind, order.device_id) for order in ear.orders] == [(kind, "d")]
            ear.orders.clear()

    async def test_a_former_run_of_a_node_that_still_listens_keeps_its_sessions_and_one_that_is_gone_does_not(self) -> None:
        bus, ear = await self.following("n/old", "news")
        await self.heard_itself(bus)
        for run in ("n/old", "n/dead"):
            await self.store.extend_run(run, NOW_MS + 1000)
            await self.store.begin_session(Session(run, "s", run))
        await self.store.forget_former("n/new")
        assert await self.store.session("n/old") is not None
        assert await self.store.session("n/dead") is None
        await self.heard_itself(bus)
        assert (ear.orders, len(self.flushLoggedErrors())) == ([], 0)
        await bus.stop()
        await self.store.forget_former("n/new")
        assert await self.store.session("n/old") is None

    async def heard_itself(self, bus: RedisBus) -> None:
        """An order for itself has come back, and all that was sent to it before."""
        order = Order(OrderKind.CLOSE, "itself")
        hearing = bus._hearing
        assert isinstance(hearing, Ear)
        while order not in hearing.orders:
            bus.tell(bus._own.decode().partition(":node:")[2], order)
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]  # the name is subscribed to in a moment
        hearing.orders.clear()

    async def test_a_connection_that_was_lost_is_made_again_and_what_was_missed_is_seen(self) -> None:
        bus, ear = await self.following("n", "news")
        await self.killed("pubsub")
        await self.store.append(self.draft("news"))
        await self.until(lambda: ear.seen_tops)
        assert ear.seen_tops[-1] == ("news", 1)
        assert ear.times_back == 2
        await self.store.append(self.draft("news"))
        await self.until(lambda: ear.appended)
        assert bus.reason(reactor.seconds()) == ""  # type: ignore[attr-defined]

    async def killed(self, kind: str) -> None:
        await self.link.command("CLIENT", "KILL", "TYPE", kind)

    async def test_a_connection_that_carries_nothing_is_replaced(self) -> None:
        server = RedisServer().start()
        self.addCleanup(server.stop)
        link = self.make_link(server.url)
        store = RedisStore(Scripts(link, self.prefix), LIMITS, lambda: NOW_MS, lambda: "epoch", soon)
        bus, ear = await self.following("n", "news", url=server.url, link=link, echo_interval=0.05)
        # to Redis this is a connection that nothing is published on, and to us it is still there
        subscriber = bus._subscriber
        assert subscriber is not None
        subscriber.unsubscribe([bus._own, b"{" + self.prefix.encode() + b"}:wake:news"])
        await self.until(lambda: ear.times_back == 2)
        await self.until(lambda: ear.seen_tops)
        await store.append(self.draft("news"))
        await self.until(lambda: ear.appended)

    async def test_logs_are_looked_at_when_the_store_has_a_new_connection_and_the_bus_has_kept_its_own(self) -> None:
        bus, ear = await self.following("n", "news")
        bus.watch("m", True)
        await self.until(lambda: ear.changes)
        subscriber = bus._subscriber
        assert subscriber is not None
        subscriber.unsubscribe([b"{" + self.prefix.encode() + b"}:wake:news"])  # as Redis that was a replica for a moment
        await self.store.append(self.draft("news"))
        assert (ear.seen_tops, ear.appended) == ([], [])
        bus.look_again()
        await self.until(lambda: ear.seen_tops)
        assert (ear.seen_tops, ear.changes, ear.times_back) == ([("news", 1)], ["m", "m"], 2)
        assert bus._subscriber is subscriber

    async def test_a_connection_is_not_given_up_for_what_redis_has_not_taken(self) -> None:
        frozen = RedisServer().start()
        self.addCleanup(frozen.stop)
        link = self.make_link(frozen.url, timeout=100)
        await link.command("PING")
        bus, ear = self.bus("n", link=link, echo_interval=0.01)
        await self.until(lambda: ear.times_back)
        frozen.freeze()
        await deferLater(reactor, 0.3)  # type: ignore[arg-type]  # thirty echoes are under way
        frozen.thaw()
        assert (ear.times_back, bus.reason(0.0)) == (1, "")

    async def test_a_node_that_may_not_hear_says_what_redis_says_and_asks_ever_more_seldom(self) -> None:
        server = RedisServer("user default on nopass ~* +@all resetchannels").start()
        self.addCleanup(server.stop)
        with capturedLogs() as events:
            bus, _ = self.bus("n", url=server.url)
            await self.until(lambda: "NOPERM" in bus.reason(0.0))
            await self.until(lambda: bus._tries >= 3)
        assert "refuses SUBSCRIBE" in bus.reason(0.0)
        assert len([event for event in events if "not heard" in formatEvent(event)]) == 1

    async def test_without_redis_nothing_is_heard_and_it_says_so(self) -> None:
        server = RedisServer().start()
        self.addCleanup(server.stop)
        link = self.make_link(server.url, wait=0)
        bus, ear = await self.following("n", url=server.url, link=link)
        await self.until(lambda: ear.times_back)
        server.kill()
        await self.until(lambda: bus.reason(reactor.seconds()))  # type: ignore[attr-defined]
        bus.tell("n", Order(OrderKind.CLOSE, "d"))  # is lost, and does no harm
        server.start()
        await self.until(lambda: ear.times_back == 2)
        assert ear.orders == []

    async def test_logs_that_cannot_be_looked_at_now_are_later_and_the_connection_stays(self) -> None:
        bus, ear = self.bus("n")
        tries: list[str] = []

        class Away(Scripts):
            async def run(self, name: str, *arguments: Any) -> Any:
                tries.append(name)
                raise StoreUnavailable("away")

        bus._scripts = Away(self.link, self.prefix)
        await self.fill(self.store, 2)
        bus.interest("news", True)
        await self.until(lambda: tries)
        bus._scripts = Scripts(self.link, self.prefix)
        await self.until(lambda: ear.seen_tops)
        assert (tries, ear.seen_tops, ear.times_back) == (["tops"], [("news", 2)], 1)

    async def test_what_cannot_be_read_is_logged_and_the_next_one_heard(self) -> None:
        bus, ear = await self.following("n", "news")
        await self.link.command("PUBLISH", f"{{{self.prefix}}}:wake:news", b"\xc1")
        await self.store.append(self.draft("news"))
        await self.until(lambda: ear.appended)
        assert len(self.flushLoggedErrors()) == 1
        assert bus.shared
