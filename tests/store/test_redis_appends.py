"""What is appended in one turn goes out together, and each part of it is answered for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import SkipTest

import msgpack
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from streampush.config import StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.push.values import Accepted, DeviceRecord, Draft, Idempotency
from streampush.store.redis.appends import APPEND_AT_MOST, APPEND_BYTES, Appends, Stored
from streampush.store.redis.scripts import ScriptFailed, Scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer
from tests.store.contract_base import LIMITS, ContractBase
from tests.store.redis_world import RedisTestCase, soon


class _Redis:
    """Redis as the test plays it: commands, and their answers when it gives them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Any]]] = []

    def command(self, *parts: bytes | str | int) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((msgpack.unpackb(parts[-1], raw=True), answer))
        return answer

    def answer(self, *answers: Any) -> None:
        """To the oldest question."""
        self.asked.pop(0)[1].callback(msgpack.packb((b"e", answers)))


class GatheringTests(SynchronousTestCase):
    """Drafts are numbers here."""

    def setUp(self) -> None:
        self.redis = _Redis()
        self.due: list[Callable[[], None]] = []
        self.appends = Appends(Scripts(self.redis, "p"), lambda: ["now"], self.due.append, at_most=200)

    def append(self, *drafts: int, size: int = 1) -> list[Deferred[Stored]]:
        return [self.appends.append([draft], size) for draft in drafts]

    def end_of_turn(self) -> None:
        due, self.due[:] = self.due[:], []
        for call in due:
            call()

    def sent(self) -> list[list[int]]:
        """The drafts of each script that was run."""
        return [[draft for (draft,) in arguments[0]] for arguments, _ in self.redis.asked]

    def test_what_comes_in_one_turn_is_one_script_at_its_end_in_the_order_in_which_it_came(self) -> None:
        stored = self.append(1, 2, 3)
        assert (self.sent(), len(self.due)) == ([], 1)
        self.end_of_turn()
        assert self.redis.asked[0][0] == [[[1], [2], [3]], b"now"]
        self.redis.answer(7, [True], 9)
        assert [self.successResultOf(one) for one in stored] == [("e", 7), ("e", [True]), ("e", 9)]

    def test_the_next_turn_is_a_script_of_its_own_and_does_not_wait_for_the_answer(self) -> None:
        self.append(1)
        self.end_of_turn()
        self.append(2)
        self.end_of_turn()
        assert self.sent() == [[1], [2]]

    def test_what_is_appended_when_an_answer_comes_is_sent_too(self) -> None:
        (first,) = self.append(1)
        first.addCallback(lambda _: self.append(2))
        self.end_of_turn()
        self.redis.answer(1)
        self.end_of_turn()
        assert self.sent() == [[2]]

    def test_a_script_takes_so_many_and_the_rest_goes_with_the_next(self) -> None:
        self.append(*range(APPEND_AT_MOST + 2))
        self.end_of_turn()
        assert [len(drafts) for drafts in self.sent()] == [APPEND_AT_MOST, 2]

    def test_a_script_is_full_with_so_many_bytes_and_takes_one_always(self) -> None:
        self.append(1, 2, 3, size=APPEND_BYTES // 2)
        self.append(4, size=10 * APPEND_BYTES)
        self.append(5)
        self.end_of_turn()
        assert self.sent() == [[1, 2], [3, 4], [5]]

    def test_more_without_an_answer_than_may_be_are_refused_until_there_is_one(self) -> None:
        stored = self.append(*range(200))
        (refused,) = self.append(201)
        assert "store.max_queue" in str(self.failureResultOf(refused, StoreUnavailable).value)
        self.end_of_turn()
        assert self.appends.more_waiting == 200 - 4
        self.redis.answer(*range(50))
        assert self.appends.more_waiting == 150 - 3
        self.assertNoResult(self.append(202)[0])
        self.successResultOf(stored[49])
        self.assertNoResult(stored[50])

    def test_without_an_answer_all_of_a_script_fail_and_leave_room(self) -> None:
        stored = self.append(1, 2)
        self.end_of_turn()
        self.redis.asked.pop()[1].errback(Failure(StoreUnavailable("the connection to Redis was lost")))
        for one in stored:
            self.failureResultOf(one, StoreUnavailable)
        assert self.appends.more_waiting == 0
        self.append(3)
        self.end_of_turn()
        assert self.sent() == [[3]]

    def test_an_answer_that_is_none_fails_all_of_a_script(self) -> None:
        for nonsense in (b"x", [], [b"e"], [b"e", [1]], [1, [1, 2]], {b"e": 1}, 7):
            stored = self.append(1, 2)
            self.end_of_turn()
            self.redis.asked.pop(0)[1].callback(msgpack.packb(nonsense))
            for one in stored:
                self.failureResultOf(one, ScriptFailed)
        assert self.appends.more_waiting == 0

    def test_who_gives_up_waiting_takes_nothing_from_the_others(self) -> None:
        first, second = self.append(1, 2)
        first.cancel()
        self.failureResultOf(first)
        self.end_of_turn()
        assert self.sent() == [[1, 2]]
        self.redis.answer(1, 2)
        assert self.successResultOf(second) == ("e", 2)


class Together(RedisTestCase, ContractBase):
    """Over a Redis."""

    async def together(self, store: RedisStore, *drafts: Draft) -> list[Accepted | Exception]:
        """What each is answered that is appended in one turn."""
        answers: list[Accepted | Exception] = [ValueError("no answer")] * len(drafts)

        async def append(at: int, draft: Draft) -> None:
            try:
                answers[at] = await store.append(draft)
            except (Refused, ScriptFailed) as error:
                answers[at] = error

        await gatherResults([Deferred.fromCoroutine(append(at, draft)) for at, draft in enumerate(drafts)])
        return answers


class TogetherTests(Together):
    """Appends of one turn, of which some cannot be done."""

    def key(self, name: str, fingerprint: bytes = b"f") -> Idempotency:
        return Idempotency("p", name, fingerprint, self.now_ms + 60_000)

    async def test_what_some_are_refused_for_is_their_own(self) -> None:
        store = self.make_store(replace(LIMITS, max_channels=1, max_scheduled=1))
        await store.remember_device(DeviceRecord("d", "u"))
        found = await self.together(
            store,
            self.draft(),
            self.draft("device:none"),
            self.draft(idempotency=self.key("k"), message_id="first"),
            self.draft(idempotency=self.key("k"), message_id="second"),
            self.draft(idempotency=self.key("k", b"other")),
            self.draft("device:d"),
            self.draft(deliver_at_ms=self.now_ms + 1),
            self.draft(deliver_at_ms=self.now_ms + 1),
            self.draft(version=2, collapse_key="v"),
            self.draft(version=1, collapse_key="v"),
            self.draft(),
        )
        refused = {at: one.code for at, one in enumerate(found) if isinstance(one, Refused)}
        quota = Code.QUOTA_EXCEEDED
        assert refused == {1: Code.UNKNOWN_RECIPIENT, 4: Code.DUPLICATE, 5: quota, 7: quota}
        kept = {at: one for at, one in enumerate(found) if isinstance(one, Accepted)}
        assert {at: one.offset for at, one in kept.items()} == {0: 1, 2: 2, 3: 2, 6: 0, 8: 3, 9: 3, 10: 4}
        assert {at for at, one in kept.items() if one.appended} == {0, 2, 8, 10}
        assert (kept[3].duplicate, kept[3].message_id, kept[9].superseded) == (True, "first", True)
        assert kept[6].deliver_at_ms == self.now_ms + 1
        assert await self.readable(store) == [kept[at].message_id for at in (0, 2, 8, 10)]

    async def test_room_that_one_takes_is_gone_for_the_next_and_a_smaller_one_still_fits(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=3000))
        found = await self.together(store, *(self.draft(payload=bytes(size)) for size in (1000, 1500, 1000, 100)))
        assert [getattr(one, "offset", None) for one in found] == [1, 2, None, 3]
        assert [one.code for one in found if isinstance(one, Refused)] == [Code.QUOTA_EXCEEDED]

    async def test_a_fault_of_one_leaves_the_others_alone(self) -> None:
        prefix = self.new_prefix()
        store = self.same_store(LIMITS, prefix)
        await self.link.command("SET", f"{{{prefix}}}:log:bad", "hidden")
        found = await self.together(store, self.draft("a"), self.draft("bad"), self.draft("b"))
        assert [getattr(one, "offset", None) for one in found] == [1, None, 1]
        assert isinstance(found[1], ScriptFailed)
        assert "script append: WRONGTYPE" in str(found[1])
        assert "hidden" not in str(found[1])
        assert [await self.readable(store, channel) for channel in ("a", "b")] != [[], []]

    async def test_the_first_ones_of_a_store_begin_it_once(self) -> None:
        store = self.make_store(LIMITS)
        found = await self.together(store, *(self.draft() for _ in range(120)))
        assert [one.offset for one in found if isinstance(one, Accepted)] == list(range(1, 121))
        assert len({one.epoch for one in found if isinstance(one, Accepted)}) == 1


class NoWritesTests(Together):
    """A Redis that takes no writes."""

    def setUp(self) -> None:
        if PROGRAM is None:
            raise SkipTest(NOT_HERE)
        super().setUp()
        self.server = RedisServer().start()
        self.addCleanup(self.server.stop)

    def store_on(self, wait: float, limits: StoreConfig = LIMITS) -> RedisStore:
        self.link = self.make_link(self.server.url, wait=wait)
        return RedisStore(Scripts(self.link, "p"), limits, lambda: self.now_ms, lambda: "epoch", soon)

    async def test_a_replica_stores_nothing_of_what_is_appended_at_once_and_is_left(self) -> None:
        store = self.store_on(10.0)
        await store.append(self.draft())
        made = self.link.made
        self.server.say("REPLICAOF", "127.0.0.1", "1")
        found = await self.together(store, self.draft(), self.draft("other"), self.draft())
        assert ["replica" in one.detail for one in found if isinstance(one, StoreUnavailable)] == [True] * 3
        self.server.say("REPLICAOF", "NO", "ONE")
        assert (await store.append(self.draft())).offset == 2
        assert self.link.made > made
