"""A worker's process: how it is started, told and ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from streampush.supervised import LIFELINE, Supervised, Told
from streampush.supervisor.queues import Queue
from streampush.supervisor.roster import Death

FIRST_INHERITED: Final = 3
"""The descriptor of the first inherited socket, as systemd's protocol has it (sd_listen_fds(3))."""

_NOT_INHERITED: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""What the service manager told the supervisor, and no worker."""


class WorkerProcess(ProcessProtocol):
    """One process. `ended` is called once, with how it ended, if `start` has not raised."""

    transport: Any  # an IProcessTransport

    def __init__(self, ended: Callable[[Death], None]) -> None:
        self._ended = ended
        self._listens = False

    def start(
        self,
        reactor: Any,
        command: Sequence[str],
        environ: Mapping[str, str],
        place: Supervised,
        queues: Sequence[Queue],
        log: int,
    ) -> None:
        """Starts the process, with `log` as its standard output. Raises OSError if the system cannot."""
        inherited = {FIRST_INHERITED + index: queue.socket.fileno() for index, queue in enumerate(queues)}
        variables = {
            **{name: value for name, value in environ.items() if name not in _NOT_INHERITED},
            **place.variables(),
            "LISTEN_FDS": str(len(queues)),
            "LISTEN_FDNAMES": ":".join(queue.name for queue in queues),
        }
        reactor.spawnProcess(self, command[0], list(command), variables, childFDs={LIFELINE: "w", 1: log, 2: 2, **inherited})

    def connectionMade(self) -> None:
        self._listens = True

    def childConnectionLost(self, childFD: int) -> None:
        self._listens = False

    @property
    def pid(self) -> int | None:
        """The process's id; None before its start and behind its end."""
        return getattr(self.transport, "pid", None)

    def tell(self, order: Told) -> None:
        """Through the pipe. Harmless for a process that has ended."""
        if self._listens:
            self.transport.writeToChild(LIFELINE, order.value)

    def kill(self, number: signal.Signals) -> None:
        """Sends a signal. Harmless for a process that has ended."""
        try:
            self.transport.signalProcess(int(number))
        except ProcessExitedAlready:
            return

    def processExited(self, reason: Failure) -> None:
        """At once, also if a child of the worker's keeps its output open."""
        error: Any = reason.value
        self._ended(Death(error.exitCode if error.signal is None else None, error.signal))
