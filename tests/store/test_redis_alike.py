"""The store in memory and the one in Redis are given the same work, and must answer alike; and what lies in Redis then adds up."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha1
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from streampush.push.values import Draft
from streampush.store.memory import MemoryStore
from streampush.store.redis.scripts import Script, Scripts, load_scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import NOT_HERE, PROGRAM, shared_server
from tests.store.blocking_redis import BlockingRedis
from tests.store.redis_order import Look
from tests.store.test_alike import LIMITS, Pair, answer, plain

SEEDS = 12

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

_NUMBERS = count(1)


class AlikeTests(SynchronousTestCase):
    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        self.redis = BlockingRedis(shared_server().port)
        self.addCleanup(self.redis.close)

    def pair(self, scripts: dict[str, Script], seed: int) -> RedisPair:
        return RedisPair(self.redis, self.scripts(scripts), Random(seed))

    def scripts(self, scripts: dict[str, Script]) -> Scripts:
        return Scripts(self.redis, f"alike-{os.getpid()}-{next(_NUMBERS)}", scripts)

    def test_the_store_in_memory_and_the_one_in_redis_answer_alike(self) -> None:
        scripts = load_scripts()
        for seed in range(SEEDS):
            self.pair(scripts, seed).run()

    def test_they_do_so_when_what_is_appended_at_once_is_one_step(self) -> None:
        scripts = load_scripts()
        for seed in range(SEEDS + 8, SEEDS + 16):
            TogetherPair(self.redis, self.scripts(scripts), Random(seed)).run()

    def test_they_do_so_when_one_step_of_what_devices_reach_passes_one_entry(self) -> None:
        scripts = load_scripts()
        text = scripts["record"].text.replace("recording.STEP = 500", "recording.STEP = 4")
        assert text != scripts["record"].text
        scripts["record"] = Script("record", text, sha1(text.encode(), usedforsecurity=False).hexdigest())
        for seed in range(SEEDS, SEEDS + 8):
            self.pair(scripts, seed).run()

    def test_they_do_so_with_the_rights_that_the_documentation_gives_to_a_user_of_redis(self) -> None:
        (rights,) = re.findall(r"^ACL SETUSER streampush on >PASSWORD (.*)$", OPERATIONS.read_text(), re.MULTILINE)
        user = f"user-{os.getpid()}"
        rules = rights.replace("{streampush}", "{alike-*").split()
        assert self.redis.command("ACL", "SETUSER", user, "on", ">pw", *rules).result == b"OK"
        self.addCleanup(self.redis.command, "ACL", "DELUSER", user)
        theirs = BlockingRedis(shared_server().port)
        self.addCleanup(theirs.close)
        assert theirs.command("AUTH", user, "pw").result == b"OK"
        scripts = load_scripts()
        for seed in range(3):
            prefix = f"alike-{os.getpid()}-{next(_NUMBERS)}"
            RedisPair(self.redis, Scripts(theirs, prefix, scripts), Random(seed)).run()
        needed = (["CLIENT", "SETNAME", "x"], ["ROLE"], ["INFO", "server"], ["CONFIG", "GET", "appendonly"], ["PING"])
        for command in (*needed, ["SCRIPT", "LOAD", "return 1"], ["WAIT", 0, 1]):
            assert not isinstance(theirs.command(*command).result, Exception), command
        for command in (["KEYS", "*"], ["FLUSHALL"], ["GET", "other"], ["CONFIG", "SET", "maxmemory", "1"], ["SHUTDOWN"]):
            assert "NOPERM" in str(theirs.command(*command).result), command


class RedisPair(Pair):
    """With a store in Redis, which is looked at over `redis`."""

    limits = LIMITS

    def __init__(self, redis: BlockingRedis, scripts: Scripts, random: Random) -> None:
        super().__init__(random)
        self.redis = redis
        self.prefix = scripts.prefix
        ids = chain(["epoch"], (f"lease-{number}" for number in count()))
        self.other = RedisStore(scripts, self.limits, lambda: self.now_ms, lambda: next(ids), self.soon, max_dead_letters=2)
        answer(self.other.head("news"))  # begins the store with the first id; the others are for leases

    def soon(self, call: Callable[[], None]) -> None:
        """It is asked one thing at a time: its turns are over at once."""
        call()

    def ask(self, *parts: bytes | str | int) -> Any:
        """The answer to a command."""
        answers: list[Any] = []
        self.redis.command(*parts).addCallback(answers.append)
        return answers[0]

    def finish(self) -> list[str]:
        return Look(self.ask, self.prefix).disorder()


class TogetherPair(RedisPair):
    """Appends some in one turn, and compares what each is answered. There is room for all: of how much can be freed when there is
    none each store has its own idea, which so many appends would show."""

    limits = replace(LIMITS, max_bytes=1 << 30)

    def __init__(self, redis: BlockingRedis, scripts: Scripts, random: Random) -> None:
        self.due: list[Callable[[], None]] = []
        self.drafts: list[Draft] = []
        super().__init__(redis, scripts, random)
        self.memory = MemoryStore(self.limits, lambda: self.now_ms, lambda: "epoch", max_dead_letters=2)

    def soon(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def both(self, name: str, *arguments: Any, **named: Any) -> Any:
        if name != "append":
            return super().both(name, *arguments, **named)
        self.drafts.append(arguments[0])
        return None

    def do_append(self) -> None:
        for _ in range(self.random.randint(1, 9)):
            super().do_append()
            self.now_ms += 1  # so that their works are due one after the other
        drafts, self.drafts = self.drafts, []
        self.history.append(f"append at once: {drafts}")
        expected = [answer(self.memory.append(draft)) for draft in drafts]
        work = [Deferred.fromCoroutine(self.other.append(draft)) for draft in drafts]
        (end_of_turn,) = self.due
        self.due.clear()
        end_of_turn()
        found = [answer(awaited(one)) for one in work]
        assert plain(found) == plain(expected), "\n".join([*self.history, f"other:  {found}", f"memory: {expected}"])


async def awaited(answered: Deferred[Any]) -> Any:
    return await answered
