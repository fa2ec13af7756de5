"""Appends of one turn of the reactor, stored by one script.

Theory of operation. A script costs Redis some 30 us before it does anything, and the node a command, a coroutine and an answer to
read: together as much as a publication itself. So what is to be appended is gathered until the turn is over. It waits for nobody: a
command leaves at that time, too, because that is when Twisted writes a socket.

The script appends one after the other, in the order in which they came. What one is refused for, or fails of, is its own; what
befalls the script (Redis is away, or takes no writes) befalls all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.push.ports import Scheduler
from streampush.store.redis.scripts import ScriptFailed, Scripts

APPEND_AT_MOST = 50
"""Publications of one script, of some 60 us each: Redis does nothing else meanwhile."""

APPEND_BYTES = 256 * 1024
"""Bytes of them after which a script is full: so long one command keeps others waiting on the way."""

Stored = tuple[str, Any]
"""The epoch, and an answer of `lua/append.lua`: the offset of what is new in its log, or a list."""


class Appends:
    """`scripts` run `append`; `terms` gives what it is told behind the drafts: the time, and limits. `call_soon` runs a function
    when the turn is over. `at_most`: drafts without an answer."""

    def __init__(self, scripts: Scripts, terms: Callable[[], Sequence[Any]], call_soon: Scheduler, at_most: int) -> None:
        self._scripts = scripts
        self._terms = terms
        self._call_soon = call_soon
        self._at_most = at_most
        self._gathered: deque[tuple[Sequence[Any], int, Deferred[Stored]]] = deque()
        self._is_due = False
        self._under_way = 0
        self._scripts_under_way = 0

    @property
    def more_waiting(self) -> int:
        """How many more wait for Redis than there are commands under way for them."""
        return self._under_way - self._scripts_under_way

    def append(self, draft: Sequence[Any], size: int) -> Deferred[Stored]:
        """What is stored of {draft, asked} as `lua/append.lua` takes it, with so many bytes. Raises Refused, StoreUnavailable."""
        if self._under_way >= self._at_most:
            return fail(StoreUnavailable(f"{self._under_way} appends wait for Redis, as many as may (store.max_queue)"))
        stored: Deferred[Stored] = Deferred()
        self._gathered.append((draft, size, stored))
        self._under_way += 1
        if not self._is_due:
            self._is_due = True
            self._call_soon(self._send)
        return stored

    def _send(self) -> None:
        self._is_due = False
        while self._gathered:
            drafts: list[Sequence[Any]] = []
            waiting: list[Deferred[Stored]] = []
            left = APPEND_BYTES
            while self._gathered and left > 0 and len(drafts) < APPEND_AT_MOST:
                draft, size, stored = self._gathered.popleft()
                drafts.append(draft)
                waiting.append(stored)
                left -= size
            self._scripts_under_way += 1
            Deferred.fromCoroutine(self._scripts.run("append", drafts, *self._terms())).addBoth(self._answered, waiting)

    def _answered(self, outcome: Any, waiting: Sequence[Deferred[Stored]]) -> None:
        self._scripts_under_way -= 1
        self._under_way -= len(waiting)
        if not isinstance(outcome, Failure) and not _fits(outcome, len(waiting)):
            problem = ScriptFailed("script append: Redis has answered something else")
            outcome = Failure(problem)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if isinstance(outcome, Failure):
            for stored in waiting:
                stored.errback(outcome)
            return
        of_epoch, answers = outcome
        epoch = of_epoch.decode()
        for stored, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, list) and len(answer) == len(_REFUSAL):
                stored.errback(self._refusal(*answer))
            else:
                stored.callback((epoch, answer))

    def _refusal(self, code: int, detail: bytes) -> Exception:
        text = detail.decode(errors="replace")
        return Refused(Code(code), text) if code else self._scripts.error("append", ScriptFailed(text))


def _fits(outcome: Any, number: int) -> bool:
    """Whether it is an answer to so many: else nobody who waits would ever hear."""
    return (
        isinstance(outcome, list)
        and len(outcome) == 2
        and isinstance(outcome[0], bytes)
        and isinstance(outcome[1], list)
        and len(outcome[1]) == number
    )


_REFUSAL = ("code", "detail")

__all__ = ["APPEND_AT_MOST", "APPEND_BYTES", "Appends", "Stored"]
