"""Real sentinels promote a replica: the node finds the new master by itself, and nobody is cut."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from streampush.protocol import messages as m
from streampush.protocol.terms import LossReason
from tests.integration.harness import WireClient, run
from tests.integration.redis_nodes import RedisNodesCase
from tests.redis_server import START_TIMEOUT, RedisSentinel, RedisServer

CHANNEL = "device:phone-1"


class SentinelTests(RedisNodesCase):
    timeout = 90  # three processes find each other by what they publish every two seconds, and then vote

    def redis(self) -> RedisServer:
        self.master = RedisServer().start()
        self.replica = RedisServer(f"replicaof 127.0.0.1 {self.master.port}", "repl-diskless-sync-delay 0").start()
        self.sentinels = [RedisSentinel(self.master, quorum=2) for _ in range(3)]
        for sentinel in self.sentinels:
            sentinel.start()
        return self.master

    async def stop(self) -> None:
        await super().stop()  # trial's own cleanups come before that, and a node that stops needs its Redis
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()

    def shared(self, name: str) -> tuple[str, ...]:
        where = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return (*super().shared(name), f"store.url=redis+sentinel://{where}/main")

    async def eventually(self, met: Any) -> None:
        until = time.monotonic() + START_TIMEOUT
        while not met():
            assert time.monotonic() < until
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]  # a module stands for the reactor

    async def publish(self, backend: WireClient, payload: bytes) -> m.PublishOk:
        backend.send(m.Publish(CHANNEL, payload), 7)
        return await backend.expect(m.PublishOk)

    async def next_on_channel(self, phone: WireClient) -> m.Message:
        """What comes next for the channel; other channels are told of the failover as well."""
        while True:
            _, message = await phone.next()
            if getattr(message, "channel", "") == CHANNEL:
                return message

    @run
    async def test_a_node_goes_on_at_the_replica_that_sentinels_promote(self) -> None:
        await self.eventually(lambda: all(sentinel.knows() == (1, 2) for sentinel in self.sentinels))
        phone, backend = await self.device(), await self.publisher()
        before = await self.publish(backend, b"1")
        first = await phone.expect(m.Delivery)
        await self.eventually(lambda: self.replica.say("HGET", f"{{{self.prefix}}}:log:{CHANNEL}", "top") == b"1")
        self.sentinels[0].kill()  # the one that was asked first: the next one is
        self.master.kill()
        after = await self.publish(backend, b"2")
        assert (after.offset, after.epoch != before.epoch) == (2, True)
        assert self.replica.say("ROLE")[0] == b"master"
        told = await self.next_on_channel(phone)
        assert isinstance(told, m.Subscribed)
        assert (told.recovered, told.loss, told.epoch) == (True, LossReason.UNSPECIFIED, after.epoch)
        second = await self.next_on_channel(phone)
        assert isinstance(second, m.Delivery)
        assert (first.payload, second.payload) == (b"1", b"2")
        assert (phone.lost, backend.lost) == (None, None)
        assert self.metric("streampush_redis_failovers_total") == 1
