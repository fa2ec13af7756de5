"""All benchmarks one after the other, half an hour or more: `python -m bench`, which is what `make bench` runs."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.report import Report

BENCHES = (
    "decoder",
    "http2",
    "apns",
    "recovery",
    "follow_ups",
    "fanout",
    "unicast",
    "handshakes",
    "memory",
    "idle",
    "durable",
    "busy",
    "latency",
    "backlog",
    "followers",
    "storage",
    "redis_store",
    "hop",
    "workers",
    "many",
)


LOOPS = 1_000_000
YARDSTICK_RUNS = 5


def yardstick() -> float:
    """CPU seconds of an empty loop: how fast the machine is at this moment, to read figures of different hours side by side."""
    began = time.process_time()
    for _ in range(LOOPS):
        pass
    return time.process_time() - began


def main() -> int:
    """Runs each in a process of its own; gives how many failed."""
    failed = 0
    for name in BENCHES:
        samples = [yardstick() * 1e3 for _ in range(YARDSTICK_RUNS)]
        Report("machine").result("yardstick, a million empty loops", "python", "ms", samples, before=name)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
