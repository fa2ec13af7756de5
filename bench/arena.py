"""Servers with their load processes, side by side for one benchmark, and the options that all benchmarks have."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.clients import Clients
from bench.credentials import Credentials, mint
from bench.dialects import LoadError
from bench.load import Commands, Load
from bench.report import NAIVE, OURS, Report, ratios
from bench.servers import Cores, Server, Settings, start

MICRO = 1e6
MILLI = 1e3


@dataclass(frozen=True, slots=True)
class Contender:
    """A server and the process with its clients."""

    server: Server
    load: Load


@dataclass(frozen=True, slots=True)
class Arena:
    """Credentials and cores of a run; `enter` starts a contender that ends with the arena."""

    credentials: Credentials
    cores: Cores
    stack: ExitStack
    servers: list[Server]

    def enter(
        self,
        subject: str,
        *,
        heartbeat: float = 30.0,
        settings: Settings | None = None,
        program: list[str] | None = None,
        clients: Commands = Clients,
    ) -> Contender:
        """Starts a server, see bench.servers.start, and a process with `clients` for it."""
        core = self.cores.server
        server = start(subject, self.credentials, core, heartbeat=heartbeat, settings=settings, program=program)
        return self.join(server, clients)

    def enter_connected(
        self, subjects: Iterable[str], devices: int, *, subscribe: bool, clients: Commands = Clients
    ) -> dict[str, Contender]:
        """Each of the subjects with so many devices connected, and a publisher."""
        contenders = {subject: self.enter(subject, clients=clients) for subject in subjects}
        for each in contenders.values():
            each.load.call("connect", first=0, count=devices, subscribe=subscribe)
            each.load.call("connect_publisher")
        return contenders

    def join(self, server: Server, clients: Commands = Clients) -> Contender:
        """A server that was started elsewhere, with its clients."""
        self.stack.enter_context(server)
        self.servers.append(server)
        load = self.stack.enter_context(Load(server.address, server.name, self.credentials, self.cores.clients, clients))
        return Contender(server, load)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


@contextmanager
def arena(devices: int) -> Iterator[Arena]:
    """Mints certificates for so many devices in a directory that goes away with the servers, also at SIGTERM.

    After a LoadError the end of each server's log is on stderr.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="streampush-bench-") as root, ExitStack() as stack:
            ring = Arena(mint(Path(root), devices), Cores.of_this_process(), stack, [])
            try:
                yield ring
            except LoadError:
                for server in ring.servers:
                    print(f"--- {server.name}\n{server.explain()}", file=sys.stderr)
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def options_of(name: str, purpose: str | None, rounds: int, *more: tuple[str, int, str]) -> argparse.ArgumentParser:
    """A parser with the options that all have, and `more` numbers: (name, default, meaning)."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=purpose)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measurements of each subject (default {rounds})")
    parser.add_argument("--only", choices=(OURS, NAIVE), help="leave the other one out")
    for option, default, meaning in more:
        parser.add_argument(option, type=int, default=default, help=f"{meaning} (default {default})")
    return parser


def subjects_of(options: argparse.Namespace) -> tuple[str, ...]:
    return (options.only,) if options.only else (OURS, NAIVE)


def take_turns(work: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = False) -> dict[str, list[float]]:
    """A, B, A, B ...: a slow moment of the machine hits both. `warm_up`: one more round in front that does not count."""
    samples: dict[str, list[float]] = {name: [] for name in work}
    for at in range(rounds + warm_up):
        for name, once in work.items():
            value = once()
            if at or not warm_up:
                samples[name].append(value)
    return samples


def compare(report: Report, figure: str, unit: str, scale: float, samples: Mapping[str, Sequence[float]], **facts: object) -> None:
    """The lines of a figure for each subject and, if both are there, the ratio ours to naive."""
    for name, values in samples.items():
        report.result(figure, name, unit, [value * scale for value in values], **facts)
    if OURS in samples and NAIVE in samples:
        report.ratio(figure, OURS, NAIVE, ratios(samples[OURS], samples[NAIVE]), **facts)
