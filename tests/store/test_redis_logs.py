"""The logs in Redis: several nodes on them, what names and numbers may be, how much a step does, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from txredisapi import SubscriberProtocol

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Milestone
from streampush.push.values import Accepted, DeviceRecord, Draft, Idempotency, Mark, Page, Want
from streampush.store.redis.scripts import ScriptFailed, Scripts
from streampush.store.redis.store import RedisStore
from tests.redis_server import shared_server
from tests.store.contract_base import LIMITS, NOW_MS, ContractBase
from tests.store.redis_world import RedisTestCase

ODD_NAMES = ("a{b}c", "}{", "ü€😀", "a:b:c", "*?[x]", '"quoted"', "back\\slash", "%d%s", "1", "-inf", "x" * 255, "device", "1:2")


class _Listener(SubscriberProtocol):  # type: ignore[misc]  # txredisapi has no types
    """Hears what is published."""

    def __init__(self, told: DeferredQueue[bytes]) -> None:
        super().__init__(charset=None)
        self.told = told

    def messageReceived(self, pattern: object, channel: bytes, message: bytes) -> None:
        self.told.put(message)


class World(RedisTestCase, ContractBase):
    """Stores, and the keys of each."""

    def make_store(self, limits: StoreConfig = LIMITS) -> RedisStore:
        self.prefix = self.new_prefix()
        return self.same_store(limits, self.prefix)

    def key(self, name: str) -> str:
        return f"{{{self.prefix}}}:{name}"

    async def keys(self) -> set[str]:
        """What the store has in Redis."""
        return await self.keys_left(self.key(""))

    async def listen(self, name: str) -> Callable[[], Deferred[bytes]]:
        """Gives what is published there from now on, one message after the other."""
        told: DeferredQueue[bytes] = DeferredQueue()
        point = TCP4ClientEndpoint(reactor, "127.0.0.1", shared_server().port)
        protocol: Any = await point.connect(Factory.forProtocol(lambda: _Listener(told)))
        self.addCleanup(lambda: protocol.transport.abortConnection())
        await protocol.subscribe(self.key(name))
        return told.get

    async def all(self, store: RedisStore, channel: str = "news") -> Page:
        return await store.read(channel, 0, 1000, 1 << 30)


class SharedTests(World):
    """Several nodes."""

    async def test_appends_of_two_nodes_at_once_have_one_order(self) -> None:
        ours = self.make_store()
        self.link = self.make_link(shared_server().url)  # another connection, as another node has
        theirs = self.same_store(LIMITS, self.prefix)
        drafts = [(store, self.draft(message_id=f"{name}{number}")) for number in range(100) for name, store in
                  (("ours", ours), ("theirs", theirs))]  # fmt: skip
        work = [Deferred.fromCoroutine(store.append(draft)) for store, draft in drafts]
        answers: list[Accepted] = await gatherResults(work)
        assert sorted(answer.offset for answer in answers) == list(range(1, 201))
        assert {answer.epoch for answer in answers} == {(await ours.head("news")).epoch}
        read = [(one.offset, one.message_id) for one in (await self.all(theirs)).publications]
        assert read == sorted((answer.offset, answer.message_id) for answer in answers)
        assert (await self.all(ours)).publications == (await self.all(theirs)).publications

    async def test_a_key_that_two_nodes_use_at_once_stores_one_message(self) -> None:
        ours = self.make_store()
        theirs = self.same_store(LIMITS, self.prefix)
        key = Idempotency("p", "key", b"f", self.now_ms + 1000)
        work = [Deferred.fromCoroutine(store.append(self.draft(idempotency=key))) for store in (ours, theirs)]
        answers: list[Accepted] = await gatherResults(work)
        assert sorted(answer.duplicate for answer in answers) == [False, True]
        assert {answer.message_id for answer in answers} == {answers[0].message_id}
        assert (await ours.head("news")).top_offset == 1

    async def test_what_is_due_is_appended_by_one_of_two_nodes(self) -> None:
        ours = self.make_store()
        theirs = self.same_store(LIMITS, self.prefix)
        for number in range(9):
            await ours.append(self.draft(message_id=f"m{number}", deliver_at_ms=self.now_ms + 1))
        fired = await gatherResults([Deferred.fromCoroutine(store.fire_due(self.now_ms + 1, 5)) for store in (ours, theirs)])
        ids = [one.publication.message_id for appended in fired for one in appended]
        assert sorted(ids) == [f"m{number}" for number in range(9)]

    async def test_stores_of_other_prefixes_have_nothing_in_common(self) -> None:
        ours, theirs = self.make_store(), self.make_store()
        await self.fill(ours, 2)
        assert await theirs.peek("news") is None
        assert (await theirs.status()).bytes == 0

    async def test_two_nodes_begin_a_store_with_one_epoch(self) -> None:
        ours = self.make_store()
        theirs = self.same_store(LIMITS, self.prefix)
        heads = await gatherResults([Deferred.fromCoroutine(store.head("news")) for store in (ours, theirs)])
        assert heads[0] == heads[1]

    async def test_a_redis_that_was_emptied_is_begun_anew_with_another_epoch(self) -> None:
        store = self.make_store()
        before = await self.fill(store, 2)
        await self.link.command("DEL", *(self.key(name) for name in await self.keys()))
        assert (await store.append(self.draft())).offset == 1
        assert (await store.head("news")).epoch not in ("", before)

    async def test_a_redis_that_forgot_the_scripts_is_given_them_again(self) -> None:
        store = self.make_store()
        await self.fill(store, 1)
        await self.link.command("SCRIPT", "FLUSH")
        assert (await store.append(self.draft())).offset == 2

    async def test_who_waits_for_a_channel_is_told_what_is_new_with_a_small_payload(self) -> None:
        store = self.make_store()
        told = await self.listen("wake:news")
        await store.append(self.draft(payload=b"small", message_id="m1"))
        await store.append(self.draft(payload=b"x" * 5000, message_id="m2"))
        await store.recall("m1", "notice", self.now_ms)
        await self.link.command("PUBLISH", self.key("wake:news"), msgpack.packb("end"))
        found: list[Any] = []
        while (one := msgpack.unpackb(await told(), raw=True)) != b"end":
            epoch, offset, facts, headers, payload = one
            found.append((epoch.decode(), offset, msgpack.unpackb(facts, raw=True)[0], headers, payload))
        epoch = (await store.head("news")).epoch
        headers = b'{"k":"v"}'
        assert found == [
            (epoch, 1, b"m1", headers, b"small"),
            (epoch, 2, b"m2", headers, False),
            (epoch, 3, b"notice", b"", b""),
        ]


class ValueTests(World):
    """What may come in."""

    async def test_any_name_of_a_channel_is_good(self) -> None:
        store = self.make_store()
        for number, channel in enumerate(ODD_NAMES):
            await store.append(self.draft(channel, message_id=f"m{number}", ttl_ms=1000, collapse_key=channel))
        for number, channel in enumerate(ODD_NAMES):
            page = await self.all(store, channel)
            assert [(one.channel, one.message_id, one.collapse_key) for one in page.publications] == [
                (channel, f"m{number}", channel)
            ]
        self.now_ms += 1000
        while await store.sweep():
            pass
        assert [(await self.all(store, channel)).expired for channel in ODD_NAMES] == [1] * len(ODD_NAMES)

    async def test_any_name_of_a_key_a_scope_or_a_message_is_good(self) -> None:
        store = self.make_store()
        for name in (*ODD_NAMES, "with space", "\x00", "a\nb"):
            key = Idempotency(name, name, name.encode(), self.now_ms + 1000)
            draft = self.draft(message_id=name, idempotency=key, deliver_at_ms=self.now_ms + 1)
            assert not (await store.append(draft)).duplicate
            assert await store.first_answer(key) is not None
            assert [one.publication.message_id for one in await store.fire_due(self.now_ms + 1, 9)] == [name]
            assert await store.recall(name, f"notice of {name}", self.now_ms) is not None
        self.now_ms += 1000
        await store.sweep()
        assert (await store.status()).keys == 0

    async def test_any_bytes_are_a_payload_and_any_text_is_a_header(self) -> None:
        store = self.make_store()
        payloads = (bytes(range(256)), b"", b"\r\n$5\r\n", b"\xc4\x05", bytes(1 << 20))
        headers = {"": "", "ü": "\x00\n€", "n" * 300: "v" * 70_000}
        drafts = [replace(self.draft(payload=payload), headers=headers) for payload in payloads]
        for draft in drafts:
            await store.append(draft)
        found = (await self.all(store)).publications
        assert tuple(one.payload for one in found) == payloads
        assert all(dict(one.headers) == headers for one in found)

    async def test_versions_may_be_larger_than_the_numbers_of_scripts(self) -> None:
        store = self.make_store()
        most = (1 << 64) - 1
        versions = (9, 10, (1 << 53) + 1, (1 << 53) + 2, most - 1, most)
        answers = [await store.append(self.draft(version=version, collapse_key="k")) for version in versions]
        assert [answer.superseded for answer in answers] == [False] * len(versions)
        assert (await store.append(self.draft(version=most, collapse_key="k"))).superseded
        assert (await store.append(self.draft(version=most - 1, collapse_key="k"))).superseded

    async def test_offsets_are_whole_up_to_the_last_and_none_comes_behind_it(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=3))
        await self.fill(store, 1)
        last = 2**53 - 1
        await self.link.command("HSET", self.key("log:news"), "top", last - 4, "floor", last - 4, "size", 0, "expiring", 0)
        drafts = [self.draft(ttl_ms=1000, collapse_key="k", want_receipt=True, message_id=f"m{number}") for number in range(4)]
        assert [(await store.append(draft)).offset for draft in drafts] == [last - 3, last - 2, last - 1, last]
        await self.refused(store.append(self.draft()), Code.QUOTA_EXCEEDED)
        page = await self.all(store)
        assert [(one.offset, one.message_id) for one in page.publications] == [(last, "m3")]
        assert (page.head.floor_offset, page.head.floor_id, page.next_offset) == (last - 3, "m0", last)
        assert await self.message_id(store, last - 1) == "m2"
        assert list(await store.count_readable([("news", last - 4, last)])) == [1]
        self.now_ms += 1000
        assert not await store.sweep()
        assert (await self.spot(store, last - 1)).expired == 1

    async def test_a_refusal_names_its_channel(self) -> None:
        store = self.make_store()
        try:
            await store.append(self.draft("device:none"))
        except Refused as refused:
            assert (refused.code, refused.channel) == (Code.UNKNOWN_RECIPIENT, "device:none")
        else:
            raise AssertionError("not refused")


class RetentionTests(World):
    """What goes, in steps."""

    async def filled(self, count: int, **fields: Any) -> str:
        """A store with so many messages in one channel; gives its prefix."""
        store = self.make_store(replace(LIMITS, history_messages=100_000))
        await gatherResults([Deferred.fromCoroutine(store.append(self.draft(**fields))) for _ in range(count)])
        return self.prefix

    async def test_a_limit_that_was_lowered_is_reached_in_steps(self) -> None:
        store = self.same_store(replace(LIMITS, history_messages=10), await self.filled(1000))
        await store.append(self.draft())
        assert (await store.head("news")).floor_offset == 100  # of which one append does no more
        steps = 1
        while await store.sweep():
            steps += 1
        assert (await store.head("news")).floor_offset == 991
        assert 4 <= steps <= 6
        assert "behind" not in await self.keys()

    async def test_entries_with_receipts_of_many_devices_are_dropped_in_smaller_steps(self) -> None:
        store = self.make_store()
        await store.remember_device(DeviceRecord("d0", "u"))
        for _ in range(6):
            await store.append(self.draft("user:u"))
        epoch = (await store.head("user:u")).epoch
        marks = [Mark(f"d{number}", "user:u", epoch, 1, 6, Milestone.WRITTEN, NOW_MS) for number in range(200)]
        await store.record([], marks)
        shorter = self.same_store(replace(LIMITS, history_messages=1), self.prefix)
        await shorter.append(self.draft("user:u"))
        assert (await store.head("user:u")).floor_offset == 2  # each as much as fifty without receipts
        await shorter.append(self.draft("user:u"))
        assert (await store.head("user:u")).floor_offset == 4
        while await shorter.sweep():
            pass
        assert (await store.head("user:u")).floor_offset == 7

    async def test_many_channels_are_surveyed_in_steps_and_answered_in_order(self) -> None:
        store = self.make_store()
        await self.fill(store, 2, "c450")
        surveys = await store.survey("d", [Want(f"c{number}") for number in range(900)])
        assert [survey.channel for survey in surveys] == [f"c{number}" for number in range(900)]
        assert [number for number, survey in enumerate(surveys) if survey.head.top_offset] == [450]

    async def test_what_many_appends_of_one_step_drop_is_bounded_together(self) -> None:
        await self.filled(1000)
        store = self.same_store(replace(LIMITS, history_messages=10), self.prefix)
        for number in range(5):
            await store.append(self.draft(message_id=f"due{number}", deliver_at_ms=self.now_ms + 1))
        assert len(await store.fire_due(self.now_ms + 1, 10)) == 5
        assert (await store.head("news")).floor_offset == 100 + 4 * 2

    async def test_what_is_too_old_goes_though_nothing_is_appended(self) -> None:
        store = self.make_store(replace(LIMITS, history_age=10.0))
        await self.fill(store, 3, "a")
        await self.fill(store, 1, "b")
        self.now_ms += 10_001
        await store.sweep()
        assert [(await store.head(channel)).floor_offset for channel in "ab"] == [2, 0]
        assert (await store.status()).publications == 2
        assert "age" not in await self.keys()  # what is left stays for ever

    async def test_what_has_expired_is_freed_in_steps_and_stays_expired(self) -> None:
        await self.filled(1000, payload=b"x" * 100, ttl_ms=1000)
        store = self.same_store(replace(LIMITS, history_messages=100_000), self.prefix)
        self.now_ms += 1000
        held = (await store.status()).bytes
        steps = 1
        while await store.sweep():
            steps += 1
        assert steps == 6
        assert (await store.status()).bytes == 1000 * len("text/plain") < held
        assert not {"pay:news", "exp"} & await self.keys()
        self.now_ms -= 1000
        assert (await self.spot(store, 0)).expired == 1000

    async def test_expired_keys_are_forgotten(self) -> None:
        store = self.make_store()
        for number in range(1000):
            await store.append(self.draft(idempotency=Idempotency(f"p{number % 7}", f"{number}", b"f", self.now_ms + 1000)))
        assert not await store.sweep()
        self.now_ms += 1000
        while await store.sweep():
            pass
        assert (await store.status()).keys == 0
        assert not {key for key in await self.keys() if key.startswith("idem")}

    async def test_keys_above_a_limit_that_was_lowered_are_forgotten_with_the_next_ones(self) -> None:
        store = self.make_store()

        def keyed(number: int) -> Draft:
            return self.draft(idempotency=Idempotency("p", f"{number}", b"f", self.now_ms + 1000))

        for number in range(50):
            await store.append(keyed(number))
        store = self.same_store(replace(LIMITS, max_idempotency_keys=10), self.prefix)
        for number in range(50, 56):
            await store.append(keyed(number))
        assert (await store.status()).keys == 10

    async def test_a_full_store_makes_room_of_what_expired_in_other_channels(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.fill(store, 1, "a", b"x" * 1500, ttl_ms=10)
        await self.refused(store.append(self.draft("b", b"x" * 1500)), Code.QUOTA_EXCEEDED)
        self.now_ms += 10
        assert (await store.append(self.draft("b", b"x" * 1500))).offset == 1

    async def test_what_is_not_counted_one_by_one_is_the_most_that_may_have_expired(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=100_000))
        await self.fill(store, 5, ttl_ms=10)
        await self.link.command("ZADD", self.key("ttl:news"), *(part for n in range(6, 20_000) for part in (self.now_ms, n)))
        self.now_ms += 10
        assert [(await self.spot(store, offset)).expired for offset in (0, 2, 9)] == [5, 3, 0]

    async def test_what_has_expired_is_counted_alike_before_and_after_it_is_freed(self) -> None:
        await self.filled(250, ttl_ms=1000)
        store = self.same_store(replace(LIMITS, history_messages=100_000), self.prefix)
        await self.fill(store, 5)
        self.now_ms += 1000
        offsets, counts = (0, 1, 100, 249, 250, 251), [250, 249, 150, 1, 0, 0]
        assert [(await self.spot(store, offset)).expired for offset in offsets] == counts
        assert await store.sweep()  # some are freed, some are not
        assert [(await self.spot(store, offset)).expired for offset in offsets] == counts
        assert not await store.sweep()
        assert [(await self.spot(store, offset)).expired for offset in offsets] == counts
        await store.recall("m251", "notice", self.now_ms)
        await gatherResults([Deferred.fromCoroutine(store.append(self.draft())) for _ in range(3)])
        few = self.same_store(replace(LIMITS, history_messages=5), self.prefix)
        await self.fill(few, 1)
        while await few.sweep():
            pass
        assert (await self.spot(few, 0)).expired == 0
        assert not {key for key in await self.keys() if key.startswith(("ttl:", "lost:", "exp"))}

    async def test_nothing_is_left_of_what_left_the_log(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=1))
        for number in range(20):
            wishes: dict[str, Any] = {"collapse_key": "k" if number % 2 else "", "version": number, "want_receipt": True}
            await store.append(self.draft(message_id=f"m{number}", ttl_ms=1000, **wishes))
        await self.fill(store, 1)
        assert list(await store.take_trimmed(10)) == [("news", 0)]
        assert await self.keys() == {"totals", "log:news", "ent:news", "pay:news", "msg"}
        assert await self.link.command("HLEN", self.key("msg")) == 1
        assert (await store.status()).bytes == len("payload") + len("text/plain") + 2


class ScriptTests(World):
    """What scripts cost and how they end."""

    async def test_a_script_that_cannot_begin_the_store_says_so(self) -> None:
        store = self.make_store()
        scripts = Scripts(self.link, self.prefix)
        try:
            await scripts.run("head", "news")
        except ScriptFailed as error:
            assert "NOEPOCH" in str(error)
        else:
            raise AssertionError("it has begun the store")
        assert await store.peek("news") is None
