"""Presence in Redis, by the stores of two nodes, and in the memory of one process are told the same, and must answer alike: random
operations, seeded."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from streampush.protocol.codes import Advice
from streampush.push.store_ports import Store
from streampush.push.values import Close, Session
from streampush.store.memory import MemoryStore
from tests.store.contract import LIMITS
from tests.store.redis_world import RedisTestCase

SEEDS = 8
OPERATIONS = 80

DEVICES = ("d", "d1", "d:1", "é")
USERS = ("", "u", "u1")
NODES = ("n", "n1", "1:n")
CHANNELS = ("news", "new", "device:d", "é")
LOST = Close(2001, Advice.RECONNECT, "lost", 7)


class PresenceAlikeTests(RedisTestCase):
    async def test_nodes_and_one_process_answer_alike(self) -> None:
        for seed in range(SEEDS):
            self.now_ms = 1_000_000
            self.random = Random(seed)
            self.memory = MemoryStore(LIMITS, lambda: self.now_ms, lambda: "epoch")
            prefix = self.new_prefix()
            self.nodes = [self.same_store(LIMITS, prefix) for _ in range(2)]
            self.sessions: list[tuple[str, int, int]] = [("none", 1, 1)]  # device, generation in memory, in Redis
            for _ in range(OPERATIONS):
                await self.random.choice((self.begin, self.begin, self.end, self.follow, self.follow, self.node, self.later))()
                await self.look(seed)
            await self.leave_nothing(f"{{{prefix}}}:")

    def store(self) -> Store:
        """Any node's."""
        return self.random.choice(self.nodes)

    async def both(self, name: str, *arguments: Any) -> tuple[Any, Any]:
        return await getattr(self.memory, name)(*arguments), await getattr(self.store(), name)(*arguments)

    async def begin(self) -> None:
        choice = self.random.choice
        session = Session(
            choice(DEVICES), f"s{len(self.sessions)}", choice(NODES), choice(USERS), "192.0.2.1", "app", "1", self.now_ms
        )
        self.sessions.append((session.device_id, *await self.both("begin_session", session)))

    async def end(self) -> None:
        device_id, *generations = self.random.choice(self.sessions[-4:])
        expected, found = [
            await store.end_session(device_id, generation, LOST)
            for store, generation in zip((self.memory, self.store()), generations, strict=True)
        ]
        assert found == expected

    async def follow(self) -> None:
        device_id, *generations = self.random.choice(self.sessions[-6:])
        channels = self.random.choices(CHANNELS, k=self.random.randrange(4))
        follows = self.random.random() < 0.7
        for store, generation in zip((self.memory, self.store()), generations, strict=True):
            await store.session_follows(device_id, generation, channels, follows=follows)

    async def node(self) -> None:
        node = self.random.choice(NODES)
        if self.random.random() < 0.3:
            await self.both("forget_run", node)
        else:
            await self.both("extend_run", node, self.now_ms + self.random.choice((0, 10, 3000)))

    async def later(self) -> None:
        self.now_ms += self.random.choice((1, 10, 2000))

    async def look(self, seed: int) -> None:
        """Everything that can be asked."""
        asked: list[tuple[Any, ...]] = [
            *[("session", device_id) for device_id in DEVICES],
            *[("user_sessions", user_id, limit) for user_id in USERS for limit in (1, 9)],
            *[("channel_presence", channel, limit) for channel in CHANNELS for limit in (0, 2, 9)],
        ]
        answers = await gatherResults([Deferred.fromCoroutine(self.both(*one)) for one in asked])
        for one, (expected, found) in zip(asked, answers, strict=True):
            if isinstance(expected, tuple):
                expected, found = list(expected), list(found)
            assert found == expected, (seed, one)
        known = [(device_id, generation) for device_id, generation, _ in self.sessions]
        theirs = [(device_id, generation) for device_id, _, generation in self.sessions]
        newer = await self.memory.newer_sessions(known), await self.store().newer_sessions(theirs)
        in_redis = {(device_id, ours): generation for device_id, ours, generation in self.sessions}
        assert [(device_id, in_redis.get((device_id, ours), 0)) for device_id, ours in newer[0]] == newer[1], seed

    async def leave_nothing(self, prefix: str) -> None:
        for node in NODES:
            await self.store().forget_run(node)
        assert await self.keys_left(prefix) == {"totals"}
