"""A store in Redis for tests: a link that is there for one test, and stores with keys of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import count
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from streampush.config import StoreConfig
from streampush.redis_url import parse_url
from streampush.store.redis import RedisLink, Scripts
from streampush.store.redis.connecting import Connector
from streampush.store.redis.link import no_metrics
from streampush.store.redis.scripts import load_scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import NOT_HERE, PROGRAM, shared_server
from tests.store.contract import NOW_MS

_NUMBERS = count(1)
_SCRIPTS = load_scripts()


def soon(call: Callable[[], None]) -> object:
    """Calls it when the turn is over, as a node does."""
    return reactor.callLater(0, call)


class RedisTestCase(TestCase):
    """Makes stores in one Redis, each of which is empty; `same_store` gives another node's."""

    now_ms = NOW_MS

    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        self.link = self.make_link(shared_server().url)
        self._epochs = count(1)

    def make_link(self, url: str, *, wait: float = 10.0, timeout: float = 10.0) -> RedisLink:
        link = RedisLink(reactor, Connector(reactor, parse_url(url)), no_metrics(), random.random, wait=wait, timeout=timeout)
        link.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(link.stop()))
        return link

    def make_store(self, limits: StoreConfig) -> RedisStore:
        return self.same_store(limits, self.new_prefix())

    def new_prefix(self) -> str:
        """One that nobody has."""
        return f"test-{os.getpid()}-{next(_NUMBERS)}"

    async def keys_left(self, prefix: str) -> set[str]:
        """The names of all keys that begin so, without that; `prefix` is that of the scripts."""
        return {key.decode().removeprefix(prefix) for key in await self.link.command("KEYS", f"{prefix}*")}

    def same_store(self, limits: StoreConfig, prefix: str) -> RedisStore:
        """Another store with the same keys, as another node has it."""
        scripts = Scripts(self.link, prefix, _SCRIPTS)
        return RedisStore(scripts, limits, lambda: self.now_ms, lambda: f"epoch-{next(self._epochs)}", soon)
