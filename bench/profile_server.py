"""Where streampush's time goes: the functions that take most of it, from cProfile. Not a benchmark: the profiler itself triples
the time, calls look dearer than they are, and it counts by the clock on the wall."""

from __future__ import annotations

import argparse
import os
import pstats
import signal
import sys
import time
from pathlib import Path

from bench.arena import arena, options_of
from bench.load import Load
from bench.report import OURS
from bench.servers import start

WRITE_SECONDS = 30.0


def wait_for(file: Path) -> None:
    """Until the statistics are there. Raises TimeoutError."""
    deadline = time.monotonic() + WRITE_SECONDS
    while not file.exists() or not file.stat().st_size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no statistics in {file}")
        time.sleep(0.05)
    time.sleep(0.2)


def arguments_of(options: argparse.Namespace) -> dict[str, object]:
    """For the method of bench.clients.Clients that `--work` names."""
    if options.work == "handshakes":
        return {"first": 0, "count": options.devices, "greet": True, "resume": False}
    phase: dict[str, object] = {"messages": options.messages, "payload": bytes(128)}
    phase["burst" if options.work == "broadcast" else "window"] = options.in_flight
    if options.work != "publish_to_nobody":
        phase["ack_every"] = options.ack_every
    return phase


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--devices", 1000, "connections"),
        ("--messages", 50, "messages"),
        ("--in-flight", 1, "messages in flight"),
        ("--ack-every", 1, "deliveries that one acknowledgement covers"),
        ("--lines", 40, "functions to print"),
    )
    parser = options_of("profile_server", __doc__, 1, *sizes)
    parser.add_argument("--work", choices=("broadcast", "unicast", "publish_to_nobody", "handshakes"), default="broadcast")
    parser.add_argument("--sort", choices=("tottime", "cumtime"), default="tottime", help="own time, or with callees")
    options = parser.parse_args(arguments)
    with arena(options.devices) as ring:
        statistics = ring.credentials.root / "statistics"
        program = [sys.executable, "-m", "bench.profiled", str(statistics)]
        server = ring.stack.enter_context(start(OURS, ring.credentials, ring.cores.server, program=program))
        load = ring.stack.enter_context(Load(server.address, OURS, ring.credentials, ring.cores.clients))
        if options.work != "handshakes":
            load.call("connect", first=0, count=options.devices, subscribe=True)
            load.call("connect_publisher")
        phase = arguments_of(options)
        load.call(options.work, **phase)
        os.kill(server.pid, signal.SIGRTMIN)
        load.call(options.work, **phase)
        server.settled_cpu()
        os.kill(server.pid, signal.SIGRTMAX)
        wait_for(statistics)
        pstats.Stats(str(statistics)).sort_stats(options.sort).print_stats(options.lines)


if __name__ == "__main__":
    main()
