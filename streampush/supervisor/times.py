"""How long a supervisor waits for what: limits in seconds, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streampush.config import Config

SILENT_ASKS: Final = 3
"""Questions in a row without an answer that make a worker a hung one. A supervisor that was itself stopped for a while (a laptop's
lid, a virtual machine that moved) finds one question late when it goes on, and not three."""

_MOST_BETWEEN_ASKS: Final = 1.0
_SLOWEST_STOP: Final = 30.0


@dataclass(frozen=True, slots=True)
class Times:
    """All in seconds."""

    ask_interval: float = 1.0
    """From an answer to the next question; what `/readyz` says is at most so old."""
    ask_deadline: float = 5.0
    """For an answer. A busy worker's reactor may be late by a second or two."""
    start_deadline: float = 60.0
    """For a new process to answer for the first time: imports on a slow and busy machine take many seconds."""
    end_deadline: float = 2.0
    """For a hung process to take a SIGTERM, before SIGKILL. What hangs will hardly take it."""
    stop_deadline: float = 40.0
    """For a worker to drain, see `of`; what is left then is killed."""
    hurry_deadline: float = 20.0
    """The same from the moment when somebody does not want to wait: store and Apple's answers still have their 10 s."""
    first_wait: float = 0.5
    """Before a worker that died is started again; doubles with each death."""
    longest_wait: float = 30.0
    """The longest of these: a fault that is mended from outside (Redis, a file) is found so late."""
    steady_after: float = 60.0
    """A worker that ran for so long was started well, and its next wait is the first again."""
    queue_patience: float = 2.0
    """A dead worker's connections wait for its successor in the kernel's queue, if it comes within this; a longer wait is worse
    than a reset, after which the client is taken by another worker."""

    @classmethod
    def of(cls, config: Config) -> Times:
        """As the configuration asks for."""
        third = config.node.worker_timeout / SILENT_ASKS
        interval = min(_MOST_BETWEEN_ASKS, third / 2)
        stop = config.session.drain_timeout + _SLOWEST_STOP  # devices; then Apple's answers and the store, 10 s each
        return cls(ask_interval=interval, ask_deadline=third - interval, stop_deadline=stop)
