"""The store in memory against a model that is too simple to be wrong: lists that are looked through from end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.terms import Milestone
from streampush.push.values import (
    FALLBACK,
    CursorMove,
    DeviceRecord,
    Draft,
    Mark,
    OutboxWork,
    PushOutcome,
    PushRecord,
    PushResult,
    Undeliverable,
    Want,
)
from streampush.store.memory import MemoryStore

CHANNELS = ("news", "device:d")
LIMITS = StoreConfig(history_messages=4, history_bytes=1024, history_age=60.0)

BACK = st.integers(-1, 4)
"""How far an offset is behind the newest."""

APPEND = st.tuples(
    st.just("append"),
    st.sampled_from(CHANNELS),
    st.sampled_from((1, 2, 400)),  # bytes; a receipt is wanted if odd
    st.sampled_from((0, 0, 10, 50_000)),  # ttl, ms
    st.sampled_from(("", "k", "l")),  # collapse key
    st.sampled_from((0, 0, 1, 2, 3)),  # version
    st.sampled_from((0, 0, 20)),  # delay, ms
    st.sampled_from((0, 0, 7)),  # bytes of the fallback
)
OPERATION = st.one_of(
    APPEND,
    APPEND,
    APPEND,
    st.tuples(st.just("recall"), st.integers(0, 3)),
    st.tuples(st.just("fire"), st.integers(1, 3)),
    st.tuples(st.just("move"), st.sampled_from(CHANNELS), BACK, BACK, st.sampled_from((9, 9, 3, 1))),
    st.tuples(st.just("mark"), st.sampled_from(CHANNELS), BACK, st.integers(0, 3)),
    st.tuples(st.just("bury"), st.sampled_from(CHANNELS), BACK),
    st.tuples(st.just("push"), st.integers(0, 5), st.sampled_from("de"), st.sampled_from(list(PushOutcome)), st.integers(-1, 1)),
    st.tuples(st.just("work"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from((1, 10, 10, 30_000))),
    st.tuples(st.just("sweep")),
)


@dataclass
class Row:
    """A message in the model, in a log (`offset`) or waiting (`due_ms`)."""

    draft: Draft
    offset: int
    published_ms: int
    held: int  # bytes of payload that are still there
    due_ms: int = 0
    recalls: str = ""
    recalled_ms: int = 0
    superseded_by: int = 0
    devices: dict[Milestone, int] = field(default_factory=dict)
    counts: dict[Milestone, int] = field(default_factory=dict)
    pushes: dict[str, PushResult] = field(default_factory=dict)
    push_counts: dict[PushOutcome, int] = field(default_factory=dict)

    def readable(self, now_ms: int) -> bool:
        return not (self.recalled_ms or self.superseded_by) and not self.expired(now_ms)

    def expired(self, now_ms: int) -> bool:
        return 0 < self.draft.expires_at_ms <= now_ms


class Model:
    """What the port's docstrings say, done the long way."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.logs: dict[str, list[Row]] = {channel: [] for channel in CHANNELS}
        self.floors: dict[str, tuple[int, str]] = dict.fromkeys(CHANNELS, (0, ""))
        self.waiting: list[Row] = []
        self.letters: dict[str, Row] = {}
        self.cursors: dict[str, tuple[int, int]] = {}
        self.works: dict[str, tuple[int, int]] = {}  # by key: when it is due, and its bytes

    def top(self, channel: str) -> int:
        rows = self.logs[channel]
        return rows[-1].offset if rows else 0

    def overtaken(self, draft: Draft) -> bool:
        known = [row.draft.version for row in self.logs[draft.channel] if row.draft.collapse_key == draft.collapse_key]
        return 0 < draft.version <= max(known, default=0)

    def append(self, draft: Draft) -> None:
        if self.overtaken(draft):
            return
        if draft.deliver_at_ms:
            self.waiting.append(Row(draft, 0, draft.published_at_ms, len(draft.payload), draft.deliver_at_ms))
        else:
            self.add(Row(draft, 0, draft.published_at_ms, len(draft.payload)))

    def add(self, row: Row) -> None:
        rows, draft = self.logs[row.draft.channel], row.draft
        row.offset = self.top(draft.channel) + 1
        if draft.fallback:
            self.works[draft.message_id] = row.published_ms, len(draft.fallback)
        for other in rows:
            if draft.collapse_key and other.draft.collapse_key == draft.collapse_key and not other.superseded_by:
                other.superseded_by, other.held = row.offset, 0
        rows.append(row)
        self.trim(draft.channel)

    def trim(self, channel: str) -> None:
        rows = self.logs[channel]
        while len(rows) > 1 and (
            len(rows) > 4 or sum(row.held for row in rows) > 1024 or rows[0].published_ms < self.now_ms - 60_000
        ):
            gone = rows.pop(0)
            self.floors[channel] = gone.offset, gone.draft.message_id

    def fire(self, limit: int) -> None:
        due = sorted((row for row in self.waiting if row.due_ms <= self.now_ms), key=lambda row: row.due_ms)[:limit]
        for row in due:
            self.waiting.remove(row)
            if not row.expired(self.now_ms) and not self.overtaken(row.draft):
                row.published_ms = self.now_ms
                self.add(row)

    def recall(self, message_id: str, notice_id: str) -> None:
        self.waiting = [row for row in self.waiting if row.draft.message_id != message_id]
        for rows in list(self.logs.values()):
            for row in list(rows):
                if row.draft.message_id == message_id and not row.recalls and not row.recalled_ms:
                    row.recalled_ms, row.held = self.now_ms, 0
                    notice = Draft(row.draft.channel, notice_id, b"", self.now_ms)
                    self.add(Row(notice, 0, self.now_ms, 0, recalls=message_id))

    def reach(self, row: Row, milestone: Milestone) -> None:
        if row.draft.channel == "device:d":
            row.devices.setdefault(milestone, self.now_ms)
        elif row.draft.want_receipt:
            row.counts[milestone] = row.counts.get(milestone, 0) + 1

    def move(self, channel: str, offset: int, processed: int, begun: int) -> None:
        old_offset, old_processed = self.cursors.get(channel, (0, 0))
        if offset < old_offset:
            return
        self.cursors[channel] = offset, max(old_processed, processed)
        topic = channel == "news"
        for row in self.logs[channel]:
            dead, written = Milestone.DEAD_LETTERED in row.devices, Milestone.WRITTEN in row.devices
            taken = row.readable(self.now_ms) or (not topic and written)
            if max(old_offset, begun) < row.offset <= offset and taken and not dead:
                self.reach(row, Milestone.DELIVERED)
            delivered = taken if topic else Milestone.DELIVERED in row.devices
            if max(old_processed, begun) < row.offset <= processed and delivered:
                self.reach(row, Milestone.PROCESSED)

    def push(self, message_id: str, device_id: str, result: PushResult) -> None:
        for channel, rows in self.logs.items():
            for row in rows:
                if row.draft.message_id != message_id:
                    continue
                if channel == "news":
                    row.push_counts[result.outcome] = row.push_counts.get(result.outcome, 0) + 1
                elif device_id not in row.pushes or row.pushes[device_id].at_ms <= result.at_ms:
                    row.pushes[device_id] = result

    def work(self, *, goes_on: bool) -> None:
        key = min(self.works, key=lambda key: (self.works[key][0], int(key[1:])))
        _, size = self.works.pop(key)
        if goes_on:
            self.works[key] = self.now_ms + 50, size

    def mark(self, channel: str, first: int, last: int) -> None:
        for row in self.logs[channel]:
            if first <= row.offset <= last:
                self.reach(row, Milestone.WRITTEN)

    def bury(self, channel: str, offset: int) -> None:
        for row in self.logs[channel]:
            if row.offset == offset and row.readable(self.now_ms):
                self.letters[row.draft.message_id] = row
                self.reach(row, Milestone.DEAD_LETTERED)


def run(work: Any) -> Any:
    """The result of a coroutine that does not wait."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addCallback(results.append)
    return results[0] if results else None


class Pair:
    """The store and the model, given the same work."""

    def __init__(self) -> None:
        self.model = Model()
        self.store = MemoryStore(LIMITS, lambda: self.model.now_ms, lambda: "e")
        run(self.store.remember_device(DeviceRecord("d")))
        self.ids = 0

    def new_id(self) -> str:
        self.ids += 1
        return f"m{self.ids}"

    def do_append(self, channel: str, size: int, ttl: int, key: str, version: int, delay: int, fallback: int) -> None:
        now_ms = self.model.now_ms
        wish = bool(size % 2)
        expires_ms, due_ms = (now_ms + ttl if ttl else 0), (now_ms + delay if delay else 0)
        draft = Draft(
            channel,
            self.new_id(),
            b"x" * size,
            now_ms,
            expires_ms,
            collapse_key=key,
            version=version,
            deliver_at_ms=due_ms,
            want_receipt=wish,
            fallback=b"f" * fallback,
        )
        run(self.store.append(draft))
        self.model.append(draft)

    def do_recall(self, back: int) -> None:
        message_id, notice_id = f"m{self.ids - back}", self.new_id()
        work = Deferred.fromCoroutine(self.store.recall(message_id, notice_id, self.model.now_ms))
        work.addErrback(lambda failure: failure.trap(Refused))  # the model changes nothing then either
        self.model.recall(message_id, notice_id)

    def do_fire(self, limit: int) -> None:
        run(self.store.fire_due(self.model.now_ms, limit))
        self.model.fire(limit)

    def offset(self, channel: str, back: int) -> int:
        return max(0, self.model.top(channel) - back)

    def do_move(self, channel: str, back: int, processed_back: int, begun_back: int) -> None:
        offset = self.offset(channel, back)
        processed, begun = min(offset, self.offset(channel, processed_back)), self.offset(channel, begun_back)
        run(self.store.record([CursorMove("d", channel, "e", offset, processed, 0, self.model.now_ms, begun)]))
        self.model.move(channel, offset, processed, begun)

    def do_mark(self, channel: str, back: int, more: int) -> None:
        first = self.offset(channel, back)
        run(self.store.record([], [Mark("d", channel, "e", first, first + more, Milestone.WRITTEN, self.model.now_ms)]))
        self.model.mark(channel, first, first + more)

    def do_bury(self, channel: str, back: int) -> None:
        offset = self.offset(channel, back)
        run(self.store.record([], [], [Undeliverable("d", channel, "e", offset, 3, "poison", self.model.now_ms)]))
        self.model.bury(channel, offset)

    def do_push(self, back: int, device_id: str, outcome: PushOutcome, late: int) -> None:
        message_id = f"m{self.ids - back}"
        result = PushResult(self.model.now_ms + late, outcome, "why", f"{message_id}/{device_id}/{late}")
        run(self.store.record_pushes([PushRecord(message_id, device_id, result)]))
        self.model.push(message_id, device_id, result)

    def do_work(self, goes_on: bool) -> None:
        due = [key for key, (due_ms, _) in self.model.works.items() if due_ms <= self.model.now_ms]
        leased = run(self.store.outbox_lease(FALLBACK, 1, self.model.now_ms, 0))
        assert len(leased) == (1 if due else 0)
        for entry in leased:
            more = [OutboxWork(FALLBACK, entry.key, entry.body, self.model.now_ms + 50)] if goes_on else []
            assert run(self.store.outbox_replace(entry.token, more))
            self.model.work(goes_on=goes_on)

    def do_wait(self, milliseconds: int) -> None:
        self.model.now_ms += milliseconds

    def do_sweep(self) -> None:
        self.store.sweep(10)
        for channel, rows in self.model.logs.items():
            self.model.trim(channel)
            for row in rows:
                if row.readable(self.model.now_ms):
                    break
                row.held = 0

    # ----------------------------------------------------------------------------------------------------------- compare

    def compare(self) -> None:
        for channel in CHANNELS:
            self.compare_log(channel)
        model = self.model
        known = {row.draft.message_id for rows in model.logs.values() for row in rows}
        waiting = {row.draft.message_id for row in model.waiting}
        described = {number for number in range(1, self.ids + 1) if run(self.store.message(f"m{number}", 10)) is not None}
        assert {f"m{number}" for number in described} == known | waiting
        assert run(self.store.next_due_ms()) == min((row.due_ms for row in model.waiting), default=None)
        letters = {letter.publication.message_id for letter in run(self.store.dead_letters("d", 0, 100))}
        assert letters == model.letters.keys()
        held = [row.held for rows in (*model.logs.values(), model.waiting) for row in rows]
        held += [len(letter.publication.payload) for letter in run(self.store.dead_letters("d", 0, 100))]
        held += [len(row.draft.fallback) for row in model.waiting] + [size for _, size in model.works.values()]
        status = run(self.store.status())
        assert (status.bytes, status.publications, status.scheduled) == (sum(held), len(known), len(waiting))
        assert status.outbox == len(model.works)
        assert run(self.store.outbox_next_ms(FALLBACK)) == min((due_ms for due_ms, _ in model.works.values()), default=None)

    def compare_log(self, channel: str) -> None:
        model, now_ms = self.model, self.model.now_ms
        rows = model.logs[channel]
        page = run(self.store.read(channel, 0, 100, 100_000))
        assert [entry.message_id for entry in page.publications] == [row.draft.message_id for row in rows if row.readable(now_ms)]
        lost = [row for row in rows if row.expired(now_ms) and not row.recalled_ms and not row.superseded_by]
        assert page.expired == len(lost)
        assert (page.head.top_offset, page.head.floor_offset, page.head.floor_id) == (model.top(channel), *model.floors[channel])
        (survey,) = run(self.store.survey("d", [Want(channel, tuple(range(12)))]))
        for offset, spot in survey.spots.items():
            ids = dict([model.floors[channel], *((row.offset, row.draft.message_id) for row in rows)])
            assert (spot.message_id or "") == ids.get(offset, "")
            assert spot.expired == sum(1 for row in lost if row.offset > offset)
        cursor = survey.cursor
        assert ((cursor.offset, cursor.processed) if cursor else None) == model.cursors.get(channel)
        for row in rows:
            record = run(self.store.message(row.draft.message_id, 10))
            assert (record.offset, record.superseded_by, record.recalls) == (row.offset, row.superseded_by, row.recalls)
            assert (record.recalled_at_ms, dict(record.counts)) == (row.recalled_ms, row.counts)
            assert {one.device_id: dict(one.times) for one in record.devices if one.times} == (
                {"d": row.devices} if row.devices else {}
            )
            assert {one.device_id: one.push for one in record.devices if one.push} == row.pushes
            assert record.push_counts == row.push_counts
            for device_id, push in row.pushes.items():
                assert run(self.store.push_of(push.apns_id)) == PushRecord(row.draft.message_id, device_id, push)


@settings(max_examples=100, deadline=None)
@given(st.lists(OPERATION, min_size=20, max_size=60))
def test_the_store_does_what_the_model_does(operations: list[tuple[Any, ...]]) -> None:
    pair = Pair()
    for name, *arguments in operations:
        work: Callable[..., None] = getattr(pair, f"do_{name}")
        work(*arguments)
        pair.compare()
