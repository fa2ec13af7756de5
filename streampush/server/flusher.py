"""Coalesces writes: everything that one turn of the reactor writes goes out together, from one scheduled call for the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

_log: Final = Logger()


class Flushable(Protocol):
    def flush(self) -> None:
        """Writes what is due."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over; may come more than once."""


class WriteFlusher:
    """One per process. `call_soon` calls its argument once, after the present turn of the reactor (`reactor.callLater(0, ...)`)."""

    __slots__ = ("_call_soon", "_dirty")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._dirty: list[Flushable] = []

    def add(self, transport: Flushable) -> None:
        """Flushes the transport soon; once for every time it is added."""
        if not self._dirty:
            self._call_soon(self.flush)
        self._dirty.append(transport)

    def flush(self) -> None:
        """Flushes all that were added before this call. A connection whose flush raises is ended; the others do not notice."""
        dirty, self._dirty = self._dirty, []
        for transport in dirty:
            try:
                transport.flush()
            except Exception:  # noqa: BLE001 - a fault in one connection's code, as the reactor treats it in doRead
                _end(transport, Failure())  # type: ignore[no-untyped-call]  # Twisted has not annotated it


def _end(transport: Flushable, reason: Failure) -> None:
    _log.failure("Flushing a connection failed, it is closed", failure=reason)
    try:
        transport.connectionLost(reason)
    except Exception:  # noqa: BLE001 - and in its cleaning up
        _log.failure("Closing a connection failed")
