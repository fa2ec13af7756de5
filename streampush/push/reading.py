"""Whose turn it is to read the log: fair among all connections, and bounded."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from streampush.push.ports import Scheduler, Spawner


class Reader(Protocol):
    """A connection that has something to read."""

    async def read_on(self) -> None:
        """Reads one page at most. May ask for another turn meanwhile."""


class ReadQueue:
    """First come, first served: at most `at_most` readers begin in one turn of the reactor, and are under way at once.

    So a storm of reconnecting devices, or one with a long backlog, takes a bounded part of each turn and of the memory.
    """

    def __init__(self, at_most: int, call_soon: Scheduler, spawn: Spawner) -> None:
        self._at_most = at_most
        self._call_soon = call_soon
        self._spawn = spawn
        self._waiting: deque[Reader] = deque()
        self._under_way = 0
        self._called = False

    def ask(self, reader: Reader) -> None:
        """The reader gets a turn. It asks again when it has had it."""
        self._waiting.append(reader)
        self._call()

    def _call(self) -> None:
        if self._waiting and not self._called and self._under_way < self._at_most:
            self._called = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._called = False
        try:
            for _ in range(min(len(self._waiting), self._at_most - self._under_way)):
                self._under_way += 1
                self._spawn(self._read(self._waiting.popleft()))
        finally:
            self._call()

    async def _read(self, reader: Reader) -> None:
        try:
            await reader.read_on()
        finally:
            self._under_way -= 1
            self._call()
