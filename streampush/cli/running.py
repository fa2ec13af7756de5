"""A coroutine as the whole life of the reactor, for commands that talk to a server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

T = TypeVar("T")

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells count."""


def run(work: Callable[[ReactorBase], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Runs the reactor until `work` is done; gives its result or raises its exception. Only once in a process.

    SIGINT (Ctrl-C) and SIGTERM cancel `work`, wait for its `finally` blocks, and exit with INTERRUPTED. Another signal cancels
    what these blocks wait for.
    """
    from twisted.internet import reactor as installed

    assert isinstance(installed, ReactorBase)
    reactor = installed
    outcome: list[T | Failure] = []
    finished: Deferred[None] = Deferred()

    def done(result: T | Failure) -> None:
        outcome.append(result)
        try:
            reactor.stop()
        except ReactorNotRunning:  # it is stopping for us already
            finished.callback(None)

    def begin() -> None:
        deferred = maybeDeferred(work, reactor)  # so that work which fails before it is a coroutine ends the reactor too

        def interrupted() -> Deferred[None] | None:
            if outcome:
                return None
            deferred.cancel()
            return None if outcome else finished

        def stop() -> None:
            try:
                reactor.stop()
            except ReactorNotRunning:  # the second signal, and one that comes when the work has just ended
                deferred.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):  # in place of the reactor's own, which log a traceback for the second
            if signal.getsignal(number) is not signal.SIG_IGN:  # as shells have it for SIGINT in the background
                signal.signal(number, lambda number, frame: reactor.callFromThread(stop))
        reactor.addSystemEventTrigger("before", "shutdown", interrupted)
        deferred.addBoth(done)

    reactor.callWhenRunning(begin)
    reactor.run()
    return _result(outcome)


def _result(outcome: list[T | Failure]) -> T:
    if not outcome:
        raise click.exceptions.Exit(INTERRUPTED)
    (result,) = outcome
    if not isinstance(result, Failure):
        return result
    if isinstance(result.value, CancelledError):
        raise click.exceptions.Exit(INTERRUPTED)
    error = result.value
    assert error is not None
    raise error
