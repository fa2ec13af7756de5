"""All benchmarks one after the other, a few minutes in all: `python -m bench`, which is what `make bench` runs."""

from __future__ import annotations

import subprocess
import sys

BENCHES = ("decoder", "fanout", "unicast", "handshakes", "memory", "idle")


def main() -> int:
    """Runs each in a process of its own; gives how many failed."""
    commands = ([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]] for name in BENCHES)
    return sum(subprocess.run(command, check=False).returncode != 0 for command in commands)


if __name__ == "__main__":
    sys.exit(main())
