"""What one worker of several is told beside the configuration of all. Pure functions of a Config."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from streampush.config import Config
from streampush.supervisor.steering import BY_ADDRESS

LEAST_HANDSHAKE_SHARE: Final = 0.01
"""What the configuration takes at the least."""


def settings(config: Config, node_name: str, number: int, cores: int) -> tuple[str, ...]:
    """As "section.key=value", for worker `number` (from 1 on) of the node with this name, on a machine with so many cores.

    What bounds memory and descriptors of the node is shared out; the limit of an address is not where each address has one worker.
    What bounds the work of a core (accept_rate, handshakes under way) is not: each worker has its own core. Where there are more
    workers than cores, each promises to take so many fewer clients.
    """
    workers, admission = config.node.workers, config.admission
    handshakes = max(admission.handshake_share * min(1.0, cores / workers), LEAST_HANDSHAKE_SHARE)
    per_address = admission.max_per_address
    if config.listen.steering != BY_ADDRESS:
        per_address = _uneven_share(per_address, workers)
    return (
        "node.workers=0",
        "node.handover=",
        f"node.name={worker_name(node_name, number)}",
        f"admission.max_connections={_share(admission.max_connections, workers)}",
        f"admission.max_per_address={per_address}",
        f"admission.handshake_share={handshakes:.4f}",
    )


def worker_name(node_name: str, number: int) -> str:
    """The name of a worker as a node."""
    return f"{node_name}-{number}"


def _share(total: int, workers: int) -> int:
    return math.ceil(total / workers)


def _uneven_share(total: int, workers: int) -> int:
    """A share for connections of one address, which the kernel spreads by a hash: with three standard deviations of room, or who
    keeps to the limit of all would be refused by that worker which got some more than the others."""
    mean = total / workers
    return min(total, math.ceil(mean + 3 * math.sqrt(mean)))


def command(python: str, program: str, reactor: str | None, config_file: str, overrides: Sequence[str]) -> list[str]:
    """How a worker is launched: as its supervisor was, in the foreground, without a pidfile. `overrides` are for `--set`."""
    chosen = ["--reactor", reactor] if reactor else []
    sets = [word for override in overrides for word in ("--set", override)]
    return [python, "-c", program, *chosen, "--nodaemon", "--pidfile=", "streampush", "--config", config_file, *sets]
