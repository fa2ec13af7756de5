"""Runs scenarios: `python -m tests.simulation SEED [COUNT] [--trace] [--processes N]`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.scenario import EXPECTED, Scenario, simulate

BLOCK = 50
"""Seeds that a process runs before it collects its garbage, and is given the next ones."""

MANY = 1000
"""Seeds in which everything has to happen that the simulation is about."""


def run_block(seeds: range) -> tuple[list[tuple[int, str]], Counter[str]]:
    """The seeds that fail, each with what went wrong; and how often what has happened."""
    gc.disable()  # scenarios are full of cycles, and are dropped together
    failures: list[tuple[int, str]] = []
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen += simulate(seed).seen
        except Exception:  # noqa: BLE001 - whatever it is, the seed has failed
            failures.append((seed, traceback.format_exc()))
    gc.collect()
    return failures, seen


def replay(seed: int, *, tracing: bool) -> int:
    """One scenario, with what happened in it."""
    scenario = Scenario(seed, tracing=tracing)
    status = 0
    try:
        scenario.run()
    except Exception:  # noqa: BLE001 - it is shown
        status = 1
        problem = traceback.format_exc()
    print(*scenario.lines, sep="\n")
    print(problem if status else f"seed {seed}: every invariant holds")
    return status


def run_many(first: int, count: int, processes: int) -> int:
    blocks = [range(start, min(start + BLOCK, first + count)) for start in range(first, first + count, BLOCK)]
    begun = time.monotonic()
    failed = 0
    seen: Counter[str] = Counter()
    gc.freeze()
    with ProcessPoolExecutor(processes) as pool:
        for failures, seen_there in pool.map(run_block, blocks):
            seen += seen_there
            for seed, problem in failures:
                failed += 1
                print(f"seed {seed} fails; replay it with: make simulate SEED={seed}\n{problem}")
    print("seen:", ", ".join(f"{name} {seen[name]}" for name in sorted(seen.keys() | EXPECTED)))
    never = EXPECTED - seen.keys() if count >= MANY else frozenset()
    if never:
        print("never seen, so that nothing is known of it:", ", ".join(sorted(never)))
    print(f"{count} scenarios, seeds {first} to {first + count - 1}: {failed} failed, {time.monotonic() - begun:.0f} s")
    return 1 if failed or never else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulates the server and its clients.")
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many seeds; with 1 the scenario is replayed here")
    parser.add_argument("--trace", action="store_true", help="print what happens (one seed)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many seeds run at a time")
    options = parser.parse_args()
    if options.count == 1:
        return replay(options.seed, tracing=options.trace)
    return run_many(options.seed, options.count, options.processes)


if __name__ == "__main__":
    sys.exit(main())
