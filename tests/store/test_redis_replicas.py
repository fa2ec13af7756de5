"""What is REPLICATED is on replicas when it is answered: on a master and a replica, which is stopped and goes on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.errors import StoreUnavailable
from streampush.protocol.terms import Durability
from streampush.push.values import Accepted, Draft, Idempotency
from streampush.store.redis.replication import Replication
from streampush.store.redis.scripts import Scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer
from tests.store.blocking_redis import BlockingRedis
from tests.store.contract_base import LIMITS, ContractBase
from tests.store.redis_world import RedisTestCase, soon

PATIENT = 20.0
"""Seconds in which a replica that works has confirmed, however busy the machine is."""

HASTY = 0.2
"""Seconds that a test waits for one that does not."""


class ReplicaTests(RedisTestCase, ContractBase):
    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        super().setUp()
        self.master = RedisServer("repl-diskless-sync-delay 0").start()
        self.addCleanup(self.master.stop)
        self.replica = RedisServer(f"replicaof 127.0.0.1 {self.master.port}").start()
        self.addCleanup(self.replica.stop)
        self.link = self.make_link(self.master.url)

    def make_store(self, limits: StoreConfig = LIMITS, replicas: int = 1, timeout: float = HASTY) -> RedisStore:
        link: Any = self.make_link(self.master.url)
        scripts = Scripts(self.link, "replicas")
        replication = Replication(link, replicas=replicas, timeout=timeout)
        return RedisStore(scripts, limits, lambda: self.now_ms, lambda: "epoch", soon, replication=replication)

    async def ready(self) -> None:
        """The replica follows its master."""
        await self.link.command("SET", "x", "y")
        assert await self.link.command("WAIT", 1, 20_000) == 1

    def stop_replica(self) -> None:
        self.replica.freeze()
        self.addCleanup(self.replica.thaw)

    def keyed(self) -> Draft:
        return self.draft(message_id="m", idempotency=Idempotency("p", "key", b"f", self.now_ms + 60_000))

    async def unconfirmed(self, work: Any) -> str:
        """It is refused because replicas did not confirm it; gives what is said."""
        try:
            await work
        except StoreUnavailable as refused:
            assert refused.detail.startswith("stored, but ")
            return refused.detail
        raise AssertionError("not refused")

    async def calls_of_wait(self) -> int:
        stats = (await self.link.command("INFO", "commandstats")).decode()
        return int(stats.partition("cmdstat_wait:calls=")[2].partition(",")[0] or 0)

    # ------------------------------------------------------------------------------------------------------------- tests

    async def test_an_append_is_answered_when_a_replica_has_it(self) -> None:
        await self.ready()
        store = self.make_store(timeout=PATIENT)
        answer = await store.append(self.draft(message_id="m"))
        assert answer.durability is store.durability is Durability.REPLICATED
        assert answer.appended is not None
        assert answer.appended.durability is Durability.REPLICATED
        self.master.kill()
        copy = BlockingRedis(self.replica.port)
        self.addCleanup(copy.close)
        assert await copy.command("HLEN", "{replicas}:ent:news") == 1

    async def test_more_replicas_than_there_are_confirm_nothing(self) -> None:
        await self.ready()
        store = self.make_store(replicas=2)
        said = await self.unconfirmed(store.append(self.draft()))
        assert re.match("stored, but [01] of 2 replicas confirmed it in 0.2 s", said)  # the one that there is may be slow

    async def test_an_append_that_no_replica_confirms_fails_and_is_in_the_log(self) -> None:
        await self.ready()
        store = self.make_store()
        self.stop_replica()
        assert "0 of 1 replicas" in await self.unconfirmed(store.append(self.draft()))
        assert (await store.head("news")).top_offset == 1

    async def test_a_repeat_by_its_key_waits_again_also_on_another_node(self) -> None:
        await self.ready()
        first = self.make_store()
        self.stop_replica()
        await self.unconfirmed(first.append(self.keyed()))
        second = self.make_store()  # its connection has written nothing that WAIT could wait for
        await self.unconfirmed(second.append(self.keyed()))
        await self.unconfirmed(second.first_answer(self.keyed().idempotency))  # type: ignore[arg-type]  # it has one
        self.replica.thaw()
        await self.ready()
        answer = await self.make_store(timeout=PATIENT).append(self.keyed())
        assert (answer.duplicate, answer.offset, answer.durability) == (True, 1, Durability.REPLICATED)
        assert (await second.head("news")).top_offset == 1

    async def test_what_stores_nothing_writes_something_that_can_be_waited_for(self) -> None:
        """Some versions of Redis would wait behind any command; what WAIT promises is about what its connection wrote."""
        await self.ready()
        store = self.make_store(timeout=PATIENT)
        draft = replace(self.keyed(), version=2)
        assert draft.idempotency is not None
        await store.append(draft)
        await store.recall("m", "notice", self.now_ms)
        for work in (
            lambda: store.append(draft),
            lambda: store.first_answer(draft.idempotency),  # type: ignore[arg-type]  # it has one
            lambda: store.append(self.draft(version=1)),
            lambda: store.recall("m", "again", self.now_ms),
        ):
            before = await self.written()
            await work()
            assert await self.written() > before

    async def written(self) -> int:
        """How often something was written for nothing else."""
        return int(await self.link.command("HGET", "{replicas}:totals", "awaited"))

    async def test_a_version_that_was_overtaken_is_told_when_the_newer_one_is_on_a_replica(self) -> None:
        await self.ready()
        await self.make_store(timeout=PATIENT).append(self.draft(version=2))
        self.stop_replica()
        await self.unconfirmed(self.make_store().append(self.draft(version=1)))

    async def test_a_recall_that_no_replica_confirms_fails_and_so_does_its_repeat(self) -> None:
        await self.ready()
        await self.fill(self.make_store(timeout=PATIENT), 1)
        store = self.make_store()
        self.stop_replica()
        await self.unconfirmed(store.recall("m1", "notice", self.now_ms))
        await self.unconfirmed(self.make_store().recall("m1", "again", self.now_ms))
        assert await self.readable(store) == ["notice"]

    async def test_what_is_due_is_appended_although_no_replica_confirms_it_and_says_so(self) -> None:
        await self.ready()
        await self.make_store(timeout=PATIENT).append(self.draft(deliver_at_ms=self.now_ms + 1))
        store = self.make_store()
        self.stop_replica()
        (appended,) = await store.fire_due(self.now_ms + 1, 10)
        assert appended.durability is Durability.MEMORY

    async def test_appends_of_one_turn_wait_together(self) -> None:
        await self.ready()
        store = self.make_store(timeout=PATIENT)
        before = await self.calls_of_wait()
        answers: list[Accepted] = await gatherResults([Deferred.fromCoroutine(store.append(self.draft())) for _ in range(100)])
        assert [answer.offset for answer in answers] == list(range(1, 101))
        assert await self.calls_of_wait() - before <= 10

    async def test_reads_do_not_wait_behind_an_append_that_waits(self) -> None:
        await self.ready()
        store = self.make_store(timeout=PATIENT)
        self.stop_replica()
        order: list[str] = []
        appending = Deferred.fromCoroutine(store.append(self.draft()))
        appending.addBoth(lambda answer: order.append("append"))
        while not (await store.read("news", 0, 10, 1000)).publications:
            assert not order
        order.append("read")
        self.replica.thaw()
        await appending
        assert order == ["read", "append"]


class _Link:
    """A connection to Redis whose answers come when the test says so."""

    def __init__(self) -> None:
        self.made = 1
        self.asked: list[tuple[tuple[bytes | str | int, ...], Deferred[Any]]] = []

    def command(self, *parts: bytes | str | int) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((parts, answer))
        return answer


class ConfirmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.link = _Link()
        self.replication = Replication(self.link, replicas=2, timeout=1.5)

    def confirm(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.replication.confirm())

    def test_it_asks_for_as_many_and_so_long_as_it_is_told(self) -> None:
        self.confirm()
        assert [parts for parts, _ in self.link.asked] == [("WAIT", 2, 1500)]

    def test_who_comes_while_one_asks_is_answered_with_it_and_who_comes_later_asks_again(self) -> None:
        confirmed = [self.confirm(), self.confirm()]
        self.link.asked[0][1].callback(2)
        assert [self.successResultOf(one) for one in confirmed] == [None, None]
        self.confirm()
        assert len(self.link.asked) == 2

    def test_an_answer_over_another_connection_confirms_nothing(self) -> None:
        confirmed = self.confirm()
        self.link.made += 1
        self.link.asked[0][1].callback(2)
        assert "connection" in str(self.failureResultOf(confirmed, StoreUnavailable).value)

    def test_a_connection_that_ends_fails_all_who_wait_and_the_next_ask_anew(self) -> None:
        confirmed = [self.confirm(), self.confirm()]
        self.link.asked[0][1].errback(Failure(StoreUnavailable("the connection to Redis was lost")))
        for one in confirmed:
            self.failureResultOf(one, StoreUnavailable)
        again = self.confirm()
        self.link.asked[1][1].callback(3)
        assert self.successResultOf(again) is None

    def test_an_error_of_redis_confirms_nothing(self) -> None:
        confirmed = self.confirm()
        self.link.asked[0][1].callback(ValueError("ERR WAIT cannot be used with replica instances"))
        self.failureResultOf(confirmed, StoreUnavailable)
