"""Runs coroutines that mostly do not wait, or for one thing only: each step is taken at once when it can be.

`Deferred.fromCoroutine` and `inlineCallbacks` cost more than the steps of a publish themselves (docs/performance.md): they
prepare for being cancelled and for giving a result, of which nothing is needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def run(work: Coroutine[Any, Any, None], failed: Callable[[Failure], object]) -> None:
    """Runs the coroutine to its end, over as many Deferreds as it awaits. What it raises goes to `failed`."""
    _Run(work, failed).step(work.send, None)


class _Run:
    """A coroutine on its way."""

    __slots__ = ("_failed", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], failed: Callable[[Failure], object]) -> None:
        self._work = work
        self._failed = failed

    def step(self, resume: Callable[[Any], Deferred[Any]], outcome: object) -> None:
        """As far as the next Deferred that has not fired: one that has does not suspend a coroutine."""
        try:
            awaited = resume(outcome)
        except StopIteration:
            return
        except Exception:  # noqa: BLE001 - whatever it is, its owner is told
            self._failed(Failure())  # type: ignore[no-untyped-call]  # Twisted has not annotated it
            return
        awaited.addCallbacks(self._succeeded, self._raised)

    def _succeeded(self, result: object) -> None:
        self.step(self._work.send, result)

    def _raised(self, failure: Failure) -> None:
        self.step(self._work.throw, failure.value)
