"""Coroutines that wait for nothing, for one thing, for several, and that fail at each of these points."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from streampush.server.tasks import run


class Oops(Exception):
    """Raised on purpose."""


def start(work: Coroutine[Any, Any, None]) -> list[Failure]:
    failures: list[Failure] = []
    run(work, failures.append)
    return failures


def test_what_waits_for_nothing_is_done_at_once() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert start(work()) == []
    assert done == [1]


def test_results_and_failures_of_what_is_awaited_reach_the_coroutine() -> None:
    first: Deferred[int] = Deferred()
    second: Deferred[int] = Deferred()
    third: Deferred[int] = Deferred()
    seen: list[object] = []

    async def work() -> None:
        seen.append(await first)
        try:
            await second
        except Oops as error:
            seen.append(error)
        seen.append(await third)

    assert start(work()) == []
    first.callback(1)
    error = Oops()
    second.errback(error)
    third.callback(3)
    assert seen == [1, error, 3]


def test_a_deferred_that_has_fired_already_does_not_suspend() -> None:
    fired: Deferred[int] = Deferred()
    fired.callback(5)
    seen: list[int] = []

    async def work() -> None:
        seen.append(await fired)

    assert start(work()) == []
    assert seen == [5]


async def _at_once(ready: Deferred[None]) -> None:
    raise Oops


async def _later(ready: Deferred[None]) -> None:
    await ready
    raise Oops


async def _from_outside(ready: Deferred[None]) -> None:
    await ready
    failing: Deferred[None] = Deferred()
    failing.errback(Oops())
    await failing


@pytest.mark.parametrize("work", [_at_once, _later, _from_outside])
def test_what_it_raises_is_told(work: Callable[[Deferred[None]], Coroutine[Any, Any, None]]) -> None:
    ready: Deferred[None] = Deferred()
    failures = start(work(ready))
    ready.callback(None)
    assert [failure.type for failure in failures] == [Oops]
