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

    def enter(self, name: str, key: str = "k") -> Deferred[None]:
        gate = self.gates[name] = Deferred()

        async def work() -> None:
            async with self.turns.of(key):
                self.log.append(name)
                await gate

        done = Deferred.fromCoroutine(work())
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
    assert queue.turns._waiting == {}


def test_who_gives_up_waiting_is_passed_over() -> None:
    queue = Queue()
    queue.enter("a")
    waiting = queue.enter("b")
    queue.enter("c")
    waiting.cancel()
    assert queue.results["b"].check(CancelledError)  # type: ignore[attr-defined]  # a Failure
    queue.leave("a")
    assert queue.log == ["a", "c"]
