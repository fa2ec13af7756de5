"""A load process: clients of `bench.clients` on a core of their own, told what to do over a pipe.

with Load(address, "streampush", credentials, core) as load:
    load.call("connect", first=0, count=1000, subscribe=True)
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from bench.clients import Clients
from bench.credentials import Credentials
from bench.dialects import LoadError


class Commands(Protocol):
    """A class whose methods are the commands of a load process."""

    def __call__(self, address: tuple[str, int], subject: str, credentials: Credentials) -> object: ...


def serve(
    pipe: Connection, address: tuple[str, int], subject: str, credentials: Credentials, core: int, commands: Commands
) -> None:
    """The process: takes (command, arguments), gives (result, None) or (None, what went wrong), until the pipe is closed."""
    os.sched_setaffinity(0, {core})
    gc.disable()  # thousands of long-lived objects would be looked at again and again on the clients' core
    clients = commands(address, subject, credentials)
    with contextlib.suppress(EOFError):
        while True:
            command, arguments = pipe.recv()
            try:
                pipe.send((getattr(clients, command)(**arguments), None))
            except (LoadError, OSError) as error:
                pipe.send((None, f"{command}: {error}"))


class Load:
    """A load process for one server. `subject`: whose dialect it speaks; `commands`: what it can be told."""

    def __init__(
        self, address: tuple[str, int], subject: str, credentials: Credentials, core: int, commands: Commands = Clients
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, address, subject, credentials, core, commands)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def call(self, command: str, **arguments: object) -> int:
        """Calls a method of Clients there. Raises LoadError."""
        return int(self.ask(command, **arguments) or 0)

    def ask(self, command: str, **arguments: object) -> Any:
        """The same, for whatever the method gives."""
        self.start(command, **arguments)
        return self.answer()

    def start(self, command: str, **arguments: object) -> None:
        """Begins a call whose result `finish` waits for."""
        self._pipe.send((command, arguments))

    def finish(self) -> int:
        return int(self.answer() or 0)

    def is_done(self, timeout: float) -> bool:
        """Whether the call that was begun ends within so many seconds."""
        return self._pipe.poll(timeout)

    def answer(self) -> Any:
        """What the call that was begun gives. Raises LoadError."""
        result, problem = self._pipe.recv()
        if problem is not None:
            raise LoadError(problem)
        return result

    def stop(self) -> None:
        """Ends the process; its connections go with it."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
