"""A process that serves starts its own successor: the same command again, with what is on the disk by now."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.handover.incumbent import Asker, Incumbent, Share
from streampush.handover.inherited import VARIABLES
from streampush.handover.place import Peer
from streampush.handover.wire import STDERR

START_TIMEOUT: Final = 60.0
"""Seconds from the start of a successor until it asks for the sockets; one that takes longer hangs, and is killed."""

MAX_SAID: Final = 2_000
"""Bytes of a successor's standard error that are kept for whoever ordered it: the last ones."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How this process was started. `obstacle`: why it cannot be started a second time beside this one; empty if it can."""

    command: tuple[str, ...]
    environ: Mapping[str, str]
    folder: str
    obstacle: str = ""


def this_launch(environ: Mapping[str, str], obstacle: str = "") -> Launch:
    """Of this process, with what it still has in its environment but sockets. To be called before it goes to another folder."""
    kept = {name: value for name, value in environ.items() if name not in VARIABLES}
    return Launch((sys.executable, *sys.orig_argv[1:]), kept, os.getcwd(), obstacle)


class Upgrades:
    """Starts successors for `incumbent`, one at a time. The successor's standard error goes through this process while it starts,
    so that whoever ordered it is told what it said; then the successor gets this process's own.
    """

    _log = Logger(namespace="streampush.handover")

    def __init__(self, reactor: Any, incumbent: Incumbent, launch: Launch, obstacle: str = "") -> None:
        self._reactor = reactor
        self._incumbent = incumbent
        self._launch = launch
        self._obstacle = launch.obstacle or obstacle
        self._started: _Started | None = None
        incumbent.on_order = self.order
        incumbent.on_taken = self._taken
        incumbent.on_lost = self._lost
        incumbent.extra_shares = self._shares

    def order(self, asker: Asker | None = None) -> None:
        """Starts a successor; `asker` is told how it goes, and the log in any case."""
        obstacle = self._obstacle or self._other()
        if obstacle:
            self._log.error("no upgrade: {problem}", problem=obstacle)
            if asker is not None:
                asker.tell("refused", reason=obstacle)
            return
        started = _Started(self, asker)
        launch = self._launch
        try:
            process = self._reactor.spawnProcess(
                started, launch.command[0], launch.command, dict(launch.environ), launch.folder, childFDs={0: 0, 1: 1, 2: "r"}
            )
        except OSError as error:
            self._log.error("no successor can be started: {problem}", problem=str(error))
            if asker is not None:
                asker.tell("failed", reason=f"no process can be started: {error.strerror}")
            return
        self._started = started
        started.begin(process.pid, self._reactor.callLater(START_TIMEOUT, self._give_up, started))
        self._log.info("process {pid} was started to take over", pid=process.pid)
        started.tell("started", pid=process.pid)

    def _other(self) -> str:
        if self._started is not None:
            return f"process {self._started.pid} was started to take over already"
        return ""

    def stop(self) -> None:
        """Leaves no timer behind. A successor that is not ready goes on by itself."""
        if self._started is not None:
            self._started.cancel()

    # -------------------------------------------------------------------------------------------------- of the one that started

    def _shares(self, peer: Peer) -> Sequence[Share]:
        """A successor that asks has said all that it may say before it has the sockets."""
        started = self._started
        if started is None or started.pid != peer.pid:
            return ()
        started.cancel()
        return (Share(STDERR, 2),)

    def _taken(self, pid: int) -> None:
        if self._started is not None:
            self._started.tell("done", pid=pid)

    def _lost(self, pid: int, reason: str) -> None:
        started = self._started
        if started is not None and started.pid == pid:
            started.tell("failed", reason=started.last_words() or reason)
            self._drop(started)

    def ended(self, started: _Started, reason: Failure) -> None:
        """It is gone. Of one that has taken over, or was lost before, this process knows already."""
        if self._started is not started:
            return
        started.tell("failed", reason=started.last_words() or f"it ended: {reason.getErrorMessage()}")
        self._log.error("process {pid} ended and has not taken over", pid=started.pid)
        self._drop(started)

    def _give_up(self, started: _Started) -> None:
        self._log.error("process {pid} has not asked for the sockets within {limit} s", pid=started.pid, limit=START_TIMEOUT)
        started.tell("failed", reason=f"it has not asked for the sockets within {START_TIMEOUT:g} s")
        started.kill()
        self._drop(started)

    def _drop(self, started: _Started) -> None:
        started.cancel()
        self._started = None


class _Started(ProcessProtocol):
    """A successor that this process has started."""

    def __init__(self, owner: Upgrades, asker: Asker | None) -> None:
        self.pid = 0
        self._owner = owner
        self._asker = asker
        self._said = b""
        self._deadline: IDelayedCall | None = None

    def begin(self, pid: int, deadline: IDelayedCall) -> None:
        self.pid = pid
        self._deadline = deadline

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._said = (self._said + data)[-MAX_SAID:]
        try:
            os.write(2, data)
        except OSError:  # whoever read it has gone; it is in the answer too
            return

    def processEnded(self, reason: Failure) -> None:
        self._owner.ended(self, reason)

    def last_words(self) -> str:
        """The last line of what it wrote to standard error; a fault at the start is one."""
        lines = [line.strip() for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def tell(self, kind: str, **fields: Any) -> None:
        """Tells whoever ordered it, who may be gone."""
        if self._asker is not None and self._asker.is_there:
            self._asker.tell(kind, **fields)

    def kill(self) -> None:
        """At once: it has nothing that it could lose."""
        self.transport.signalProcess("KILL")  # type: ignore[union-attr]  # it runs: nobody has waited for it yet

    def cancel(self) -> None:
        """It needs no deadline any more."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
