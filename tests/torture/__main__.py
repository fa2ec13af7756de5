"""`make torture`: python -m tests.torture [--kills N] [--freezes N] [--fills N] [--seed N] [--seconds S] [--small-disk] ...

Kills the real server with SIGKILL at random moments, stops it with SIGSTOP for longer than a heartbeat, and fills its disk, all
under load; then compares what publishers were told with what devices got. With `--fills` there are two runs, the second on a small
disk that can be filled, unless `--small-disk` asks for one run with everything. Status 1 if a promise was broken.

`make torture-cluster`: with `--workers N` the server is a supervisor with so many workers over a real Redis; worker, supervisor and
Redis are killed and stopped, and workers drained (`--drains`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred

from tests.redis_server import NOT_HERE, PROGRAM
from tests.torture.run import Plan, Result, Torture, as_json

ENDED = 2
"""The status of a run that was ended by a signal."""


def say(text: str) -> None:
    print(text, flush=True)


def tell(text: str) -> None:
    """Of progress."""
    print(f"torture   {text}", file=sys.stderr, flush=True)


def report(result: Result) -> None:
    """The verdict, for people."""
    verdict, counts, faults = result.verdict, result.counts, result.faults
    done = ", ".join(f"{number} times {fault}" for fault, number in sorted(faults.items()))
    who = f"the supervisor of {result.plan.workers} workers" if result.plan.workers else "the server"
    say(f"torture   seed {result.plan.seed}: {done} in {result.seconds:.0f} s; {who} was started {counts['starts']} times")
    if result.skipped:
        say(f"skipped   the disk was not filled: {result.skipped}")
    again = counts["tries"] - counts["messages"]
    say(f"publish   {verdict.acknowledged} messages acknowledged; {again} tries had to be repeated; {counts['recalled']} recalled")
    say(
        f"deliver   {verdict.delivered} messages to {result.plan.phones} devices over {counts['connections']} connections, "
        f"{counts['recovered']} positions proven; {verdict.repeats} repeats suppressed by applications that were started anew; "
        f"{counts['dead']} dead letters; {counts['receipts']} receipts read"
    )
    if result.recoveries:
        typical, worst = statistics.median(result.recoveries), max(result.recoveries)
        say(f"recover   ready after {typical:.1f} s typically, {worst:.1f} s at worst")
    for text in result.broken:
        say(f"BROKEN    {text}")
    say("verdict   " + ("promises were broken" if result.broken else "I1 to I4 held"))


async def run_all(plans: list[Plan], *, json: bool) -> bool:
    """Whether all promises were kept in all runs."""
    kept = True
    for plan in plans:
        result = await Torture(plan, tell).run()
        if json:
            say(as_json(result))
        else:
            report(result)
        kept = kept and not result.broken
    return kept


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--freezes", type=int, default=3)
    parser.add_argument("--fills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=86_400.0, help="no new faults after so many seconds")
    parser.add_argument("--rate", type=float, default=120.0, help="messages a second")
    parser.add_argument("--phones", type=int, default=24)
    parser.add_argument("--publishers", type=int, default=8)
    parser.add_argument("--small-disk", action="store_true", help="one run, all of it on the disk that is filled")
    parser.add_argument("--workers", type=int, default=0, help="so many, over Redis; 0: one process, over SQLite")
    parser.add_argument("--drains", type=int, default=6, help="of workers")
    parser.add_argument("--json", action="store_true", help="the result as a line of JSON")
    parser.add_argument("--keep", type=Path, help="a folder for journals, logs and stores; otherwise they are removed")
    return parser.parse_args()


def main() -> None:
    a = parse()
    if a.workers and PROGRAM is None:
        say(f"skipped   {NOT_HERE}")
        return
    with tempfile.TemporaryDirectory(prefix="streampush-torture-") as folder:
        root = (a.keep or Path(folder)).absolute()
        plan = Plan(root / "1", a.seed, a.kills, a.freezes, a.fills, a.phones, a.publishers, a.rate, a.seconds, a.small_disk)
        plans = [plan]
        if a.workers:
            plans = [replace(plan, fills=0, small_disk=False, workers=a.workers, drains=a.drains)]
        elif a.fills and not a.small_disk:
            small = replace(plan, root=root / "2", kills=max(1, a.kills // 10), freezes=0, small_disk=True)
            plans = [replace(plan, fills=0), small]
        for one in plans:
            one.root.mkdir(parents=True, exist_ok=True)
        status: list[int] = []

        async def run() -> None:
            try:
                status.append(0 if await run_all(plans, json=a.json) else 1)
            except CancelledError:
                say("ended     by a signal, nothing was judged")
                status.append(ENDED)

        def begin(reactor: Any) -> Deferred[None]:
            running = Deferred.fromCoroutine(run())
            reactor.addSystemEventTrigger("before", "shutdown", running.cancel)  # what was started is ended
            return running

        try:
            task.react(begin)
        except SystemExit as end:
            sys.exit(end.code or status[0])


if __name__ == "__main__":
    main()
