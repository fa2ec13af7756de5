"""What is done to the server and its devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from twisted.internet import reactor

from tests.torture.disk import SmallDisk
from tests.torture.journal import Journal
from tests.torture.node import Node, pause
from tests.torture.phones import Phone

FREEZE = 4.0
"""Seconds that the server is stopped: longer than the heartbeat of a client, which gives it up after 3."""

FULL_TIMEOUT = 30.0
"""Seconds in which a server must notice that it can store nothing more."""


class Faults:
    """Does one after the other. `deeds`: what each fault does, by its name. `tell` hears of progress."""

    def __init__(self, node: Node, phones: list[Phone], journal: Journal, random: Random, tell: Callable[[str], None]) -> None:
        self.recoveries: list[float] = []  # seconds from the end of a fault to ready
        self.done: Counter[str] = Counter()
        self.deeds: dict[str, Callable[[], Awaitable[None]]] = {}
        self._node = node
        self._phones = phones
        self._journal = journal
        self._random = random
        self._tell = tell

    async def run(self, plan: list[str], deadline: float) -> None:
        """All of the plan, or what is done by then (seconds of the reactor)."""
        for number, fault in enumerate(plan, 1):
            if reactor.seconds() > deadline:
                return
            await self._meanwhile()
            self._journal.write("fault", what=fault)
            await self.deeds[fault]()
            self.done[fault] += 1
            if number % 10 == 0:
                counts = self._journal.counts
                self._tell(f"{number} of {len(plan)} faults, {counts['ack']} acknowledged, {counts['got']} delivered")

    async def _meanwhile(self) -> None:
        """Some load, and what devices do by themselves: lose the network, end, come back."""
        for _ in range(self._random.randrange(4)):
            phone, what = self._random.choice(self._phones), self._random.random()
            if what < 0.4:
                phone.drop()
                continue
            await (phone.stop() if what < 0.7 else phone.crash())
            await pause(self._random.uniform(0, 0.5))
            phone.start()
        await pause(self._random.uniform(0.2, 3))

    async def _recovered(self) -> None:
        began = reactor.seconds()
        await self._node.ready()
        self.recoveries.append(reactor.seconds() - began)


class NodeFaults(Faults):
    """Of one process and its disk."""

    def __init__(self, disk: SmallDisk, *others: Any) -> None:
        super().__init__(*others)
        self.unnoticed = 0  # full disks that did not make the server unready
        self.deeds = {"kill": self._kill, "freeze": self._freeze, "fill": self._fill}
        self._disk = disk

    async def _kill(self) -> None:
        """At any moment, at times also while the server is starting."""
        self._node.kill()
        self._node.start()
        if self._random.random() < 0.2:
            await pause(self._random.uniform(0.1, 1.5))
            self._node.kill()
            self._node.start()
        await self._recovered()

    async def _freeze(self) -> None:
        self._node.freeze()
        await pause(FREEZE)
        self._node.thaw()
        await self._recovered()

    async def _fill(self) -> None:
        """The disk is full until the server is not ready any more, and a while. It must become ready again by itself."""
        self._disk.fill()
        deadline = reactor.seconds() + FULL_TIMEOUT
        while await self._node.is_ready():
            if reactor.seconds() > deadline:
                self.unnoticed += 1
                break
            await pause(0.2)
            self._disk.fill()
        await pause(self._random.uniform(0, 1))
        if self._random.random() < 0.5:  # what a full disk has left behind must be good for a start, too
            self._disk.empty()
            await self._kill()
            return
        self._disk.empty()
        await self._recovered()
