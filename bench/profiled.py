"""twistd under cProfile, for a part of its life: SIGRTMIN begins to count, SIGRTMAX writes the statistics to the file.

python -m bench.profiled FILE --nodaemon streampush --config streampush.toml
"""

from __future__ import annotations

import cProfile
import signal
import sys
from collections.abc import Callable

from twisted.scripts.twistd import run


def main() -> None:
    """Runs twistd with the arguments behind FILE."""
    file = sys.argv.pop(1)
    profiler = cProfile.Profile()

    def begin(number: int, frame: object) -> None:
        profiler.enable()

    def end(number: int, frame: object) -> None:
        profiler.disable()
        profiler.dump_stats(file)

    signal.signal(signal.SIGRTMIN, begin)
    signal.signal(signal.SIGRTMAX, end)
    launch: Callable[[], None] = run  # no types in Twisted
    launch()


if __name__ == "__main__":
    main()
