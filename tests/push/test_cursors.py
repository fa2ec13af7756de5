"""Stored cursors: batches, a store that is away, and faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from streampush.config import StoreConfig
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
