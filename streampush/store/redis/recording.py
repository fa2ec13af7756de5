"""See push.store_ports.CursorStore.record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streampush.config import StoreConfig
from streampush.protocol.terms import Durability, Milestone
from streampush.push.values import Appended, CursorMove, Mark, Undeliverable
from streampush.store.redis import entries
from streampush.store.redis.scripts import Scripts

COLUMNS = (Milestone.WRITTEN, Milestone.DELIVERED, Milestone.PROCESSED, Milestone.REJECTED, Milestone.DEAD_LETTERED)
"""Of a row of receipts, which in Lua are 1, 2 and so on: `lua/lib/receipts.lua`."""

AT_ONCE = 200
"""Marks, letters and moves that one run of the script is given: more than it can do."""

_FIRST = 3
"""Where a mark says at which offset it begins."""


class RedisRecording:
    """The part of the store that knows what devices have reached."""

    _scripts: Scripts
    _limits: StoreConfig
    _wall_ms: Callable[[], int]
    _ahead_ms: Callable[[], int]
    _max_dead_letters: int
    _max_cursors: int

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        """As push.store_ports.CursorStore.record. What is usual is one step. What is more than some milliseconds of Redis's time
        is done in several, in the same order; each begins where the one before it ended, the receipts of an entry are always of
        one step with the cursor that has passed it, and so are its recall and its dead letter."""
        left = _Left(moves, marks, undeliverable)
        told: list[Any] = [[], False]
        notices: list[Appended] = []
        now_ms = self._wall_ms()
        history = entries.history(self._limits, now_ms - self._ahead_ms())
        while left:
            done, goes_on, told, epoch, rows = await self._scripts.run(
                "record", *left.next(), told, now_ms, self._max_cursors, self._max_dead_letters, history
            )
            left.done(done, goes_on)
            notices += (entries.appended(row, epoch.decode(), Durability.MEMORY) for row in rows)  # nobody waits for replicas
        return notices


class _Left:
    """What of a call is to be done yet, in the order of the steps: marks, undeliverable, moves."""

    def __init__(self, moves: Sequence[CursorMove], marks: Sequence[Mark], undeliverable: Sequence[Undeliverable]) -> None:
        self._kinds: list[list[list[Any]]] = [
            [_mark(one) for one in marks],
            [_undeliverable(one) for one in undeliverable],
            [_move(one) for one in moves],
        ]
        self._begun = [0, 0, 0]

    def __bool__(self) -> bool:
        return any(begun < len(kind) for begun, kind in zip(self._begun, self._kinds, strict=True))

    def next(self) -> list[list[list[Any]]]:
        """The marks, undeliverable and moves of the next step."""
        room = AT_ONCE
        taken = []
        for begun, kind in zip(self._begun, self._kinds, strict=True):
            taken.append(kind[begun : begun + room])
            room -= len(taken[-1])
        return taken

    def done(self, counts: Sequence[int], goes_on: int) -> None:
        """So many of each are done; the next mark goes on at that offset, 0: at its beginning."""
        for place, count in enumerate(counts):
            self._begun[place] += count
        if goes_on:
            self._kinds[0][self._begun[0]][_FIRST] = goes_on


def _mark(one: Mark) -> list[Any]:
    column = COLUMNS.index(one.milestone) + 1
    return [one.device_id, one.channel, one.epoch, one.first, one.last, column, one.at_ms, one.count]


def _undeliverable(one: Undeliverable) -> list[Any]:
    return [one.device_id, one.channel, one.epoch, one.offset, one.attempts, one.reason, one.at_ms]


def _move(one: CursorMove) -> list[Any]:
    return [one.device_id, one.channel, one.epoch, one.offset, one.processed, one.attempts, one.at_ms, one.begun]
