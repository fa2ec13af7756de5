"""The store in Redis from the start of a process to its end: what it asks of its Redis, and what it says of it."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from streampush.config import Config, StoreConfig
from streampush.errors import ConfigError
from streampush.observe.bus_figures import BusFigures
from streampush.observe.store_figures import StoreFigures
from streampush.protocol.terms import Durability
from streampush.push.values import DeviceRecord
from streampush.store.redis.keeping import RedisKeeping
from streampush.store.redis.scripts import LAYOUT
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer, shared_server
from tests.store.contract_base import NOW_MS, ContractBase
from tests.store.folders import quick_folder
from tests.store.test_redis_bus import Ear
from tests.support import authority, make_files

_NUMBERS = count(1)


class KeepingTests(TestCase, ContractBase):
    timeout = 120

    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        self.registry = CollectorRegistry()
        self.now_ms = NOW_MS

    def server(self, *options: str) -> RedisServer:
        server = RedisServer(*options)
        self.addCleanup(server.stop)
        return server.start()

    def keeping(self, url: str, **settings: Any) -> RedisKeeping:
        self.prefix = settings.pop("prefix", f"keeping-{os.getpid()}-{next(_NUMBERS)}")
        store = StoreConfig(backend="redis", url=url, prefix=self.prefix, **settings)
        config = Config(file="streampush.toml", store=store)
        figures = StoreFigures(self.registry), BusFigures(self.registry)
        keeping = RedisKeeping(reactor, config, lambda: self.now_ms, lambda: "epoch", *figures, "node")
        self.addCleanup(lambda: Deferred.fromCoroutine(keeping.stop()))
        return keeping

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.002)  # type: ignore[arg-type]  # a module stands for the reactor

    async def test_it_works_when_it_is_connected_and_shows_that(self) -> None:
        keeping = self.keeping(shared_server().url)
        assert self.value("streampush_store_works") == 0
        keeping.start()
        await self.until(lambda: self.value("streampush_store_works"))
        assert self.value("streampush_redis_connections_total") == 1
        await keeping.store.remember_device(DeviceRecord("d"))
        assert await keeping.store.device("d") == DeviceRecord("d")
        assert keeping.store.durability is Durability.MEMORY

    async def test_the_store_shows_how_much_it_holds(self) -> None:
        keeping = self.keeping(shared_server().url, publish_timeout=10)
        keeping.start()
        await keeping.store.append(self.draft("news"))
        await self.until(lambda: self.value("streampush_store_held", what="publications") == 1)

    async def test_what_a_newer_version_has_laid_out_is_left_alone(self) -> None:
        first = self.keeping(shared_server().url, publish_timeout=10)
        first.start()
        await first.store.append(self.draft("news"))
        assert await first.link.command("HINCRBY", f"{{{self.prefix}}}:totals", "layout", 1) == LAYOUT + 1
        self.registry = CollectorRegistry()  # the other is the first one's
        second = self.keeping(shared_server().url, prefix=self.prefix)
        second.start()
        await self.until(lambda: "newer streampush" in second.reason(0.0))

    async def test_without_a_redis_it_starts_and_says_why_it_does_not_work(self) -> None:
        keeping = self.keeping("redis://127.0.0.1:1")
        keeping.start()
        await self.until(lambda: "refused" in keeping.reason(0.0))
        assert self.value("streampush_store_faults_total", kind="connection") >= 1

    async def test_an_answer_is_worth_a_disk_only_if_redis_syncs_each_write(self) -> None:
        for options, durability in (
            (("appendonly yes", "appendfsync always"), Durability.LOCAL_FSYNC),
            (("appendonly yes", "appendfsync everysec"), Durability.MEMORY),
            (("appendonly yes", "appendfsync always", "no-appendfsync-on-rewrite yes"), Durability.MEMORY),
        ):
            self.registry = CollectorRegistry()
            keeping = self.keeping(self.server(*options).url)
            keeping.start()
            await self.until(lambda: keeping.link.connected)  # noqa: B023 - it is awaited here
            assert keeping.store.durability is durability

    async def test_a_redis_that_throws_keys_away_is_warned_of_once(self) -> None:
        server = self.server("maxmemory-policy allkeys-lru")
        with capturedLogs() as events:
            keeping = self.keeping(server.url)
            keeping.start()
            await self.until(lambda: keeping.link.connected)
            keeping.link.drop("the test says so")
            await self.until(lambda: self.value("streampush_redis_connections_total") == 2)
        assert len([event for event in events if "noeviction" in formatEvent(event)]) == 1

    async def test_that_keys_may_be_thrown_away_is_noticed_while_it_runs_and_those_that_expire_are_none_of_ours(self) -> None:
        server = self.server("maxmemory-policy volatile-lru")
        with capturedLogs() as events:
            keeping = self.keeping(server.url, publish_timeout=10)
            keeping.start()
            await keeping._look()
            assert [event for event in events if "noeviction" in formatEvent(event)] == []
            server.say("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
            await keeping._look()
        assert len([event for event in events if "allkeys-random" in formatEvent(event)]) == 1

    async def test_a_clock_that_is_far_from_that_of_redis_is_told_once_and_does_not_age_what_others_keep(self) -> None:
        good = self.keeping(shared_server().url, publish_timeout=10, history_age=3600.0)
        prefix = self.prefix
        self.now_ms = int(time.time() * 1000)
        good.start()
        for _ in range(3):
            await good.store.append(self.draft("news"))
        await self.until(lambda: abs(self.value("streampush_redis_clock_ahead_seconds")) < 1)
        self.registry = CollectorRegistry()
        self.now_ms += 86_400_000
        with capturedLogs() as events:
            wrong = self.keeping(shared_server().url, prefix=prefix, publish_timeout=10, history_age=3600.0)
            wrong.start()
            await self.until(lambda: self.value("streampush_redis_clock_ahead_seconds") > 86_000)
            await wrong._look()
        assert len([event for event in events if "ahead of that of Redis" in formatEvent(event)]) == 1
        await wrong.store.sweep()
        await wrong.store.append(self.draft("news"))
        assert (await good.store.head("news")).floor_offset == 0

    async def test_that_redis_was_emptied_under_an_open_connection_is_noticed_and_everything_is_looked_at_once(self) -> None:
        server = self.server()
        keeping = self.keeping(server.url, publish_timeout=10)
        heard = Ear()
        keeping.hear(heard)
        keeping.start()
        await self.until(lambda: not keeping.bus.reason(0.0))
        epochs = iter(("second", "third"))
        keeping._beginning._new_epoch = lambda: next(epochs)
        await keeping._look()
        before = heard.times_back
        server.say("FLUSHALL")
        with capturedLogs() as events:
            for _ in range(2):
                await keeping._look()
        assert heard.times_back == before + 1
        assert len([event for event in events if "Redis was emptied" in formatEvent(event)]) == 1
        assert server.say("HGET", f"{{{self.prefix}}}:totals", "replication")  # a failover from now on is noticed, too

    async def test_a_redis_in_which_it_may_not_publish_is_refused_before_anything_is_written(self) -> None:
        server = self.server("user default on nopass ~* +@all resetchannels")
        keeping = self.keeping(server.url)
        keeping.start()
        await self.until(lambda: "refuses PUBLISH: NOPERM" in keeping.reason(0.0))
        assert server.say("DBSIZE") == 0

    async def test_what_was_published_is_answered_when_a_replica_has_it(self) -> None:
        master = self.server()
        self.server(f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0")
        keeping = self.keeping(master.url, replicas=1, publish_timeout=10)
        keeping.start()
        accepted = None
        while accepted is None:
            try:
                accepted = await keeping.store.append(self.draft("news"))
            except Exception as error:  # noqa: BLE001 - the replica comes in a moment
                assert "replicas confirmed it" in str(error)
        assert accepted.durability is Durability.REPLICATED

    async def test_it_speaks_tls_and_checks_whom_it_speaks_to(self) -> None:
        folder = quick_folder()
        self.addCleanup(folder.cleanup)
        make_files(Path(folder.name))
        root = Path(folder.name)
        files = {name: root / path for name, path in (("cert", "server.crt"), ("key", "secrets/server.key"), ("ca", "ca.crt"))}
        port = RedisServer().port
        server = RedisServer(
            f"tls-port {port}",
            *(f"tls-{name}-file {path}" for name, path in files.items() if name != "ca"),
            f"tls-ca-cert-file {files['ca']}",
            "tls-auth-clients no",
        )
        self.addCleanup(server.stop)
        try:
            server.start()
        except AssertionError:
            raise SkipTest("this redis-server is built without TLS") from None
        assert authority()
        keeping = self.keeping(f"rediss://localhost:{port}", ca=str(files["ca"]), publish_timeout=20)
        keeping.start()
        assert await keeping.link.command("PING") == b"PONG"
        self.registry = CollectorRegistry()
        stranger = self.keeping(f"rediss://localhost:{port}")
        stranger.start()
        await self.until(lambda: "not trusted" in stranger.reason(0.0))

    def test_files_that_cannot_be_used_are_named(self) -> None:
        for key, settings in (
            ("store.password_file", {"url": "redis://h", "password_file": "/nowhere/password"}),
            ("store.ca", {"url": "rediss://h", "ca": "/nowhere/ca.crt"}),
            ("store.certificate", {"url": "rediss://h", "certificate": "/nowhere/c.crt", "key": "/nowhere/c.key"}),
        ):
            self.registry = CollectorRegistry()
            with pytest.raises(ConfigError) as caught:
                self.keeping(**settings)
            assert caught.value.key == key
