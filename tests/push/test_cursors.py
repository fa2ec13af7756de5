"""Stored cursors: batches, a store that is away, and faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from streampush.config import StoreConfig
from streampush.protocol.terms import Milestone
from streampush.push import cursors
from streampush.push.cursors import CursorWriter
from streampush.push.values import Appended, CursorMove, Mark, Undeliverable
from streampush.store.memory import MemoryStore
from tests.push.world import World
from tests.store.slow import SlowStore


class Batches(MemoryStore):
    """Remembers what it was asked for; `fault` is raised once."""

    def __init__(self) -> None:
        super().__init__(StoreConfig(), lambda: 1, lambda: "epoch")
        self.batches: list[list[CursorMove]] = []
        self.marks: list[list[Mark]] = []
        self.undeliverable: list[list[Undeliverable]] = []
        self.fault: Exception | None = None
        self.before_fault: Callable[[], object] = lambda: None

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        self.batches.append(list(moves))
        self.marks.append(list(marks))
        self.undeliverable.append(list(undeliverable))
        if self.fault is not None:
            fault, self.fault = self.fault, None
            self.before_fault()
            raise fault
        return await super().record(moves, marks, undeliverable)


class Writing(World):
    """A cursor writer over a slow store; `turns`, `later` and `failures` as in any world."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = Batches()
        self.slow = SlowStore(self.batches)
        self.writer = CursorWriter(self.slow, self.turns.append, self.spawn, self.later.append, self.metrics)

    def move(self, offset: int, device_id: str = "d", epoch: str = "e") -> CursorMove:
        move = CursorMove(device_id, "news", epoch, offset)
        self.writer.move(move)
        return move

    def offset(self) -> int:
        cursor = self.run(self.batches.cursors("d")).get("news")
        return cursor.offset if cursor else -1


def test_the_moves_of_a_turn_are_one_batch_with_the_furthest_of_each() -> None:
    world = Writing()
    world.move(1)
    world.move(3)
    other = world.move(1, "other")
    world.move(2)
    assert len(world.turns) == 1
    world.settle()
    world.slow.finish()
    assert world.batches.batches == [[CursorMove("d", "news", "e", 3), other]]


def test_a_move_of_a_new_epoch_replaces_a_further_one() -> None:
    world = Writing()
    world.move(9)
    world.move(1, epoch="f")
    world.settle()
    world.slow.finish()
    assert world.batches.batches == [[CursorMove("d", "news", "f", 1)]]


def test_what_moves_while_a_batch_is_written_is_the_next_batch() -> None:
    world = Writing()
    world.move(1)
    world.settle()
    world.move(2)
    assert world.turns == []
    world.slow.finish()
    world.slow.finish()
    assert world.offset() == 2
    assert not world.slow.calls


def test_what_the_store_could_not_take_is_kept_and_tried_again_later() -> None:
    world = Writing()
    world.move(5)
    world.move(1, "other")
    world.settle()
    world.move(3)  # behind the one that is about to fail
    world.slow.fail()
    world.move(2, "other")
    assert (world.turns, len(world.later), world.slow.calls) == ([], 1, [])
    world.pause()
    world.slow.finish()
    assert {(move.device_id, move.offset) for move in world.batches.batches[-1]} == {("d", 5), ("other", 2)}
    world.move(6)
    world.settle()
    world.slow.finish()
    assert world.offset() == 6


def test_a_fault_is_raised_and_later_moves_are_still_stored() -> None:
    world = Writing()
    world.batches.fault = ValueError("a fault of ours")
    world.move(1)
    world.settle()
    world.slow.finish()
    assert [type(failure) for failure in world.failures] == [ValueError]
    world.move(2)
    world.settle()
    world.slow.finish()
    assert world.offset() == 2


def test_what_came_during_a_fault_is_stored() -> None:
    world = Writing()
    world.batches.fault = ValueError("a fault of ours")
    world.batches.before_fault = lambda: world.move(2)
    world.move(1)
    world.settle()
    world.slow.finish()
    world.settle()
    world.slow.finish()
    assert world.offset() == 2


def test_a_forgotten_cursor_is_not_written() -> None:
    world = Writing()
    world.move(1)
    world.writer.forget("d", "news")
    world.settle()
    assert world.slow.calls == []


def test_a_cursor_that_is_forgotten_while_its_write_fails_does_not_come_back() -> None:
    world = Writing()
    world.move(1)
    world.settle()
    world.writer.forget("d", "news")
    world.slow.fail()
    world.pause()
    assert world.slow.calls == []
    assert world.writer.pending("d", "news") is None


def test_a_move_is_pending_until_it_is_stored() -> None:
    world = Writing()
    first = world.move(1)
    assert world.writer.pending("d", "news") == first
    world.settle()
    assert world.writer.pending("d", "news") == first
    second = world.move(2)
    assert world.writer.pending("d", "news") == second
    world.slow.finish()
    world.slow.finish()
    assert world.writer.pending("d", "news") is None


def test_flush_stores_what_is_due_at_once() -> None:
    world = Writing()
    world.move(1)
    done = Deferred.fromCoroutine(world.writer.flush())
    world.slow.finish()
    assert done.called
    assert world.offset() == 1


# ------------------------------------------------------------------------------------------------- what a merged move keeps


def merged(*moves: CursorMove) -> list[CursorMove]:
    """What is stored of these moves of one turn."""
    world = Writing()
    for move in moves:
        world.writer.move(move)
    world.settle()
    world.slow.finish()
    (batch,) = world.batches.batches
    return batch


def at(offset: int, processed: int = 0, attempts: int = 0, begun: int = 0, epoch: str = "e") -> CursorMove:
    return CursorMove("d", "news", epoch, offset, processed, attempts, offset * 10, begun)


def test_at_the_same_offset_the_latest_attempts_count() -> None:
    assert merged(at(3, attempts=4), at(3, attempts=1)) == [at(3, attempts=1)]


def test_what_was_processed_stays_processed() -> None:
    assert merged(at(3, processed=3), at(5, processed=2)) == [at(5, processed=3)]


def test_where_delivery_began_is_kept() -> None:
    assert merged(at(3, begun=3), at(5)) == [at(5, begun=3)]


def test_a_connection_that_goes_on_where_the_last_one_ended_takes_no_receipts_away() -> None:
    assert merged(at(4), at(5, begun=4)) == [at(5)]
    assert merged(at(4, begun=1), at(5, begun=3)) == [at(5, begun=1)]


def test_what_was_reached_before_a_jump_is_stored_before_it() -> None:
    assert merged(at(3), at(9, begun=9), at(10, begun=9)) == [at(3), at(10, begun=9)]


def test_a_new_epoch_keeps_nothing_of_the_old_one() -> None:
    assert merged(at(3, processed=3, begun=2), at(1, epoch="f")) == [at(1, epoch="f")]


def test_what_was_reached_before_a_jump_is_forgotten_with_the_cursor() -> None:
    world = Writing()
    world.writer.move(at(3))
    world.writer.move(at(9, begun=9))
    other = replace(at(1), device_id="other")
    world.writer.move(other)
    world.writer.forget("d", "news")
    world.settle()
    world.slow.finish()
    assert world.batches.batches == [[other]]


# ------------------------------------------------------------------------------------------------- marks, undeliverable ones


def mark(first: int, last: int, at_ms: int = 1, milestone: Milestone = Milestone.WRITTEN, count: int = 1) -> Mark:
    return Mark("d", "device:d", "e", first, last, milestone, at_ms, count)


def test_adjacent_marks_become_one_with_the_time_of_the_first() -> None:
    world = Writing()
    for one in (mark(1, 2, 10), mark(3, 3, 11), mark(4, 9, 12)):
        world.writer.mark(one)
    assert len(world.turns) == 1
    world.settle()
    world.slow.finish()
    assert world.batches.marks == [[mark(1, 9, 10)]]


def test_marks_that_differ_in_anything_stay_apart() -> None:
    world = Writing()
    marks = [mark(1, 2)]
    marks.append(mark(4, 4))
    marks.append(mark(3, 3, milestone=Milestone.REJECTED))
    marks.append(mark(3, 3, count=2))
    marks += [replace(mark(3, 3), **other) for other in ({"device_id": "x"}, {"channel": "user:u"}, {"epoch": "f"})]
    for one in marks:
        world.writer.mark(one)
    world.settle()
    world.slow.finish()
    assert world.batches.marks == [marks]


def test_marks_and_undeliverable_ones_go_with_the_moves_of_their_turn_and_are_tried_again_together() -> None:
    world = Writing()
    failed = Undeliverable("d", "news", "e", 1, 10, "poison", 1)
    world.writer.mark(mark(1, 1, 5))
    world.writer.undeliverable(failed)
    move = world.move(1)
    world.settle()
    world.slow.fail()
    world.writer.mark(mark(2, 2, 6))
    later = replace(failed, offset=2)
    world.writer.undeliverable(later)
    world.pause()
    world.slow.finish()
    assert (world.batches.batches, world.batches.marks) == ([[move]], [[mark(1, 2, 5)]])
    assert world.batches.undeliverable == [[failed, later]]
    assert [call.name for call in world.slow.calls] == ["survey"]  # for the ids of the messages, which the log's lines name


def test_the_lines_of_dead_letters_name_no_message_if_the_store_cannot_be_asked_for_it() -> None:
    world = Writing()
    world.writer.undeliverable(Undeliverable("d", "news", "e", 1, 10, "poison", 1))
    world.settle()
    world.slow.finish()
    with capturedLogs() as lines:
        world.slow.fail()
    texts = [formatEvent(line) for line in lines]
    assert texts == ["dead letter of d: message unknown, offset 1 of news, 10 deliveries: poison"]
    assert not world.failures


def test_the_oldest_marks_are_dropped_and_counted_when_the_store_is_away_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "MAX_MARKS", 3)
    world = Writing()
    world.writer.mark(mark(10, 10))
    world.writer.mark(mark(20, 20))
    world.settle()
    with capturedLogs() as lines:
        for offset in (30, 40, 50):
            world.writer.mark(mark(offset, offset))
    assert world.metrics.named("marks_dropped") == [(1,), (1,)]  # those under way cannot be dropped
    assert [formatEvent(line).partition(":")[0] for line in lines] == ["the store is away for too long"]
    world.slow.fail()
    world.pause()
    with capturedLogs() as lines:
        world.slow.finish()
    assert [formatEvent(line) for line in lines] == ["2 milestones of receipts were dropped while the store was away"]
    assert world.batches.marks == [[mark(offset, offset) for offset in (10, 20, 50)]]


# ------------------------------------------------------------------------------------------------------------------- the end


def test_settling_waits_for_what_is_under_way_and_stores_what_came_meanwhile() -> None:
    world = Writing()
    world.move(1)
    world.settle()
    world.move(2)
    settled = Deferred.fromCoroutine(world.writer.settle())
    world.slow.finish()
    assert not settled.called
    assert len(world.slow.calls) == 1
    world.slow.finish()
    results: list[bool] = []
    settled.addCallback(results.append)
    assert (results, world.offset()) == ([True], 2)
    assert not world.slow.calls


def test_settling_gives_up_when_the_store_is_away() -> None:
    world = Writing()
    world.move(1)
    settled = Deferred.fromCoroutine(world.writer.settle())
    world.slow.fail()
    results: list[bool] = []
    settled.addCallback(results.append)
    assert results == [False]


def test_settling_tries_what_was_under_way_once_more() -> None:
    world = Writing()
    world.move(1)
    world.settle()
    settled = Deferred.fromCoroutine(world.writer.settle())
    world.slow.fail()
    world.slow.finish()
    results: list[bool] = []
    settled.addCallback(results.append)
    assert (results, world.offset()) == ([True], 1)


def test_settling_with_nothing_to_do_is_done() -> None:
    world = Writing()
    assert world.run(world.writer.settle())
    assert not world.slow.calls


def test_what_moves_after_settling_is_stored() -> None:
    world = Writing()
    world.move(1)
    settled = Deferred.fromCoroutine(world.writer.settle())
    world.slow.finish()
    assert settled.called
    world.settle()
    world.move(2)
    world.settle()
    world.slow.finish()
    assert world.offset() == 2
