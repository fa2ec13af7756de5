"""The store in memory and the one in Redis are given the same work, and must answer alike; and what lies in Redis then adds up."""

from __future__ import annotations

import os
import re
from hashlib import sha1
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from streampush.store.redis.scripts import Script, Scripts, load_scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import NOT_HERE, PROGRAM, shared_server
from tests.store.blocking_redis import BlockingRedis
from tests.store.redis_order import Look
from tests.store.test_alike import LIMITS, Pair, answer

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
        return RedisPair(self.redis, Scripts(self.redis, f"alike-{os.getpid()}-{next(_NUMBERS)}", scripts), Random(seed))

    def test_the_store_in_memory_and_the_one_in_redis_answer_alike(self) -> None:
        scripts = load_scripts()
        for seed in range(SEEDS):
            self.pair(scripts, seed).run()

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

    def __init__(self, redis: BlockingRedis, scripts: Scripts, random: Random) -> None:
        super().__init__(random)
        self.redis = redis
        self.prefix = scripts.prefix
        ids = chain(["epoch"], (f"lease-{number}" for number in count()))
        self.other = RedisStore(scripts, LIMITS, lambda: self.now_ms, lambda: next(ids), max_dead_letters=2)
        answer(self.other.head("news"))  # begins the store with the first id; the others are for leases

    def ask(self, *parts: bytes | str | int) -> Any:
        """The answer to a command."""
        answers: list[Any] = []
        self.redis.command(*parts).addCallback(answers.append)
        return answers[0]

    def finish(self) -> list[str]:
        return Look(self.ask, self.prefix).disorder()
