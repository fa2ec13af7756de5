"""Part of the contract of a store: known recipients, idempotency keys, versions, collapse keys; and the order of these checks."""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.codes import Code
from streampush.push.values import Draft, Idempotency
from tests.store.contract_base import LIMITS, ContractBase


class KeyContract(ContractBase):
    """What an append looks at before it stores, and what it supersedes."""

    def keyed(self, key: str = "k", fingerprint: bytes = b"f", scope: str = "publisher:p", **fields: object) -> Draft:
        """A draft with an idempotency key that is known for ten seconds."""
        idempotency = Idempotency(scope, key, fingerprint, self.now_ms + 10_000)
        return self.draft(idempotency=idempotency, **fields)  # type: ignore[arg-type]  # any field

    # ------------------------------------------------------------------------------------------------------- recipients

    async def test_a_message_to_an_unknown_device_or_user_is_refused_and_begins_nothing(self) -> None:
        store, _ = await self.with_device()
        for channel in ("device:other", "user:other", "device:u", "user:d"):
            await self.refused(store.append(self.draft(channel)), Code.UNKNOWN_RECIPIENT)
            assert await store.peek(channel) is None

    async def test_a_device_that_was_forgotten_is_unknown_and_so_is_its_user(self) -> None:
        store, _ = await self.with_device(1)
        await store.forget_device("d")
        for channel in ("device:d", "user:u"):
            await self.refused(store.append(self.draft(channel)), Code.UNKNOWN_RECIPIENT)

    async def test_the_recipient_must_be_known_even_for_a_known_key(self) -> None:
        store, _ = await self.with_device()
        await store.append(self.keyed(channel="device:d"))
        await store.forget_device("d")
        await self.refused(store.append(self.keyed(channel="device:d")), Code.UNKNOWN_RECIPIENT)

    # ------------------------------------------------------------------------------------------------- idempotency keys

    async def test_a_key_that_is_known_gives_the_first_answer_and_stores_nothing(self) -> None:
        store = self.make_store(LIMITS)
        first = await store.append(self.keyed())
        await self.fill(store, 2)
        again = await store.append(self.keyed())
        assert again == replace(first, duplicate=True, appended=None)
        assert (await store.head("news")).top_offset == 3

    async def test_a_key_with_another_fingerprint_is_refused(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.keyed())
        await self.refused(store.append(self.keyed(fingerprint=b"other")), Code.DUPLICATE)
        assert (await store.head("news")).top_offset == 1

    async def test_the_same_key_of_another_publisher_is_another_key(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.keyed())
        assert (await store.append(self.keyed(fingerprint=b"other", scope="publisher:q"))).offset == 2

    async def test_a_key_is_known_until_the_moment_it_expires(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.keyed())
        self.now_ms += 9_999
        assert (await store.append(self.keyed())).duplicate
        self.now_ms += 1
        assert not (await store.append(self.keyed(fingerprint=b"other"))).duplicate

    async def test_a_key_that_is_used_again_after_it_expired_is_known_anew(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.keyed())
        self.now_ms += 10_000
        second = await store.append(self.keyed())
        self.now_ms += 9_999
        third = await store.append(self.keyed())
        assert (third.duplicate, third.message_id) == (True, second.message_id)

    async def test_of_each_publisher_the_newest_keys_are_known(self) -> None:
        store = self.make_store(replace(LIMITS, max_idempotency_keys=2))
        await store.append(self.keyed("other", scope="publisher:q"))
        for key in ("a", "b", "c"):
            await store.append(self.keyed(key))
        assert [(await store.append(self.keyed(key))).duplicate for key in ("b", "c", "a")] == [True, True, False]
        assert (await store.append(self.keyed("other", scope="publisher:q"))).duplicate

    async def test_of_all_publishers_together_the_newest_keys_are_known(self) -> None:
        store = self.make_store(replace(LIMITS, max_idempotency_keys_total=3))
        asked = [("a", "publisher:p"), ("b", "device:q"), ("c", "publisher:p"), ("d", "key:r"), ("d", "device:q")]
        for key, scope in asked:
            await store.append(self.keyed(key, scope=scope))
        assert (await store.status()).keys == 3
        known = [(await store.append(self.keyed(key, scope=scope))).duplicate for key, scope in asked[2:]]
        assert known == [True, True, True]
        assert [(await store.append(self.keyed(key, scope=scope))).duplicate for key, scope in asked[:2]] == [False, False]

    async def test_a_repeat_does_not_count_against_the_keys_of_all(self) -> None:
        store = self.make_store(replace(LIMITS, max_idempotency_keys_total=2))
        await store.append(self.keyed("a"))
        for _ in range(5):
            await store.append(self.keyed("b", scope="publisher:q"))
        assert (await store.append(self.keyed("a"))).duplicate

    async def test_a_key_that_expired_and_is_used_again_counts_once(self) -> None:
        store = self.make_store(replace(LIMITS, max_idempotency_keys_total=2))
        await store.append(self.keyed("a"))
        self.now_ms += 10_000
        await store.append(self.keyed("a"))
        await store.append(self.keyed("b", scope="publisher:q"))
        assert (await store.append(self.keyed("a"))).duplicate

    async def test_any_number_of_publishers_have_their_newest_key_known_within_the_keys_of_all(self) -> None:
        store = self.make_store(replace(LIMITS, max_idempotency_keys_total=4))
        for number in range(30):
            await store.append(self.keyed(scope=f"device:{number}"))
        known = [
            (await store.first_answer(Idempotency(f"device:{n}", "k", b"f", self.now_ms + 10_000))) is not None for n in range(30)
        ]
        assert known == [False] * 26 + [True] * 4

    async def test_a_refused_message_leaves_its_key_unknown(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=1024))
        await self.refused(store.append(self.keyed(payload=b"x" * 2000)), Code.QUOTA_EXCEEDED)
        assert not (await store.append(self.keyed())).duplicate

    async def test_the_first_answer_is_given_after_its_message_left_the_log(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=1))
        first = await store.append(self.keyed())
        await self.fill(store, 1)
        again = await store.append(self.keyed())
        assert (again.message_id, again.offset, again.duplicate) == (first.message_id, 1, True)

    async def test_the_key_is_looked_at_before_the_version(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.keyed(version=5))
        again = await store.append(self.keyed(version=5))
        assert (again.duplicate, again.superseded) == (True, False)

    async def test_that_it_was_superseded_is_a_first_answer_too(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(version=5))
        first = await store.append(self.keyed(version=4))
        again = await store.append(self.keyed(version=4))
        assert (first.superseded, first.duplicate) == (True, False)
        assert again == replace(first, duplicate=True)

    async def test_that_it_was_scheduled_is_the_first_answer_even_when_it_was_delivered(self) -> None:
        store = self.make_store(LIMITS)
        due_ms = self.now_ms + 100
        await store.append(self.keyed(deliver_at_ms=due_ms))
        await store.fire_due(due_ms, 10)
        again = await store.append(self.keyed(deliver_at_ms=due_ms))
        assert (again.duplicate, again.offset, again.deliver_at_ms) == (True, 0, due_ms)
        assert (await store.head("news")).top_offset == 1

    # --------------------------------------------------------------------------------------------------------- versions

    async def test_a_version_that_is_not_above_the_newest_stores_nothing(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        await store.append(self.draft(version=7, collapse_key="k"))
        await self.fill(store, 1)
        for version in (1, 6, 7):
            answer = await store.append(self.draft(version=version, collapse_key="k", message_id="old"))
            assert (answer.superseded, answer.offset, answer.appended, answer.duplicate) == (True, 2, None, False)
            assert (answer.message_id, answer.epoch) == ("old", (await store.head("news")).epoch)
        assert (await store.head("news")).top_offset == 3
        assert await store.message("old", 10) is None

    async def test_a_higher_version_is_stored(self) -> None:
        store = self.make_store(LIMITS)
        answers = [await store.append(self.draft(version=version)) for version in (1, 2, 1 << 62)]
        assert [(answer.offset, answer.superseded) for answer in answers] == [(1, False), (2, False), (3, False)]
        assert len(await self.readable(store)) == 3  # without a collapse key a newer version replaces nothing

    async def test_versions_are_counted_by_channel_and_collapse_key(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(version=9, collapse_key="k"))
        others = [("news", "l"), ("news", ""), ("sport", "k")]
        answers = [await store.append(self.draft(channel, version=1, collapse_key=key)) for channel, key in others]
        assert not any(answer.superseded for answer in answers)

    async def test_what_has_no_version_is_stored_and_leaves_the_newest_version_alone(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(version=9, collapse_key="k"))
        assert not (await store.append(self.draft(collapse_key="k"))).superseded
        answer = await store.append(self.draft(version=8, collapse_key="k"))
        assert (answer.superseded, answer.offset) == (True, 1)
        assert (await store.append(self.draft(version=10, collapse_key="k"))).offset == 3

    async def test_the_version_of_what_expired_or_was_recalled_counts(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(version=5, collapse_key="a", ttl_ms=10))
        await store.append(self.draft(version=5, collapse_key="b", message_id="gone"))
        await store.recall("gone", "notice", self.now_ms)
        self.now_ms += 10
        for key in ("a", "b"):
            assert (await store.append(self.draft(version=5, collapse_key=key))).superseded

    async def test_a_version_is_forgotten_with_its_entry(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await store.append(self.draft(version=5))
        await self.fill(store, 2)
        assert not (await store.append(self.draft(version=4))).superseded

    async def test_a_version_is_forgotten_although_a_newer_entry_of_its_collapse_key_stays(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await store.append(self.draft(version=5, collapse_key="k"))
        await store.append(self.draft(collapse_key="k"))
        await self.fill(store, 1)
        assert not (await store.append(self.draft(version=4, collapse_key="k"))).superseded

    # ---------------------------------------------------------------------------------------------------- collapse keys

    async def test_a_newer_one_of_the_same_collapse_key_takes_the_place_of_the_earlier(self) -> None:
        store = self.make_store(LIMITS)
        for message_id, key in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("n", ""), ("a3", "a"), ("n2", "")):
            await store.append(self.draft(message_id=message_id, collapse_key=key))
        assert await self.readable(store) == ["b1", "n", "a3", "n2"]
        assert [(await self.record_of(store, name)).superseded_by for name in ("a1", "a2", "a3", "b1", "n")] == [3, 5, 0, 0, 0]

    async def test_a_collapse_key_of_another_channel_is_another(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft("a", message_id="a1", collapse_key="k"))
        await store.append(self.draft("b", message_id="b1", collapse_key="k"))
        assert (await self.readable(store, "a"), await self.readable(store, "b")) == (["a1"], ["b1"])

    async def test_what_was_superseded_keeps_its_id_and_is_no_loss(self) -> None:
        store = self.make_store(LIMITS)
        for number in range(3):
            await store.append(self.draft(message_id=f"k{number}", collapse_key="k", ttl_ms=10))
        self.now_ms += 10
        assert [await self.message_id(store, offset) for offset in (1, 2, 3)] == ["k0", "k1", "k2"]
        assert (await self.spot(store, 0)).expired == 1
        page = await store.read("news", 0, 10, 1000)
        assert (page.publications, page.next_offset, page.expired) == ((), 3, 1)

    async def test_an_earlier_one_that_is_trimmed_does_not_matter(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=1))
        for number in range(3):
            await store.append(self.draft(message_id=f"k{number}", collapse_key="k"))
        assert await self.readable(store) == ["k2"]
