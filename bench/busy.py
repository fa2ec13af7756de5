"""Appends, one after the other, while the thread that asks for them computes: what an append waits for beside a busy reactor.

The store's thread lets go of the interpreter at each step of SQLite and gets it again after a switch interval. `streampush` is with
the interval that a node sets, `python` with Python's own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.appending import Appends, BusyInbox
from bench.arena import MILLI, options_of
from bench.publishers import Round
from bench.report import OURS, Report, ratios
from streampush.node_service import SWITCH_INTERVAL

PYTHON = "python"


def main(arguments: list[str] | None = None) -> None:
    sizes = (("--messages", 200, "appends a round"), ("--payload", 128, "bytes of a message"))
    options = options_of("busy", __doc__, 7, *sizes).parse_args(arguments)
    intervals = {OURS: SWITCH_INTERVAL, PYTHON: sys.getswitchinterval()}
    samples: dict[str, list[Round]] = {name: [] for name in intervals}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = Appends(Path(folder) / "store.db", 1000, inbox=BusyInbox())
        for at in range(options.rounds + 1):  # the first one warms up
            for name, interval in intervals.items():
                sys.setswitchinterval(interval)
                measured = store.run(options.messages, 1, bytes(options.payload))
                if at:
                    samples[name].append(measured)
    sys.setswitchinterval(intervals[PYTHON])
    report = Report("busy")
    for figure, part in (("append beside a busy thread, p50", "p50"), ("append beside a busy thread, p99", "p99")):
        of = {name: [getattr(measured, part) * MILLI for measured in rounds] for name, rounds in samples.items()}
        for name, times in of.items():
            report.result(figure, name, "ms", times, switch_interval_ms=intervals[name] * MILLI)
        report.ratio(figure, OURS, PYTHON, ratios(of[OURS], of[PYTHON]))


if __name__ == "__main__":
    main()
