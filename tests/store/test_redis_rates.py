"""Rates that nodes share over a real Redis: two nodes together keep to what one may."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from streampush.errors import StoreUnavailable
from streampush.push.shared_rates import SharedRate
from streampush.store.redis.rates import RedisRates
from streampush.store.redis.scripts import Scripts
from tests.redis_server import RedisServer
from tests.store.redis_world import RedisTestCase


class RateTests(RedisTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.scripts = Scripts(self.link, self.new_prefix())

    async def node(self, ahead_ms: int = 0) -> RedisRates:
        """Those of a node whose clock is so far ahead; it is connected."""
        await self.link.command("PING")
        return RedisRates(self.link, self.scripts, lambda: self.now_ms + ahead_ms)

    async def test_a_bucket_gives_what_it_has_and_says_when_there_is_more(self) -> None:
        rates = await self.node()
        assert await rates.take_tokens("p", 4, 2.0, 10) == (4, 0.0)
        assert await rates.take_tokens("p", 4, 2.0, 10) == (4, 0.0)
        assert await rates.take_tokens("p", 4, 2.0, 10) == (2, 0.5)
        assert await rates.take_tokens("p", 4, 2.0, 10) == (0, 0.5)
        self.now_ms += 1250
        assert await rates.take_tokens("p", 4, 2.0, 10) == (2, 0.25)
        assert await rates.take_tokens("other", 4, 2.0, 10) == (4, 0.0)

    async def test_who_looks_at_a_bucket_takes_nothing(self) -> None:
        rates = await self.node()
        assert await rates.look_at_tokens("p", 2.0, 10) == 10.0
        assert await self.keys_left(self.scripts.prefix) == set()
        await rates.take_tokens("p", 9, 2.0, 10)
        self.now_ms += 250
        for _ in range(2):
            assert await rates.look_at_tokens("p", 2.0, 10) == 1.5
        self.now_ms += 1_000_000
        assert await rates.look_at_tokens("p", 2.0, 10) == 10.0

    async def test_no_more_is_saved_up_than_may_be(self) -> None:
        rates = await self.node()
        await rates.take_tokens("p", 10, 2.0, 10)
        self.now_ms += 1_000_000
        assert await rates.take_tokens("p", 100, 2.0, 10) == (10, 0.5)
        assert await rates.take_tokens("q", 1, 0.1, 1) == (1, 0.0)
        assert await rates.take_tokens("q", 1, 0.1, 1) == (0, 10.0)

    async def test_the_limits_of_the_settings_are_no_trouble(self) -> None:
        rates = await self.node()
        assert await rates.take_tokens("slow", 1, 0.1, 10_000_000) == (1, 0.0)
        assert await rates.take_tokens("fast", 1_000_000, 1e7, 10_000_000) == (1_000_000, 0.0)
        assert await rates.take_tokens("{:\x00é}", 1, 1e7, 1) == (1, 0.0)

    async def test_a_bucket_that_is_full_again_is_forgotten(self) -> None:
        rates = await self.node()
        await rates.take_tokens("p", 5, 100.0, 10)
        (left,) = await self.keys_left(self.scripts.prefix)
        assert left == "rate:p"
        expires = await self.link.command("PTTL", self.scripts.prefix + left)
        assert 100 <= expires <= 100 + 10_000

    async def test_clocks_that_differ_give_no_more_tokens_than_the_fastest(self) -> None:
        nodes = await self.node(3_000), await self.node()
        taken = 0
        for _ in range(40):
            for node in nodes:
                taken += (await node.take_tokens("p", 1, 1.0, 10))[0]
            self.now_ms += 100
        assert taken == 10 + 3  # the tokens that were saved up, and those of 3.9 s

    async def test_a_clock_that_is_set_back_stops_nobody(self) -> None:
        rates, ahead = await self.node(), await self.node(3_600_000)
        await ahead.take_tokens("p", 10, 1.0, 10)
        assert (await rates.take_tokens("p", 1, 1.0, 10))[0] == 0
        self.now_ms += 1_000
        assert (await rates.take_tokens("p", 2, 1.0, 10))[0] == 1

    async def test_two_nodes_together_keep_to_the_rate_and_use_it(self) -> None:
        rate, burst = 200.0, 50
        nodes = [SharedRate(await self.node(), rate, burst, clock=lambda: self.now_ms / 1000, spawn=self.spawn) for _ in range(2)]
        begun_ms, passed, random = self.now_ms, [0, 0], Random(7)
        for _ in range(300):
            number = random.randrange(2)
            asked = [Deferred.fromCoroutine(nodes[number].take("p")) for _ in range(random.randrange(12))]
            passed[number] += (await gatherResults(asked)).count(0.0)
            allowed = burst + rate * (self.now_ms - begun_ms) / 1000
            assert sum(passed) <= allowed, (passed, allowed)
            self.now_ms += random.randrange(20)
        assert min(passed) > 0
        assert sum(passed) > 0.8 * allowed

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work)


class AwayTests(RedisTestCase):
    async def test_without_redis_nobody_waits(self) -> None:
        server = RedisServer()
        link = self.make_link(f"redis://127.0.0.1:{server.port}", wait=60)
        rates = RedisRates(link, Scripts(link, "p"), lambda: self.now_ms)
        with TestCase.assertRaises(self, StoreUnavailable):
            await rates.take_tokens("p", 1, 1.0, 1)
