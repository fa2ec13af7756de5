"""One torture: the real server under load, killed, frozen, its disk filled, again and again; then the reckoning."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from streampush.cli.directory import DevelopmentDirectory
from tests.torture.cluster import Cluster
from tests.torture.cluster_faults import DRAINS, FREEZES, KILLS, ClusterFaults
from tests.torture.disk import SmallDisk
from tests.torture.faults import Faults, NodeFaults
from tests.torture.journal import Journal
from tests.torture.node import Node
from tests.torture.phones import Phone, kinds
from tests.torture.publishers import FramedPost, Post, Publisher, RestPost
from tests.torture.reckoning import Reckoning, integrity
from tests.torture.verdict import Judge, Verdict

SETTINGS = [
    *("heartbeat.interval=1", "heartbeat.reply_timeout=0.5", "heartbeat.misses=2", "heartbeat.min_ping_interval=0"),
    *("reconnect.first_jitter=0.3", "reconnect.backoff_initial=0.1", "reconnect.backoff_max=1", "reconnect.degraded_after=1000"),
    *("delivery.ack_timeout=1", "delivery.redelivery_max_interval=1", "delivery.max_attempts=6"),
    *("store.history_messages=10000000", "store.history_bytes=200000000", "session.drain_timeout=2"),
    *("probe.interval=0.5", "probe.failures=3", "log.sample_burst=1000"),
]
TOPICS = ["news/today", "news/late", "news/sports"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. `rate`: messages a second of all publishers together; `seconds`: when faults end at the latest.

    `small_disk`: the store is on a disk that can be filled, else beside the other files. `workers`: over Redis, so many; 0: one
    process over SQLite. `drains`: of workers.
    """

    root: Path
    seed: int = 1
    kills: int = 50
    freezes: int = 3
    fills: int = 0
    phones: int = 24
    publishers: int = 8
    rate: float = 120.0
    seconds: float = 86_400.0
    small_disk: bool = False
    workers: int = 0
    drains: int = 0


@dataclass(slots=True)
class Result:
    """What came of it. `broken` is empty if every promise was kept; `skipped`: why the disk was not filled."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    broken: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""


class Torture:
    """Made for one run. `tell` hears of its progress."""

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._random = Random(plan.seed)
        self._kinds = kinds(plan.phones, TOPICS)
        self._result = Result(plan)

    async def run(self) -> Result:
        """The result. Raises NeverReady if the server does not come up."""
        plan, result = self._plan, self._result
        self._mint()
        journal = Journal(plan.root / "journal.jsonl")
        began = reactor.seconds()
        try:
            await (self._over_redis(journal) if plan.workers else self._over_sqlite(journal))
        finally:
            journal.close()
        result.seconds = reactor.seconds() - began
        return result

    async def _over_sqlite(self, journal: Journal) -> None:
        plan, result = self._plan, self._result
        disk = SmallDisk(plan.root / "disk")
        if plan.small_disk:
            result.skipped = disk.mount()
        mounted = plan.small_disk and not result.skipped
        database = (disk.path if mounted else plan.root) / "streampush.db"
        node = Node(plan.root, [*SETTINGS, f"store.path={database}"])
        try:
            faults: list[NodeFaults] = []

            def made(phones: list[Phone], _: str) -> Faults:
                faults.append(NodeFaults(disk, node, phones, journal, self._random, self._tell))
                return faults[0]

            await self._story(node, journal, made, self._faults(plan.fills if mounted else 0))
            if faults[0].unnoticed:
                result.broken.append(f"{faults[0].unnoticed} full disks were not noticed")
            await self._end(node)
            if (found := integrity(database)) != "ok":
                result.broken.append(f"the SQLite file: {found}")
        finally:
            node.close()
            if mounted:
                disk.unmount()

    async def _over_redis(self, journal: Journal) -> None:
        plan = self._plan
        cluster = Cluster(plan.root, SETTINGS, plan.workers)
        try:

            def made(phones: list[Phone], key: str) -> Faults:
                return ClusterFaults(cluster, key, self._random, phones, journal, self._random, self._tell)

            await self._story(cluster, journal, made, self._cluster_faults())
            await self._end(cluster)
            if orphans := await cluster.orphans():
                self._result.broken.append(f"{len(orphans)} workers have outlived their supervisor")
        finally:
            cluster.close()

    async def _end(self, node: Node) -> None:
        status = await node.stop()
        if status not in (0, -15):  # twistd ends by the signal
            self._result.broken.append(f"the server ended with status {status}")

    def _mint(self) -> None:
        for left in self._plan.root.glob("streampush.db*"):  # of a run before this one
            left.unlink()
        command = [str(Path(sys.executable).with_name("streampush")), "init", str(self._plan.root), "--force"]
        for kind in self._kinds:
            command += ["--device", f"{kind.device}:{kind.user}" if kind.user else kind.device]
        for name in self._framed():
            command += ["--publisher", name]
        subprocess.run(command, check=True, capture_output=True)

    def _framed(self) -> list[str]:
        """The names of the publishers on the framed protocol: every second one."""
        return [f"backend-{n}" for n in range(1, self._plan.publishers, 2)]

    async def _story(self, node: Node, journal: Journal, made: Callable[[list[Phone], str], Faults], planned: list[str]) -> None:
        """`made` gives who does the faults, for these phones and a REST key."""
        plan, result = self._plan, self._result
        node.start()
        await node.ready()
        self._tell("the server is there")
        phones = [Phone(kind, node, plan.root, journal, Random(n)) for n, kind in enumerate(self._kinds)]
        for phone in phones:
            phone.start()
        for phone in phones:
            await phone.subscribe()
        key = DevelopmentDirectory(plan.root).rest_key.read_text().strip()
        publishers = self._publishers(node, key, journal)
        working = gatherResults([Deferred.fromCoroutine(publisher.run()) for publisher in publishers], consumeErrors=True)
        faults = made(phones, key)
        await faults.run(planned, reactor.seconds() + plan.seconds)
        for publisher in publishers:
            publisher.stop()
        await working
        await self._reckon(node, key, journal)
        for phone in phones:
            await phone.stop()
        result.recoveries = faults.recoveries
        result.faults = dict(faults.done)
        result.counts = {
            "starts": node.starts,
            "messages": sum(publisher.number for publisher in publishers),
            "tries": sum(publisher.tries for publisher in publishers),
            "connections": sum(phone.connects for phone in phones),
            "recovered": journal.counts["recovered"],
            "recalled": journal.counts["recalled"],
            "dead": journal.counts["dead"],
            "receipts": journal.counts["receipt"],
        }

    def _publishers(self, node: Node, key: str, journal: Journal) -> list[Publisher]:
        plan = self._plan
        channels = sorted({channel for kind in self._kinds for channel in kind.channels})
        interval = plan.publishers / plan.rate
        made = []
        for n in range(plan.publishers):
            name, random = f"backend-{n}", Random(1000 * plan.seed + n)
            rest = RestPost(node, key)
            post: Post = FramedPost(node, plan.root, name, rest, random) if name in self._framed() else rest
            made.append(Publisher(name, post, channels, interval, journal, random))
        return made

    def _faults(self, fills: int) -> list[str]:
        plan = self._plan
        faults = ["kill"] * plan.kills + ["freeze"] * plan.freezes + ["fill"] * fills
        self._random.shuffle(faults)
        return faults

    def _cluster_faults(self) -> list[str]:
        plan = self._plan
        numbers = {KILLS: plan.kills, FREEZES: plan.freezes, DRAINS: plan.drains}
        faults = [fault for kind, number in numbers.items() for fault in islice(cycle(kind), number)]
        self._random.shuffle(faults)
        return faults

    async def _reckon(self, node: Node, key: str, journal: Journal) -> None:
        self._tell("at rest; what is still on its way has time to arrive")
        judge = Judge({kind.device: kind.channels for kind in self._kinds})
        client = node.rest(key)
        reckoning = Reckoning(journal, judge, client, self._kinds, self._random)
        await reckoning.rest()
        await reckoning.ask()
        await client.close()
        self._result.verdict = judge.verdict()
        self._result.broken += [*self._result.verdict.violations, *reckoning.problems]


def as_json(result: Result) -> str:
    """One line for programs."""
    verdict = result.verdict
    return json.dumps(
        {
            "seed": result.plan.seed,
            "faults": result.faults,
            "seconds": round(result.seconds, 1),
            "acknowledged": verdict.acknowledged,
            "delivered": verdict.delivered,
            "repeats": verdict.repeats,
            "worst_recovery": round(max(result.recoveries, default=0.0), 2),
            "skipped": result.skipped,
            "broken": result.broken,
            **result.counts,
        }
    )
