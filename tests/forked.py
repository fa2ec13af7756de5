"""Processes of the product that are forked from one that has imported most of it.

Theory of operation. To import the product takes a process a second of CPU, more than most tests of a process need besides. So one
process imports it, once (`multiprocessing.forkserver`), and each that a test starts is forked from that: with the arguments, the
folder and the environment that it would have been started with, its own signals, and pipes for what it writes. What brings a
reactor with it is not imported before, as no two processes may share one. Where the start itself is the matter of a test, the
command is run as users run it: `test_startup`, `test_inherited_sockets`, `test_upgrade`, `test_demo`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Thread
from typing import IO, Final

IMPORTED: Final = (
    "tests.forked",
    "twisted.scripts.twistd",
    "twisted.web.client",
    "twisted.web.server",
    "prometheus_client",
    "streampush.apns.away",
    "streampush.cli.apns_status",
    "streampush.cli.explain",
    "streampush.cli.listen",
    "streampush.cli.main",
    "streampush.cli.messages",
    "streampush.cli.nodes",
    "streampush.cli.publish",
    "streampush.handover.incumbent",
    "streampush.handover.successor",
    "streampush.handover.upgrades",
    "streampush.loading",
    "streampush.observe.log",
    "streampush.observe.metrics",
    "streampush.push.service",
    "streampush.server.node",
    "streampush.server.probe",
    "streampush.store.keeping",
    "streampush.store.memory.store",
    "streampush.store.sqlite.store",
)
"""What most processes need, but klein and txredisapi, which bring the reactor."""


class Forked:
    """What tests use of `subprocess.Popen`: `twistd` or `streampush` as `program`, with the words behind its name.

    `new_session`: it leads a group of processes of its own.
    """

    def __init__(
        self, program: str, words: Sequence[str], cwd: Path, environ: Mapping[str, str], *, new_session: bool = False
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe()
        self.stdout: IO[bytes] = os.fdopen(read_out, "rb")
        self.stderr: IO[bytes] = os.fdopen(read_err, "rb")
        with Connection(write_out, readable=False) as out, Connection(write_err, readable=False) as err:
            arguments = (program, tuple(words), str(cwd), dict(environ), out, err, new_session)
            self._process = context.Process(target=_become, args=arguments, daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its status, below 0 the signal that ended it; None while it lives."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its status when it has ended. Raises TimeoutExpired."""
        self._process.join(timeout)
        status = self.returncode
        if status is None:
            raise TimeoutExpired("a forked process", timeout)
        return status

    def send_signal(self, number: int) -> None:
        """If it lives."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # ended meanwhile: its parent is the fork server, which does not wait for us
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """What it wrote that nobody has read, when it has ended. Raises TimeoutExpired."""
        rest: dict[IO[bytes], bytes] = {}

        def read(stream: IO[bytes]) -> None:
            if not stream.closed:
                with stream:
                    rest[stream] = stream.read()

        readers = [Thread(target=read, args=(stream,), daemon=True) for stream in (self.stdout, self.stderr)]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return rest.get(self.stdout, b""), rest.get(self.stderr, b"")


def _become(
    program: str,
    words: tuple[str, ...],
    cwd: str,
    environ: Mapping[str, str],
    out: Connection,
    err: Connection,
    new_session: bool,
) -> None:
    """In the process that was forked."""
    assert "twisted.internet.reactor" not in sys.modules
    for connection, descriptor in ((out, 1), (err, 2)):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
    if new_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [program, *words]
    try:
        _run(program, words)
    finally:
        atexit._run_exitfuncs()  # before Python 3.12 a forked process ends without them


def _run(program: str, words: tuple[str, ...]) -> None:
    if program == "twistd":
        from twisted.scripts.twistd import run

        run()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
    else:
        from streampush.cli.main import main

        main(list(words))
