"""A worker's side of its supervisor: what it is told at its start, and the pipe that says when to end.

The supervisor's environment variables are two: the folder with the Unix sockets by which both ask one another, and the worker's
number. The worker's standard input is a pipe that only the supervisor writes to. Its end means that the supervisor is gone, however
that came about; nobody would start the worker again or end it, so it drains and ends by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

FOLDER_VARIABLE: Final = "STREAMPUSH_SUPERVISOR"
NUMBER_VARIABLE: Final = "STREAMPUSH_WORKER"
DRAINING: Final = "draining"
"""The check of a worker's readiness that says: it sends its connections away, and takes no more. Its reasons begin with it."""

LIFELINE: Final = 0
"""The file descriptor of the pipe: standard input, which a server does not need."""


class Told(Enum):
    """What comes through the pipe; the values are the bytes."""

    DRAIN = b"d"  # all workers stop
    HURRY = b"h"  # and somebody does not want to wait
    ORPHANED = b""  # the supervisor is gone


@dataclass(frozen=True, slots=True)
class Supervised:
    """Where a worker and its supervisor find one another."""

    folder: str
    number: int

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Supervised | None:
        """As the environment says, from which it is taken out; None for a process without a supervisor."""
        folder, number = environ.pop(FOLDER_VARIABLE, ""), environ.pop(NUMBER_VARIABLE, "")
        return cls(folder, int(number)) if folder and number.isdecimal() else None

    def variables(self) -> dict[str, str]:
        """What `take` takes."""
        return {FOLDER_VARIABLE: self.folder, NUMBER_VARIABLE: str(self.number)}

    @property
    def socket(self) -> str:
        """Where the worker tells its supervisor how it is."""
        return os.path.join(self.folder, f"worker-{self.number}.sock")

    @property
    def supervisor(self) -> str:
        """Where the supervisor tells how all are."""
        return os.path.join(self.folder, "supervisor.sock")

    def tidy(self) -> None:
        """Removes what a supervisor has left that was killed; the last of its workers finds the folder empty."""
        for remove, path in ((os.unlink, self.supervisor), (os.rmdir, self.folder)):
            with contextlib.suppress(OSError):
                remove(path)


@implementer(IReadDescriptor)
class Lifeline:
    """The worker's end of the pipe. `told` is called for each order, and at last with ORPHANED."""

    def __init__(self, reactor: Any, told: Callable[[Told], None], descriptor: int = LIFELINE) -> None:
        self._reactor = reactor
        self._told = told
        self._descriptor = descriptor

    def start(self) -> None:
        """Listens from now on; what came before is told, too."""
        os.set_blocking(self._descriptor, False)
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Listens no more. Stopping twice is harmless."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "Lifeline"

    def doRead(self) -> None:
        try:
            orders = os.read(self._descriptor, 64)
        except BlockingIOError:
            return
        except OSError:
            orders = b""
        if not orders:
            self._ended()
        for order in orders:
            self._told(Told(bytes((order,))))

    def connectionLost(self, reason: Failure) -> None:
        """An end without anything to read is not told by doRead (epoll: EPOLLHUP); a reactor that shuts down has another reason."""
        if reason.check(ConnectionDone):  # type: ignore[no-untyped-call]  # not annotated
            self._ended()

    def _ended(self) -> None:
        self.stop()
        self._told(Told.ORPHANED)
