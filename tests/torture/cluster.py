"""Several workers under torture: a real Redis that stores each command before it answers, a supervisor, its workers."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

from twisted.internet import reactor

from tests.redis_server import RedisServer
from tests.torture.node import NeverReady, Node, pause

SETTINGS = [
    *("node.name=node", "node.worker_timeout=5", "store.backend=redis", "store.timeout=2"),
    "log.sample_burst=100000",  # the processes of the workers are read from the log
]

MOST_STARTS = 20
START_PAUSE = 1.0
"""How often a supervisor is started until it stays, and seconds in between."""

END_TIMEOUT = 20.0
"""Seconds in which workers are gone behind their supervisor."""


class Cluster(Node):
    """The supervisor is what is started, killed, stopped and continued; Redis and the workers are there besides."""

    def __init__(self, root: Path, settings: list[str], workers: int) -> None:
        self.redis = RedisServer("appendonly yes", "appendfsync always")
        self.redis.start()
        store = f"store.url={self.redis.url}"
        super().__init__(root, [*settings, *SETTINGS, store], "--workers", str(workers))
        self.names = [f"node-{number}" for number in range(1, workers + 1)]
        self._reader = (root / "server.log").open("rb")
        self._reader.seek(0, os.SEEK_END)  # of a run before this one
        self._rest = b""
        self._pids: dict[str, int] = {}
        self._all: set[int] = set()

    def worker(self, name: str) -> int:
        """The worker's process; 0 if it has none just now."""
        self._read()
        pid = self._pids.get(name, 0)
        return pid if pid and _lives(pid) else 0

    def signal(self, name: str, number: int) -> bool:
        """Sends a signal to a worker; whether it has a process."""
        pid = self.worker(name)
        if not pid:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def _read(self) -> None:
        *lines, self._rest = (self._rest + self._reader.read()).split(b"\n")
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a process that was killed
            if "starts as process" in record.get("event", ""):
                self._pids[record["worker"]] = record["pid"]
                self._all.add(record["pid"])

    async def ready(self) -> None:
        """Waits until it is. A supervisor whose ports are held by a worker of the one before, which was starting when that one was
        killed, ends with an error; it is started again, as an init system does it."""
        for _ in range(MOST_STARTS):
            try:
                await super().ready()
            except NeverReady:
                if self.alive:
                    raise
                await pause(START_PAUSE)
                self.start()
            else:
                return
        raise NeverReady("the supervisor did not start")

    async def orphans(self) -> list[int]:
        """Workers that are still there a while behind the end of their supervisor."""
        self._read()
        deadline = reactor.seconds() + END_TIMEOUT
        while (left := [pid for pid in self._all if _lives(pid)]) and reactor.seconds() < deadline:
            await pause(0.1)
        return left

    def close(self) -> None:
        """No process is left."""
        super().close()
        for name in self.names:
            self.signal(name, signal.SIGKILL)
        self.redis.stop()
        self._reader.close()


def _lives(pid: int) -> bool:
    """Whether this is a process of ours that has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z" and b"streampush" in command
