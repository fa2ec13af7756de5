"""The servers under test: real processes on one core, with their CPU time and memory as the kernel counts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bench.credentials import PUBLISHER, Credentials
from bench.dialects import LoadError
from bench.report import OURS

START_SECONDS = 30.0
TWISTD = str(Path(sys.executable).with_name("twistd"))
NAIVE_SESSIONS = "naive with sessions"


@dataclass(frozen=True, slots=True)
class Cores:
    """Where servers and clients run: apart, if there are two cores."""

    server: int
    clients: int

    @classmethod
    def of_this_process(cls) -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])


class Server:
    """A running server. Use it as a context manager: it is stopped at the end."""

    def __init__(self, name: str, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.name = name
        self.address = ("127.0.0.1", port)
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """CPU seconds, user and system, of all its threads; to the nanosecond, unlike the ticks of /proc/PID/stat."""
        return cpu_of(self.pid)

    def settled_cpu(self) -> float:
        """The same, once the server has finished what it was given: less than 0.3 ms in 30 ms."""
        deadline = time.monotonic() + START_SECONDS
        before = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.03)
            now = self.cpu()
            if now - before < 0.0003:
                return now
            before = now
        raise LoadError(f"{self.name} does not come to rest")

    def cost(self, work: Callable[[], int]) -> float:
        """CPU seconds for each of the things that `work` says it did."""
        before = self.settled_cpu()
        done = work()
        return (self.settled_cpu() - before) / done

    def memory(self) -> int:
        """Its share of memory in bytes: PSS of /proc/PID/smaps_rollup."""
        return memory_of(self.pid)

    def explain(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LoadError(f"{self.name} has ended with status {self._process.returncode}:\n{self.explain()}")
            try:
                socket.create_connection(self.address, 1).close()
            except ConnectionRefusedError:
                time.sleep(0.05)
            else:
                return
        raise LoadError(f"{self.name} does not listen:\n{self.explain()}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, see Server.cpu."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) gives for a process


def memory_of(pid: int) -> int:
    """A process's share of memory, see Server.memory. Raises LoadError."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise LoadError("the kernel names no PSS")


Settings = Mapping[str, Mapping[str, object]]
"""Tables of streampush.toml, with what differs in them."""

SERIAL_BATCHES: Settings = {"store": {"max_batch": 1}}
"""One commit for each message."""


def start(
    subject: str,
    credentials: Credentials,
    core: int,
    *,
    heartbeat: float = 30.0,
    program: list[str] | None = None,
    settings: Settings | None = None,
) -> Server:
    """Starts a subject of the report: "streampush", "naive" or "naive with sessions", or "streampush" with a few words behind it.
    Raises LoadError if it does not listen.

    `program` replaces `python twistd` in front of streampush's arguments, for a profiler; `settings` those of `configuration`.
    """
    port = free_port()
    directory = credentials.root / f"{subject.replace(' ', '-')}-{port}"
    directory.mkdir()
    if subject.startswith(OURS):
        toml = directory / "streampush.toml"
        toml.write_text(configuration(credentials, port, heartbeat, settings or {}))
        launch = program or [sys.executable, TWISTD]
        arguments = [*launch, "--nodaemon", "--pidfile=", "streampush", "--config", str(toml)]
    else:
        arguments = [sys.executable, "-m", "bench.naive", f"--port={port}", f"--ca={credentials.ca}"]
        arguments += [f"--certificate={credentials.server_certificate}", f"--key={credentials.server_key}"]
        arguments += [f"--heartbeat={heartbeat}"]
        if subject == NAIVE_SESSIONS:
            arguments.append("--sessions")
    return launched(subject, core, arguments, port, directory)


def launched(subject: str, core: int, arguments: list[str], port: int, directory: Path) -> Server:
    """A server that listens. Raises LoadError."""
    log = directory / "log"
    with log.open("w") as output:
        process = launch_on(core, arguments, output)
    server = Server(subject, process, port, log)
    try:
        server.wait_until_listening()
    except LoadError:
        server.stop()
        raise
    return server


def launch_on(core: int, arguments: list[str], output: IO[str]) -> subprocess.Popen[str]:
    """A process on one core, from its first instruction on: children inherit the affinity."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, text=True)
    finally:
        os.sched_setaffinity(0, own)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def configuration(credentials: Credentials, port: int, heartbeat: float, settings: Settings) -> str:
    """The settings under test: the defaults, but for limits that a benchmark from one address runs into, and `settings`."""
    tables: dict[str, dict[str, object]] = {
        "listen": {"address": "127.0.0.1", "port": port},
        "tls": {
            "certificate": str(credentials.server_certificate),
            "key": str(credentials.server_key),
            "client_ca": str(credentials.ca),
        },
        "admission": {"max_connections": 19000, "max_per_address": 19000, "accept_rate": 1e6, "accept_burst": 100000},
        "heartbeat": {"interval": heartbeat, "reply_timeout": min(10.0, heartbeat)},
        "delivery": {"subscribe": ["bench/*"]},
        "publish": {"publisher_rate": 1e7, "publisher_burst": 10000000, "device_rate": 1e6, "device_burst": 1000000},
        "rest": {"port": 0},
        f"publishers.{PUBLISHER}": {"publish": ["*"]},
    }
    for table, values in settings.items():
        tables.setdefault(table, {}).update(values)
    lines = []
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"
