"""Many idle mutual-TLS connections on one machine, over several workers and one Redis: `twistd streampush --workers N`.

Time to connect all, memory of a connection, CPU of heartbeats; then one worker is told to drain (`streampush drain`): it tells
its devices when to come to another one, and they do: time until all are back. Workers, Redis and clients share all cores. Each
process, of the server and of the clients, must keep within its limit of file descriptors. Clients come from many addresses of
127.0.1.0/24.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.arena import MILLI, Arena, arena, options_of
from bench.dialects import LoadError
from bench.load import Load
from bench.moving import Moved, MovingClients
from bench.redis_server import REDIS, settings_of, start_redis
from bench.report import OURS, Report
from bench.servers import TWISTD, Server, configuration, cpu_of, free_port, memory_of

KIB = 1024
WORKERS = f"{OURS} workers"
NODE = "many"
SETTLE_SECONDS = 2.0
START_SECONDS = 60.0
PARALLEL = 32

AT_REST = 0.2
"""CPU seconds a second of all workers: their timers take less, their start takes more."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The supervisor with its workers, and Redis."""

    supervisor: Server
    redis: Server
    count: int
    log: Path
    key: str

    def workers(self) -> list[int]:
        """Process ids, in the order of their start. Raises LoadError if they do not all come."""
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children")
        deadline = time.monotonic() + START_SECONDS
        while len(found := children.read_text().split()) < self.count:
            if time.monotonic() > deadline:
                raise LoadError(f"{len(found)} of {self.count} workers have started")
            time.sleep(0.1)
        return [int(each) for each in found]

    def drain(self, number: int) -> None:
        """Orders this worker, from 1 on, to send its devices to the others. Raises LoadError."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        port = next(line["rest_port"] for line in lines if "rest_port" in line)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        connection.request("POST", f"/v1/nodes/{NODE}-{number}/drain", headers={"Authorization": f"Bearer {self.key}"})
        status = connection.getresponse().status
        connection.close()
        if status != http.client.OK:
            raise LoadError(f"the order to drain is answered with {status}")

    def settle(self) -> None:
        """Returns when all workers have started and come to rest. Raises LoadError."""
        deadline, before = time.monotonic() + START_SECONDS, self.cpu()
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self.cpu()
            if now - before < AT_REST:
                return
            before = now
        raise LoadError("the workers do not come to rest")

    def memory(self) -> int:
        """PSS of supervisor and workers, in bytes."""
        return self.supervisor.memory() + sum(memory_of(pid) for pid in self.workers())

    def cpu(self) -> float:
        """CPU seconds of supervisor and workers."""
        return self.supervisor.cpu() + sum(cpu_of(pid) for pid in self.workers())


def start_workers(ring: Arena, redis: Server, workers: int, connections: int, heartbeat: float) -> Processes:
    """A supervisor that listens, on all cores."""
    port = free_port()
    directory = ring.credentials.root / f"workers-{port}"
    directory.mkdir()
    limits = {"max_connections": 2 * connections + workers, "max_per_address": 2 * connections + workers}
    settings = {**settings_of(redis, NODE), "admission": limits}
    key = f"sp_{secrets.token_hex(16)}"
    toml = directory / "streampush.toml"
    may = f'\n[[rest.keys]]\nname = "bench"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\nscopes = ["nodes"]\n'
    toml.write_text(configuration(ring.credentials, port, heartbeat, settings) + may)
    command = [sys.executable, TWISTD, "--nodaemon", "--pidfile=", "streampush", "--config", str(toml), "--workers", str(workers)]
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
    server = Server(WORKERS, process, port, log)
    ring.servers.append(ring.stack.enter_context(server))
    server.wait_until_listening()
    processes = Processes(server, redis, workers, log, key)
    processes.settle()
    return processes


def at_all(loads: list[Load], connections: int, command: str) -> float:
    """Seconds that the loads take for their shares of the connections, all at once."""
    began = time.monotonic()
    for number, load in enumerate(loads):
        first, behind = (connections * each // len(loads) for each in (number, number + 1))
        load.start(command, first=first, count=behind - first, subscribe=False, parallel=PARALLEL)
    for load in loads:
        load.finish()
    return time.monotonic() - began


def beating(processes: Processes, loads: list[Load], seconds: float) -> tuple[float, float, int]:
    """CPU seconds a second of the workers and of Redis while clients answer heartbeats, or before any is connected; and how many
    they answered."""
    workers, redis, began = processes.cpu(), processes.redis.cpu(), time.monotonic()
    for load in loads:
        load.start("idle", seconds=seconds)
    answered = sum(load.finish() for load in loads)
    took = time.monotonic() - began
    return (processes.cpu() - workers) / took, (processes.redis.cpu() - redis) / took, answered


def moving(processes: Processes, loads: list[Load], patience: float) -> list[Moved]:
    """One worker is drained, and its devices come to the others."""
    for load in loads:
        load.start("move", patience=patience)
    processes.drain(1)
    return [load.answer() for load in loads]


def tell_moved(report: Report, moved: list[Moved], facts: dict[str, object]) -> None:
    """The lines of the drain."""
    subject = WORKERS
    report.result("drain of a worker: devices told when to come", subject, "devices", [sum(each.told for each in moved)], **facts)
    report.result("drain of a worker: devices cut without a word", subject, "devices", [sum(each.cut for each in moved)], **facts)
    report.result("drain of a worker: latest time that was given", subject, "s", [max(each.latest for each in moved)], **facts)
    missing = sum(each.missing for each in moved)
    report.result("drain of a worker: devices not back in the end", subject, "devices", [missing], **facts)
    if not missing:
        report.result("drain of a worker: until all are back", subject, "s", [max(each.back for each in moved)], **facts)


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--connections", 20_000, "connections"),
        ("--workers", 3, "workers, each for its share and that of one that is drained"),
        ("--clients", 2, "client processes, each for its share"),
        ("--seconds", 60, "length of the measurement of heartbeats"),
        ("--alone", 10, "seconds to measure without connections"),
        ("--interval", 30, "seconds between heartbeats"),
        ("--patience", 60, "seconds in which nobody leaves or comes back, until it is over"),
    )
    options = options_of("many", __doc__, 1, *sizes).parse_args(arguments)
    connections, thousands = options.connections, options.connections / 1000
    facts = {"connections": connections, "workers": options.workers}
    report, subject = Report("many"), WORKERS
    with arena(connections) as ring:
        redis = ring.stack.enter_context(start_redis(ring.credentials.root, ring.cores.clients))
        os.sched_setaffinity(redis.pid, range(os.cpu_count() or 1))
        processes = start_workers(ring, redis, options.workers, connections, options.interval)
        address, root = processes.supervisor.address, ring.credentials
        loads = [
            ring.stack.enter_context(Load(address, OURS, root, core, MovingClients))
            for core in (sorted(os.sched_getaffinity(0)) * options.clients)[: options.clients]
        ]
        alone, memory = beating(processes, loads, options.alone), processes.memory()
        cpu, redis_memory = processes.cpu(), redis.memory()
        seconds = at_all(loads, connections, "connect")
        report.result("connecting all", subject, "s", [seconds], **facts)
        each = (processes.cpu() - cpu) / connections
        report.result("connecting, CPU of workers a connection", subject, "ms", [each * MILLI], **facts)
        time.sleep(SETTLE_SECONDS)
        report.result("memory per idle connection", subject, "KiB", [(processes.memory() - memory) / connections / KIB], **facts)
        report.result("memory per device", REDIS, "KiB", [(redis.memory() - redis_memory) / connections / KIB], **facts)
        busy = beating(processes, loads, options.seconds)
        facts["interval"] = options.interval
        if not busy[2]:
            raise LoadError("no heartbeat came")
        report.result("heartbeats answered", subject, "heartbeats", [busy[2]], seconds=options.seconds, **facts)
        for name, before, after in zip((subject, REDIS), alone[:2], busy[:2], strict=True):
            report.result("CPU without connections", name, "ms/s", [before * MILLI], **facts)
            report.result("idle CPU per 1000 connections", name, "ms/s", [(after - before) / thousands * MILLI], **facts)
        tell_moved(report, moving(processes, loads, options.patience), facts)


if __name__ == "__main__":
    main()
