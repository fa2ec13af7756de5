from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred

from streampush.push.turns import Turns


class Queue:
    """Coroutines that take a turn and give it back when told to."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.log: list[str] = []
        self.gates: dict[str, Deferred[None]] = {}
        self.results: dict[str, object] = {}
        self.waited: dict[str, Deferred[None]] = {}

    def enter(self, name: str, key: str = "k") -> Deferred[None]:
        gate = self.gates[name] = Deferred()

        async def work() -> None:
            async with self.turns.of(key):
                self.log.append(name)
                await gate

        done = self.waited[name] = Deferred.fromCoroutine(work())
        done.addBoth(lambda result: self.results.update({name: result}))
        return done

    def leave(self, name: str, how: Callable[[Deferred[None]], None] = lambda gate: gate.callback(None)) -> None:
        how(self.gates[name])


def test_one_at_a_time_and_first_come_first_served() -> None:
    queue = Queue()
    for name in "abc":
        queue.enter(name)
    assert queue.log == ["a"]
    queue.leave("a")
    assert queue.log == ["a", "b"]
    queue.leave("b")
    assert queue.log == ["a", "b", "c"]


def test_other_keys_do_not_wait() -> None:
    queue = Queue()
    queue.enter("a", "one")
    queue.enter("b", "two")
    assert queue.log == ["a", "b"]


@pytest.mark.parametrize("failing", [True, False])
def test_nothing_is_kept_when_nobody_has_a_turn_also_after_a_failure(failing: bool) -> None:
    queue = Queue()
    queue.enter("a")
    queue.enter("b")
    queue.leave("a", lambda gate: gate.errback(ZeroDivisionError()) if failing else gate.callback(None))
    queue.leave("b")
    assert queue.turns._queues == {}


def test_who_gives_up_waiting_is_passed_over() -> None:
    queue = Queue()
    queue.enter("a")
    waiting = queue.enter("b")
    queue.enter("c")
    waiting.cancel()
    assert queue.results["b"].check(CancelledError)  # type: ignore[attr-defined]  # a Failure
    queue.leave("a")
    assert queue.log == ["a", "c"]


def test_any_number_of_those_who_wait_may_be_done_at_once() -> None:
    queue = Queue()
    queue.enter("first")
    for number in range(5_000):
        queue.enter(str(number))
        queue.leave(str(number))
    queue.leave("first")
    assert queue.log == ["first", *map(str, range(5_000))]
    assert queue.turns._queues == {}


def test_who_comes_while_others_are_woken_waits_for_them() -> None:
    queue = Queue()
    for name in "abc":
        queue.enter(name)
    queue.leave("b")
    queue.waited["b"].addCallback(lambda result: queue.waited.update(d=queue.enter("d")))
    queue.leave("a")
    assert queue.log == ["a", "b", "c"]
    queue.leave("c")
    assert queue.log == ["a", "b", "c", "d"]
