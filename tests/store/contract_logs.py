"""Part of the contract of a store: the logs of channels, how they are read and trimmed, and quotas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from streampush.protocol.codes import Code
from streampush.protocol.terms import Priority
from streampush.push.values import Cursor, CursorMove, DeviceRecord, Idempotency, Want
from tests.store.contract_base import LIMITS, ContractBase


class LogContract(ContractBase):
    """Append without its options, read, head, survey, retention, quotas, status."""

    # ----------------------------------------------------------------------------------------------------------- append

    async def test_offsets_count_from_one_in_each_channel(self) -> None:
        store = self.make_store(LIMITS)
        offsets = [(await store.append(self.draft(channel))).offset for channel in ("a", "a", "b", "a", "b")]
        assert offsets == [1, 2, 1, 3, 2]

    async def test_an_append_gives_the_whole_publication_back(self) -> None:
        store = self.make_store(LIMITS)
        draft = self.draft(payload=b"\x00\xff", ttl_ms=5000)
        publication = await self.appended(store, draft)
        for name in ("channel", "message_id", "payload", "published_at_ms", "expires_at_ms", "content_type"):
            assert getattr(publication, name) == getattr(draft, name)
        assert dict(publication.headers) == {"k": "v"}

    async def test_what_is_read_is_what_was_appended(self) -> None:
        store = self.make_store(LIMITS)
        appended = await self.appended(store, self.draft(payload=b"\x00\xff"))
        page = await store.read("news", 0, 10, 1000)
        assert page.publications == (appended,)

    async def test_an_epoch_stays_while_the_log_lives(self) -> None:
        store = self.make_store(LIMITS)
        first = await self.fill(store, 1, "a")
        assert await self.fill(store, 1, "a") == first
        assert (await store.head("a")).epoch == first != ""

    async def test_what_is_asked_for_at_once_is_stored_in_that_order(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1)
        asked = []
        for number in range(50):
            known = Idempotency("p", str(number), b"f", self.now_ms + 1000) if number % 3 else None
            asked.append(Deferred.fromCoroutine(store.append(self.draft(message_id=f"n{number}", idempotency=known))))
        accepted = await gatherResults(asked)
        assert [one.offset for one in accepted] == list(range(2, 52))
        assert await self.readable(store) == ["m1", *(f"n{number}" for number in range(50))]

    async def test_an_append_is_as_durable_as_the_store_says(self) -> None:
        store = self.make_store(LIMITS)
        assert (await store.append(self.draft())).durability is store.durability

    # ------------------------------------------------------------------------------------------------------------- read

    async def test_a_read_goes_on_behind_the_offset(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 5)
        page = await store.read("news", 3, 10, 10_000)
        assert [publication.offset for publication in page.publications] == [4, 5]
        assert page.next_offset == 5

    async def test_a_read_gives_at_most_so_many_messages(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 5)
        page = await store.read("news", 1, 2, 10_000)
        assert [publication.offset for publication in page.publications] == [2, 3]
        assert page.next_offset == 3

    async def test_a_read_gives_at_most_so_many_bytes(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 5, payload=b"x" * 10)
        page = await store.read("news", 0, 10, 20)
        assert [publication.offset for publication in page.publications] == [1, 2]
        assert page.next_offset == 2

    async def test_a_read_gives_one_publication_however_large_it_is(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 2, payload=b"x" * 100)
        page = await store.read("news", 0, 10, 1)
        assert [publication.offset for publication in page.publications] == [1]

    async def test_a_read_at_the_end_is_empty(self) -> None:
        store = self.make_store(LIMITS)
        epoch = await self.fill(store, 2)
        page = await store.read("news", 2, 10, 1000)
        assert (page.publications, page.next_offset, page.expired) == ((), 2, 0)
        assert (page.head.epoch, page.head.top_offset) == (epoch, 2)

    async def test_a_read_leaves_out_what_has_expired_and_counts_it(self) -> None:
        store = self.make_store(LIMITS)
        await store.append(self.draft(ttl_ms=1000))
        await store.append(self.draft(ttl_ms=5000))
        await store.append(self.draft(ttl_ms=1000))
        self.now_ms += 1000
        page = await store.read("news", 0, 10, 1000)
        assert [publication.offset for publication in page.publications] == [2]
        assert (page.next_offset, page.expired) == (3, 2)

    async def test_a_read_of_nothing_but_expired_entries_moves_on(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 3, ttl_ms=10)
        self.now_ms += 10
        page = await store.read("news", 0, 1, 1)
        assert (page.publications, page.next_offset, page.expired) == ((), 3, 3)

    async def test_an_entry_can_be_read_until_the_moment_it_expires(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 1, ttl_ms=10)
        self.now_ms += 9
        assert len((await store.read("news", 0, 10, 1000)).publications) == 1

    async def test_reading_in_pages_gives_everything_once(self) -> None:
        store = self.make_store(LIMITS)
        for number in range(20):
            await store.append(self.draft(payload=b"x" * number, ttl_ms=100 if number % 3 == 0 else 0))
        self.now_ms += 100
        after, offsets = 0, []
        while after < 20:
            page = await store.read("news", after, 3, 25)
            offsets += [publication.offset for publication in page.publications]
            assert page.next_offset > after
            after = page.next_offset
        assert offsets == [number + 1 for number in range(20) if number % 3]

    # ------------------------------------------------------------------------------------------------------------- head

    async def test_looking_and_reading_begin_nothing_and_name_the_epoch_that_the_log_will_have(self) -> None:
        store = self.make_store(LIMITS)
        head = await store.head("news")
        assert (head.top_offset, head.floor_offset, head.floor_id) == (0, 0, "")
        page = await store.read("news", 0, 10, 1000)
        assert (page.head, page.publications, page.next_offset) == (head, (), 0)
        assert await store.peek("news") is None
        assert await self.fill(store, 1) == head.epoch

    async def test_head_names_the_newest_offset(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 3)
        assert (await store.head("news")).top_offset == 3

    async def test_message_ids_are_found_by_offset(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 3)
        assert [await self.message_id(store, offset) for offset in range(5)] == [None, "m1", "m2", "m3", None]
        assert await self.message_id(store, 1, "other") is None

    async def test_an_expired_entry_keeps_its_id(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 2, ttl_ms=10)
        self.now_ms += 10
        assert await self.message_id(store, 1) == "m1"

    async def test_what_expired_comes_back_whole_or_not_at_all_when_the_clock_is_set_back(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.fill(store, 1, payload=b"x" * 1500, ttl_ms=1_000)
        self.now_ms += 1_000
        await self.fill(store, 1, payload=b"x" * 1500)
        self.now_ms -= 1_000
        page = await store.read("news", 0, 10, 10_000)
        assert {len(publication.payload) for publication in page.publications} == {1500}
        assert len(page.publications) + page.expired == 2
        assert (await self.spot(store, 0)).expired == page.expired

    async def test_a_spot_counts_what_has_expired_behind_it(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 2, ttl_ms=10)
        await self.fill(store, 3)
        assert (await self.spot(store, 1)).expired == 0
        self.now_ms += 10
        assert [(await self.spot(store, offset)).expired for offset in (0, 1, 2, 5, 9)] == [2, 1, 0, 0, 0]
        assert (await self.spot(store, 0, "other")).expired == 0

    # --------------------------------------------------------------------------------------------------------- trimming

    async def test_a_channel_keeps_so_many_messages(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=3))
        await self.fill(store, 5)
        head = await store.head("news")
        assert (head.floor_offset, head.floor_id, head.top_offset) == (2, "m2", 5)
        assert [publication.offset for publication in (await store.read("news", 0, 10, 1000)).publications] == [3, 4, 5]

    async def test_a_read_below_the_floor_starts_at_the_floor(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await self.fill(store, 5, ttl_ms=10)
        self.now_ms += 10
        assert (await store.read("news", 0, 10, 1000)).next_offset == 5

    async def test_a_channel_keeps_so_many_bytes(self) -> None:
        store = self.make_store(replace(LIMITS, history_bytes=3000))
        await self.fill(store, 5, payload=b"x" * 1000)
        head = await store.head("news")
        assert head.floor_offset == 3  # headers count, so three do not fit

    async def test_a_message_above_the_bytes_of_a_channel_is_kept_alone(self) -> None:
        store = self.make_store(replace(LIMITS, history_bytes=1024))
        await self.fill(store, 3, payload=b"x" * 5000)
        assert [publication.offset for publication in (await store.read("news", 0, 10, 1)).publications] == [3]

    async def test_a_channel_keeps_messages_for_so_long_but_the_newest_for_ever(self) -> None:
        store = self.make_store(replace(LIMITS, history_age=10.0))
        await self.fill(store, 2)
        self.now_ms += 10_001
        await store.append(self.draft(message_id="m3"))
        assert (await store.head("news")).floor_offset == 2
        self.now_ms += 1_000_000
        assert [publication.offset for publication in (await store.read("news", 0, 10, 1000)).publications] == [3]

    async def test_the_id_at_the_floor_is_known_and_older_ones_are_not(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await self.fill(store, 5)
        assert [await self.message_id(store, offset) for offset in range(1, 6)] == [None, None, "m3", "m4", "m5"]

    async def test_offsets_are_found_behind_much_trimming(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=7))
        await self.fill(store, 2500)
        page = await store.read("news", 2495, 3, 1000)
        assert [(entry.offset, entry.message_id) for entry in page.publications] == [
            (2496, "m2496"),
            (2497, "m2497"),
            (2498, "m2498"),
        ]
        assert [await self.message_id(store, offset) for offset in (2492, 2493, 2500)] == [None, "m2493", "m2500"]

    # ----------------------------------------------------------------------------------------------------------- quotas

    async def test_channels_above_the_quota_are_refused_and_known_ones_are_not(self) -> None:
        store = self.make_store(replace(LIMITS, max_channels=2))
        await self.fill(store, 1, "a")
        await self.fill(store, 1, "b")
        await self.refused(store.append(self.draft("c")), Code.QUOTA_EXCEEDED)
        assert (await store.head("c")).top_offset == 0
        assert await store.peek("c") is None
        assert (await store.append(self.draft("b"))).offset == 2

    async def test_bytes_above_the_quota_are_refused_and_nothing_is_changed(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.fill(store, 1, "a", b"x" * 1500)
        await self.refused(store.append(self.draft("a", b"x" * 600)), Code.QUOTA_EXCEEDED)
        await self.refused(store.append(self.draft("b", b"x" * 600)), Code.QUOTA_EXCEEDED)
        assert (await store.head("a")).top_offset == 1
        assert await store.peek("b") is None
        assert (await store.append(self.draft("a", b"x" * 400))).offset == 2

    async def test_headers_count_against_the_quota(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        draft = replace(self.draft(payload=b""), headers={"name": "x" * 3000})
        await self.refused(store.append(draft), Code.QUOTA_EXCEEDED)

    async def test_what_expired_in_a_channel_makes_room_for_the_next(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=2048))
        await self.fill(store, 1, "a", b"x" * 1500, ttl_ms=10)
        self.now_ms += 10
        assert (await store.append(self.draft("a", b"x" * 1500))).offset == 2

    async def test_a_channel_that_drops_what_could_be_read_is_told_once_with_its_floor_before(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=3))
        await self.fill(store, 3)
        await self.fill(store, 3, "a")
        assert await store.take_trimmed(10) == []
        await self.fill(store, 2)
        assert list(await store.take_trimmed(10)) == [("news", 0)]
        assert await store.take_trimmed(10) == []
        await self.fill(store, 1)
        await self.fill(store, 1)
        await self.fill(store, 1, "a")
        assert sorted(await store.take_trimmed(1)) + sorted(await store.take_trimmed(10)) == [("news", 2), ("a", 0)]

    async def test_a_channel_that_drops_what_has_expired_or_is_superseded_or_recalled_is_not_told(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await store.append(replace(self.draft(), collapse_key="k"))
        await store.append(replace(self.draft(), collapse_key="k"))
        recalled = await self.appended(store, self.draft("a"))
        await store.recall(recalled.message_id, "notice", self.now_ms)
        await store.append(self.draft("b", ttl_ms=1000))
        await self.fill(store, 1, "b")
        self.now_ms += 2000
        for channel in ("news", "a", "b"):
            await self.fill(store, 1, channel)
        assert await store.take_trimmed(10) == []

    async def test_what_is_trimmed_makes_room(self) -> None:
        store = self.make_store(replace(LIMITS, max_bytes=4096, history_messages=2))
        await self.fill(store, 50, payload=b"x" * 1000)
        assert (await store.head("news")).top_offset == 50

    # ----------------------------------------------------------------------------------------------------------- survey

    async def test_a_survey_answers_in_the_order_of_the_wants_and_begins_nothing(self) -> None:
        store = self.make_store(LIMITS)
        epoch = await self.fill(store, 2)
        surveys = await store.survey("d", [Want("other"), Want("news"), Want("other", (3,))])
        assert [survey.channel for survey in surveys] == ["other", "news", "other"]
        assert [survey.head for survey in surveys] == [
            await store.head("other"),
            await store.head("news"),
            await store.head("other"),
        ]
        assert [survey.cursor for survey in surveys] == [None, None, None]
        assert surveys[1].head.epoch == epoch
        assert await store.peek("other") is None
        assert list(await store.survey("d", [])) == []

    async def test_a_survey_has_the_wanted_offsets_the_newest_and_that_of_the_cursor(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=4))
        epoch = await self.fill(store, 6)
        await store.record([CursorMove("d", "news", epoch, 4, 3, 2), CursorMove("other", "news", epoch, 5)])
        (survey,) = await store.survey("d", [Want("news", (1, 3, 9))])
        assert survey.cursor == Cursor(epoch, 4, 3, 2)
        ids = {offset: survey.spots[offset].message_id for offset in (1, 3, 4, 6, 9)}
        assert ids == {1: None, 3: "m3", 4: "m4", 6: "m6", 9: None}

    async def test_a_cursor_of_another_epoch_is_given_as_it_is(self) -> None:
        store = self.make_store(LIMITS)
        await self.fill(store, 2)
        await store.record([CursorMove("d", "news", "other", 7)])
        (survey,) = await store.survey("d", [Want("news")])
        assert (survey.cursor, survey.spots[2].message_id) == (Cursor("other", 7), "m2")

    async def test_a_read_of_many_that_expired_goes_on_to_the_end_in_steps(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=5000))
        for number in range(3000):
            await store.append(self.draft(payload=b"", ttl_ms=10, message_id=f"gone{number}"))
        await self.fill(store, 1)
        self.now_ms += 10
        after, expired, found = 0, 0, []
        while after < 3001:
            page = await store.read("news", after, 10, 1000)
            assert page.next_offset > after
            after, expired = page.next_offset, expired + page.expired
            found += [publication.offset for publication in page.publications]
        assert (found, expired) == ([3001], 3000)

    async def test_what_may_be_read_between_two_offsets_is_counted(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=6))
        await self.fill(store, 1)
        await store.append(self.draft(message_id="old", collapse_key="k"))
        await store.append(self.draft(message_id="new", collapse_key="k"))
        await store.append(self.draft(message_id="back"))
        await store.append(self.draft(ttl_ms=10))
        await store.recall("back", "notice", self.now_ms)  # at offset 6
        self.now_ms += 10
        spans = [("news", 0, 6), ("news", 2, 6), ("news", 3, 5), ("news", 5, 5), ("news", 5, 2), ("none", 0, 9), ("news", 0, 1)]
        assert list(await store.count_readable(spans)) == [3, 2, 0, 0, 0, 0, 1]
        assert list(await store.count_readable([])) == []
        assert list(await store.count_readable([("news", 0, 1000), ("news", 900, 1000)])) == [3, 0]

    async def test_what_left_the_log_is_not_counted(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=2))
        await self.fill(store, 5)
        await self.fill(store, 1, "sport")
        assert list(await store.count_readable([("sport", 0, 1), ("news", 0, 5), ("news", 0, 3)])) == [1, 2, 0]

    async def test_the_newest_urgent_publication_is_known(self) -> None:
        store = self.make_store(LIMITS)
        for priority in (Priority.LOW, Priority.HIGH, Priority.NORMAL, Priority.HIGH, Priority.UNSPECIFIED):
            await store.append(self.draft(priority=priority))
        assert (await store.head("news")).urgent_offset == 4
        assert (await store.head("other")).urgent_offset == 0

    async def test_a_publication_keeps_what_its_publisher_wished(self) -> None:
        store = self.make_store(LIMITS)
        wishes: dict[str, Any] = {"priority": Priority.HIGH, "collapse_key": "k", "want_receipt": True, "clear_on_processed": True}
        appended = await self.appended(store, self.draft(**wishes))
        assert {name: getattr(appended, name) for name in wishes} == wishes
        assert (await store.read("news", 0, 10, 1000)).publications == (appended,)

    # ----------------------------------------------------------------------------------------------------------- status

    async def test_the_status_counts_what_is_held(self) -> None:
        store = self.make_store(replace(LIMITS, history_messages=3))
        status = await store.status()
        assert (status.channels, status.publications, status.bytes, status.devices) == (0, 0, 0, 0)
        await self.fill(store, 5, "a")
        await self.fill(store, 1, "b")
        await store.remember_device(DeviceRecord("d"))
        await store.append(self.draft(deliver_at_ms=self.now_ms + 10))
        await store.outbox_add("apns", "k", b"", 0)
        status = await store.status()
        assert (status.channels, status.publications, status.devices) == (2, 4, 1)
        assert (status.scheduled, status.dead_letters, status.outbox) == (1, 0, 1)
        assert status.bytes >= 5 * len(b"payload")
