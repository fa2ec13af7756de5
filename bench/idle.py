"""Server CPU of idle connections that only beat: milliseconds a second for each 1000 connections, 30 s heartbeats.

Both servers are measured in the same span of time. What each costs without any connection is measured first and subtracted.
"""

from __future__ import annotations

import time

from bench.arena import Contender, arena, compare, options_of, subjects_of
from bench.dialects import LoadError
from bench.report import Report

MS_PER_SECOND = 1e3


def watch(contenders: dict[str, Contender], seconds: float, *, connected: bool) -> dict[str, float]:
    """CPU seconds a second of each, all at the same time."""
    before = {name: (each.server.settled_cpu(), time.monotonic()) for name, each in contenders.items()}
    if connected:
        for each in contenders.values():
            each.load.start("idle", seconds=seconds)
        for name, each in contenders.items():
            if not each.load.finish():
                raise LoadError(f"{name} has sent no heartbeat")
    else:
        time.sleep(seconds)
    return {name: (each.server.cpu() - before[name][0]) / (time.monotonic() - before[name][1]) for name, each in contenders.items()}


def main(arguments: list[str] | None = None) -> None:
    sizes = (
        ("--connections", 1000, "connections"),
        ("--seconds", 60, "length of a measurement"),
        ("--alone", 15, "seconds to measure without connections"),
        ("--interval", 30, "seconds between heartbeats"),
    )
    options = options_of("idle", __doc__, 1, *sizes).parse_args(arguments)
    report = Report("idle")
    thousands = options.connections / 1000
    with arena(options.connections) as ring:
        contenders = {subject: ring.enter(subject, heartbeat=options.interval) for subject in subjects_of(options)}
        alone = watch(contenders, options.alone, connected=False)
        for each in contenders.values():
            each.load.call("connect", first=0, count=options.connections, subscribe=False)
        rounds = [watch(contenders, options.seconds, connected=True) for _ in range(options.rounds)]
    facts = {"connections": options.connections, "interval": options.interval, "seconds": options.seconds}
    for name in contenders:
        report.result("CPU without connections", name, "ms/s", [alone[name] * MS_PER_SECOND], seconds=options.alone)
    net = {name: [(each[name] - alone[name]) / thousands for each in rounds] for name in contenders}
    compare(report, "idle CPU per 1000 connections", "ms/s", MS_PER_SECOND, net, **facts)


if __name__ == "__main__":
    main()
