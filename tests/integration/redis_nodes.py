"""Whole nodes in this process that share a Redis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList

from streampush.loading import load_config
from streampush.node_service import StreampushService
from tests.integration.harness import NodeTestCase
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer, shared_server

_NUMBERS = count(1)


class RedisNodesCase(NodeTestCase):
    """A node named one; `another` starts more. Their Redis is the one that all tests share, if `redis` does not say otherwise."""

    def redis(self) -> RedisServer:
        return shared_server()

    def setUp(self) -> Deferred[None]:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        self.server = self.redis()
        self.prefix = f"nodes-{os.getpid()}-{next(_NUMBERS)}"
        self.others: list[StreampushService] = []
        self.settings = self.shared("one")
        return super().setUp()

    def shared(self, name: str) -> tuple[str, ...]:
        wait = "store.publish_timeout=30"  # a node takes connections before it has found its Redis
        return (f"node.name={name}", "store.backend=redis", f"store.url={self.server.url}", f"store.prefix={self.prefix}", wait)

    def another(self, name: str, *settings: str) -> StreampushService:
        node = StreampushService(reactor, load_config(str(self.toml), {}, (*self.shared(name), *settings)))
        node.startService()
        self.others.append(node)
        return node

    @contextmanager
    def on(self, node: StreampushService) -> Iterator[None]:
        """Clients that connect inside connect to this node."""
        first, self.node = self.node, node
        try:
            yield
        finally:
            self.node = first

    async def stop(self) -> None:
        for client in self.clients:
            if client.lost is None:
                client.cut()
        await DeferredList([client.closed for client in self.clients])
        while self.others:
            await self.others.pop().stopService()
        await super().stop()


class OwnRedisCase(RedisNodesCase):
    """The node has a Redis of its own, with `options`, to which the test may do harm."""

    options: tuple[str, ...] = ()

    def redis(self) -> RedisServer:
        return RedisServer(*self.options).start()

    async def stop(self) -> None:
        await super().stop()  # trial's own cleanups come before that, and a node that stops waits for a Redis that is away
        self.server.stop()
