"""The connection to Redis: what a command gets while Redis comes, goes, and hangs; on real servers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from unittest import SkipTest

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from streampush.errors import StoreUnavailable
from streampush.redis_url import parse_url
from streampush.store.redis.connecting import Connector, RedisConnection, Unreachable
from streampush.store.redis.link import RedisLink, no_metrics
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer, free_port


class LinkTests(TestCase):
    timeout = 120

    def server(self, *options: str) -> RedisServer:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        server = RedisServer(*options)
        self.addCleanup(server.stop)
        return server.start()

    def link(self, url: str, **options: Any) -> RedisLink:
        link = RedisLink(reactor, Connector(reactor, parse_url(url)), no_metrics(), lambda: 0.5, **options)
        link.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(link.stop()))
        return link

    async def connected(self, link: RedisLink) -> None:
        while not link.connected:
            await deferLater(reactor, 0.005)  # type: ignore[arg-type]  # a module stands for the reactor

    async def away(self, link: RedisLink) -> str:
        while link.connected:
            await deferLater(reactor, 0.005)  # type: ignore[arg-type]  # a module stands for the reactor
        return link.reason

    async def unavailable(self, work: Any) -> str:
        with pytest.raises(StoreUnavailable) as caught:
            await work
        return caught.value.detail

    async def test_commands_are_answered_in_their_order(self) -> None:
        link = self.link(self.server().url, wait=10)
        answers = await gatherResults([ensureDeferred(self.ask(link, "INCR", "n")) for _ in range(100)])
        assert answers == list(range(1, 101))

    async def ask(self, link: RedisLink, *parts: str) -> Any:
        return await link.command(*parts)

    async def test_without_a_redis_a_command_fails_at_once_and_says_why(self) -> None:
        link = self.link(f"redis://127.0.0.1:{free_port()}")
        assert "Redis is away" in await self.unavailable(link.command("PING"))

    async def test_a_command_that_may_wait_waits_for_redis_to_come(self) -> None:
        port = free_port()
        link = self.link(f"redis://127.0.0.1:{port}", wait=60)
        asked = ensureDeferred(self.ask(link, "PING"))
        server = RedisServer(port=port)
        self.addCleanup(server.stop)
        server.start()
        assert await asked == b"PONG"

    async def test_a_command_waits_no_longer_than_it_may(self) -> None:
        link = self.link(f"redis://127.0.0.1:{free_port()}", wait=0.1)
        assert "Redis is away" in await self.unavailable(link.command("PING"))

    async def test_a_killed_redis_fails_what_waits_and_is_found_when_it_is_back(self) -> None:
        server = self.server()
        link = self.link(server.url, wait=10)
        await self.ask(link, "PING")
        server.freeze()
        asked = link.command("PING")
        server.kill()
        assert "before it answered" in await self.unavailable(asked)
        server.start()
        assert await self.ask(link, "PING") == b"PONG"

    async def test_a_redis_that_hangs_counts_as_away(self) -> None:
        server = self.server()
        link = self.link(server.url, wait=10, timeout=0.2)
        await self.ask(link, "PING")
        server.freeze()
        assert "before it answered" in await self.unavailable(link.command("PING"))
        assert "has not answered for" in await self.away(link)
        server.thaw()
        assert await self.ask(link, "PING") == b"PONG"

    async def test_the_log_says_once_that_redis_is_away_and_that_it_is_back(self) -> None:
        server = self.server()
        with capturedLogs() as events:
            link = self.link(server.url)
            await self.connected(link)
            server.kill()
            await self.away(link)
            await deferLater(reactor, 0.5)  # type: ignore[arg-type]  # several tries in vain
            server.start()
            await self.connected(link)
        lines = [formatEvent(event) for event in events]
        assert 1 <= len([line for line in lines if "Redis is away" in line]) <= 3  # lost, refused; not one for each try
        assert [line for line in lines if "Redis is there again" in line]

    async def test_too_much_under_way_is_refused(self) -> None:
        link = self.link(f"redis://127.0.0.1:{free_port()}", wait=60, max_queue=2)
        waiting = [link.command("PING"), link.command("PING")]
        assert "store.max_queue" in await self.unavailable(link.command("PING"))
        await link.stop()
        for one in waiting:
            assert "the server stops" in await self.unavailable(one)

    async def test_whoever_no_longer_waits_takes_no_answer_from_others(self) -> None:
        link = self.link(self.server().url)
        await self.connected(link)
        asked = [Deferred.fromCoroutine(_asked(link, text)) for text in ("a", "b", "c")]
        asked[0].cancel()
        self.failureResultOf(asked[0], CancelledError)
        assert await gatherResults(asked[1:]) == [b"b", b"c"]

    async def test_a_connection_that_says_what_nobody_asked_for_is_given_up(self) -> None:
        link = self.link(self.server().url)
        await self.connected(link)
        connection = link._connection
        assert connection is not None
        connection._protocol.dataReceived(b"+OK\r\n")
        assert "nobody had asked for" in await self.away(link)
        await self.connected(link)
        assert await link.command("ECHO", "x") == b"x"

    async def test_a_password_is_given_and_a_wrong_one_is_said_without_it(self) -> None:
        server = self.server("requirepass rightone", "user app on >apppass ~* &* +@all")
        port = server.port
        right = self.link(f"redis://:rightone@127.0.0.1:{port}", wait=10)
        assert await self.ask(right, "PING") == b"PONG"
        user = self.link(f"redis://app:apppass@127.0.0.1:{port}", wait=10)
        assert await self.ask(user, "ACL", "WHOAMI") == b"app"
        with capturedLogs() as events:
            wrong = self.link(f"redis://:hidden@127.0.0.1:{port}", wait=0.5)
            assert "refuses AUTH" in await self.unavailable(wrong.command("PING"))
        assert not [event for event in events if "hidden" in formatEvent(event)]

    async def test_a_redis_that_does_not_know_the_command_is_quoted_without_the_password(self) -> None:
        """Redis quotes what it was told: unknown command 'AUTH', with args beginning with: ..."""
        server = self.server("rename-command AUTH LOGIN")
        link = self.link(f"redis://somebody:secret-word@127.0.0.1:{server.port}")
        while "unknown command" not in link.reason:
            await deferLater(reactor, 0.005)  # type: ignore[arg-type]  # a module stands for the reactor
        assert "AUTH" in link.reason
        assert "secret" not in link.reason
        assert "somebody" not in link.reason

    async def test_a_replica_is_not_taken_for_the_master(self) -> None:
        master = self.server()
        replica = self.server(f"replicaof 127.0.0.1 {master.port}")
        link = self.link(replica.url, wait=0.5)
        assert "not the master" in await self.unavailable(link.command("PING"))

    async def test_a_master_that_becomes_a_replica_is_left(self) -> None:
        first, second = self.server(), self.server()
        link = self.link(first.url)
        await self.connected(link)
        other = self.link(first.url)
        await self.connected(other)
        await self.ask(other, "REPLICAOF", "127.0.0.1", str(second.port))
        # Redis ends the connections of ordinary clients only if it must; a write tells us
        while link.connected:
            await self.swallowed(link, "SET", "a", "b")
        assert "replica" in await self.away(link)

    async def swallowed(self, link: RedisLink, *parts: str) -> None:
        try:
            await link.command(*parts)
        except StoreUnavailable:
            return
        await deferLater(reactor, 0.005)  # type: ignore[arg-type]  # a module stands for the reactor

    async def test_a_connection_that_cannot_be_prepared_is_not_used(self) -> None:
        seen: list[str] = []

        def prepare(connection: RedisConnection) -> Coroutine[Any, Any, None]:
            async def refuse() -> None:
                seen.append(connection.place)
                raise Unreachable("not for us", refused=True)

            return refuse()

        link = self.link(self.server().url, prepare=prepare, wait=0.5)
        assert "not for us" in await self.unavailable(link.command("PING"))
        assert seen


async def _asked(link: RedisLink, text: str) -> Any:
    return await link.command("ECHO", text)
