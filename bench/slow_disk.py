"""twistd with a store whose every commit takes longer: a simulation of a slower disk, never to be shown as a measured one.

python -m bench.slow_disk MILLISECONDS --nodaemon streampush --config streampush.toml
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.scripts.twistd import run

from streampush.config import StoreConfig
from streampush.store.sqlite import store
from streampush.store.sqlite.batches import make_writer
from streampush.store.sqlite.worker import Report, Runner, Task


class SlowRunner:
    """Does batches with another runner, and sleeps behind each in the store's thread, as a commit waits for its disk there."""

    def __init__(self, runner: Runner, seconds: float) -> None:
        self._runner = runner
        self._seconds = seconds

    def run(self, tasks: Sequence[Task[Any]]) -> Report:
        report = self._runner.run(tasks)
        time.sleep(self._seconds)
        return report

    def close(self) -> None:
        self._runner.close()


def main() -> None:
    """Runs twistd with the arguments behind MILLISECONDS."""
    seconds = float(sys.argv.pop(1)) / 1000

    def make_slow_writer(path: str, limits: StoreConfig, *of_a_device: int) -> Runner:
        return SlowRunner(make_writer(path, limits, *of_a_device), seconds)

    vars(store)["make_writer"] = make_slow_writer
    launch: Callable[[], None] = run  # no types in Twisted
    launch()


if __name__ == "__main__":
    main()
