"""What a Redis that has no memory left, or is killed, leaves of the logs: whole steps, and nothing half."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from unittest import SkipTest

from twisted.internet.defer import Deferred, gatherResults

from streampush.config import StoreConfig
from streampush.errors import StoreUnavailable
from streampush.push.values import Accepted, CursorMove, Idempotency, Want
from streampush.store.redis.scripts import Scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer
from tests.store.blocking_redis import BlockingRedis
from tests.store.contract_base import LIMITS, ContractBase
from tests.store.redis_order import Look
from tests.store.redis_world import RedisTestCase, soon


class FaultTests(RedisTestCase, ContractBase):
    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        super().setUp()

    def serve(self, *options: str) -> RedisServer:
        server = RedisServer(*options).start()
        self.addCleanup(server.stop)
        return server

    def store_on(self, server: RedisServer, limits: StoreConfig = LIMITS) -> RedisStore:
        self.link = self.make_link(server.url, wait=5.0)
        return RedisStore(Scripts(self.link, "faults"), limits, lambda: self.now_ms, lambda: "epoch", soon)

    def disorder(self, server: RedisServer) -> list[str]:
        redis = BlockingRedis(server.port)
        try:
            return Look(lambda *parts: redis.command(*parts).result, "{faults}:").disorder()
        finally:
            redis.close()

    async def test_without_memory_publications_are_refused_whole_until_what_expired_is_freed(self) -> None:
        server = self.serve("maxmemory 12mb", "maxmemory-policy noeviction")
        store = self.store_on(server, replace(LIMITS, history_bytes=1 << 30))
        stored = 0
        try:
            while stored < 1000:
                draft = self.draft(payload=os.urandom(50_000), ttl_ms=1000, collapse_key=f"{stored}", fallback=b"alert")
                await store.append(draft)
                stored += 1
        except StoreUnavailable as refused:
            assert "no memory" in refused.detail
        assert 10 < stored < 1000
        assert (await store.head("news")).top_offset == stored
        assert (await store.status()).outbox == stored
        assert self.disorder(server) == []
        self.now_ms += 1000
        while await store.sweep():
            pass
        assert self.disorder(server) == []
        assert (await store.append(self.draft(payload=os.urandom(50_000)))).offset == stored + 1

    async def test_what_redis_has_thrown_away_is_lost_and_the_rest_goes_on(self) -> None:
        """As Redis does with a policy of `allkeys-...`, which is warned of: any of the keys may be gone."""
        server = self.serve()
        for gone in ("idem:s", "ent:news", "pay:news", "msg", "log:news", "exp", "ttl:news", "age", "col:news", "idemorder:s"):
            store = self.store_on(server, replace(LIMITS, history_messages=10))
            await self.link.command("FLUSHALL")
            for number in range(10):
                key = Idempotency("s", f"k{number}", b"f", self.now_ms + 1000)
                await store.append(self.draft(ttl_ms=1000, collapse_key=f"{number}", idempotency=key))
            assert await self.link.command("DEL", f"{{faults}}:{gone}") == 1, gone
            top = (await store.append(self.draft(collapse_key="5"))).offset
            (survey,) = await store.survey("d", [Want("news", (5,))])
            assert (survey.spots[5].message_id is None) == (gone in ("ent:news", "log:news"))
            page = await store.read("news", 0, 100, 1 << 20)
            assert {publication.payload for publication in page.publications} == {b"payload"}
            assert len(page.publications) + page.expired >= (1 if gone in ("ent:news", "log:news") else 8)
            await store.record([CursorMove("d", "news", page.head.epoch, top, top, at_ms=self.now_ms)])
            self.now_ms += 2000
            while await store.sweep():
                pass
            assert (await store.status()).keys == 0
            assert (await store.append(self.draft(collapse_key="6"))).offset == top + 1

    async def test_what_was_answered_is_there_when_redis_was_killed_and_came_back(self) -> None:
        server = self.serve("appendonly yes", "appendfsync always")
        store = self.store_on(server, replace(LIMITS, history_messages=150))
        answered: list[Accepted] = []

        async def publish(first: int) -> None:
            with contextlib.suppress(StoreUnavailable):
                for number in range(first, 1000, 20):
                    key = Idempotency("p", f"{number}", b"f", self.now_ms + 60_000)
                    draft = self.draft(message_id=f"m{number}", ttl_ms=60_000, collapse_key=f"{number % 50}", idempotency=key)
                    answered.append(await store.append(draft))
                    if len(answered) == 300:
                        server.kill()

        await gatherResults([Deferred.fromCoroutine(publish(first)) for first in range(20)])
        assert 300 <= len(answered) < 1000
        server.start()
        store = self.store_on(server, replace(LIMITS, history_messages=150))
        head = await store.head("news")
        assert head.top_offset >= max(one.offset for one in answered)
        assert self.disorder(server) == []
        for one in answered:
            first = await store.first_answer(Idempotency("p", one.message_id[1:], b"f", self.now_ms + 60_000))
            assert first is not None
            assert (first.message_id, first.offset) == (one.message_id, one.offset)
