"""Runs coroutines that mostly do not wait: the first step is taken at once, and only one that suspends becomes a Deferred.

A Deferred for each publish costs fourteen times as much as the step itself (docs/performance.md), and the store in memory never
suspends.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure


def run(work: Coroutine[Any, Any, None], failed: Callable[[Failure], object]) -> None:
    """Runs the coroutine to its end, over as many Deferreds as it awaits. What it raises goes to `failed`."""
    try:
        awaited = work.send(None)
    except StopIteration:
        return
    except Exception:  # noqa: BLE001 - whatever it is, its owner is told
        failed(Failure())  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        return
    _rest(work, awaited).addErrback(failed)


@inlineCallbacks
def _rest(work: Coroutine[Any, Any, None], awaited: Deferred[Any]) -> Generator[Deferred[Any], Any, None]:
    """The steps behind the first; `awaited` is what the coroutine waits for."""
    result: Any = None
    while True:
        try:
            result = yield awaited
        except Exception as error:  # noqa: BLE001 - it is the coroutine's to deal with
            caught: Exception | None = error
        else:
            caught = None
        try:
            awaited = work.send(result) if caught is None else work.throw(caught)
        except StopIteration:
            return
