"""What is done to several workers, their supervisor and their Redis."""

from __future__ import annotations

import signal
from random import Random
from typing import Any

from twisted.internet import reactor

from streampush.cli.exits import Failure
from tests.torture.cluster import Cluster
from tests.torture.faults import FREEZE, Faults
from tests.torture.node import pause

KILLS = ("worker killed", "redis killed", "worker killed", "supervisor killed")
FREEZES = ("worker frozen", "redis frozen", "supervisor frozen")
DRAINS = ("node drained", "worker ended")
"""In turn."""

ORDER_TIMEOUT = 60.0
"""Seconds in which an order for a node must be taken by somebody."""


class Unheard(Exception):
    """Nobody took an order."""


class ClusterFaults(Faults):
    """Of the whole."""

    def __init__(self, cluster: Cluster, key: str, random: Random, *others: Any) -> None:
        super().__init__(cluster, *others)
        self._cluster = cluster
        self._chance = random
        self._key = key
        self.deeds = {
            "worker killed": self._kill_worker,
            "worker frozen": self._freeze_worker,
            "worker ended": self._end_worker,
            "redis killed": self._kill_redis,
            "redis frozen": self._freeze_redis,
            "supervisor killed": self._kill_supervisor,
            "supervisor frozen": self._freeze_supervisor,
            "node drained": self._drain,
        }

    async def _some_worker(self) -> str:
        """One that has a process; those that die often are not started again at once."""
        while True:
            living = [name for name in self._cluster.names if self._cluster.worker(name)]
            if living:
                return self._chance.choice(living)
            await pause(0.1)

    async def _kill_worker(self) -> None:
        self._cluster.signal(await self._some_worker(), signal.SIGKILL)
        await self._recovered()

    async def _end_worker(self) -> None:
        """It drains, and its supervisor starts another."""
        self._cluster.signal(await self._some_worker(), signal.SIGTERM)
        await self._recovered()

    async def _freeze_worker(self) -> None:
        """For longer than a heartbeat; at times until its supervisor has given it up."""
        name = await self._some_worker()
        frozen = self._cluster.worker(name)
        self._cluster.signal(name, signal.SIGSTOP)
        if self._chance.random() < 0.5:
            await pause(FREEZE)
            self._cluster.signal(name, signal.SIGCONT)
        else:
            while self._cluster.worker(name) == frozen:
                await pause(0.2)
        await self._recovered()

    async def _kill_redis(self) -> None:
        """It has stored what it had answered, and nothing else is known. Half of the devices lose the network then: they come back
        over the new epoch, the others are told of it where they are."""
        self._cluster.redis.kill()
        for phone in self._phones:
            if self._chance.random() < 0.5:
                phone.drop()
        await pause(self._chance.choice((0.0, 0.5, 3.0)))
        self._cluster.redis.start()
        await self._recovered()

    async def _freeze_redis(self) -> None:
        self._cluster.redis.freeze()
        await pause(FREEZE)
        self._cluster.redis.thaw()
        await self._recovered()

    async def _kill_supervisor(self) -> None:
        """Its workers drain and end by themselves, while those of the next one start."""
        self._cluster.kill()
        await pause(self._chance.choice((0.0, 0.5)))
        self._cluster.start()
        await self._recovered()

    async def _freeze_supervisor(self) -> None:
        """Nobody looks after the workers meanwhile."""
        self._cluster.freeze()
        await pause(FREEZE)
        self._cluster.thaw()
        await self._recovered()

    async def _drain(self) -> None:
        name = self._chance.choice(self._cluster.names)
        await self._order(name, "drain")
        await pause(self._chance.uniform(2, 6))
        await self._order(name, "undrain")
        await self._recovered()

    async def _order(self, name: str, what: str) -> None:
        client = self._cluster.rest(self._key)
        deadline = reactor.seconds() + ORDER_TIMEOUT
        status = 0
        while status != 200:
            if reactor.seconds() > deadline:
                raise Unheard(f"{what} {name}: {status}")
            try:
                status, _ = await client.ask("POST", f"/v1/nodes/{name}/{what}")
            except Failure:
                await pause(0.2)
        await client.close()
