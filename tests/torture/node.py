"""The server under torture: the real `twistd streampush` in a process of its own, on ports that stay the same over its lives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

from streampush.cli.exits import Failure
from streampush.cli.rest_client import RestClient

START_TIMEOUT = 120.0
STOP_TIMEOUT = 60.0


class NeverReady(Exception):
    """The server did not come up."""


def free_port() -> int:
    """A port that nobody has just now. The kernel will not give it to anybody else soon."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Node:
    """Starts, kills, stops and continues the server. `settings` are those that differ from the file in `root`."""

    def __init__(self, root: Path, settings: list[str], *options: str) -> None:
        self.root = root
        self.port = free_port()
        self.rest_port = free_port()
        self.starts = 0
        self._log = (root / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        fixed = [f"listen.port={self.port}", "listen.address=127.0.0.1", f"rest.port={self.rest_port}"]
        twistd = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "streampush"]
        self._command = [*twistd, "--config", str(root / "streampush.toml"), *options]
        for assignment in (*fixed, *settings):
            self._command += ["--set", assignment]

    def start(self) -> None:
        """Begins a life; the server is ready later, see `ready`."""
        self.starts += 1
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    async def stop(self) -> int:
        """The orderly end. Gives the exit status; -9 if it had to be killed."""
        assert self._process is not None
        if self.alive:
            self.thaw()
            self._process.terminate()
        deadline = reactor.seconds() + STOP_TIMEOUT
        while self.alive and reactor.seconds() < deadline:
            await pause(0.05)
        self.kill()
        return int(self._process.returncode)

    def close(self) -> None:
        """Whatever has happened: no process is left."""
        self.kill()
        self._log.close()

    async def is_ready(self) -> bool:
        """What /readyz says; False also if nobody answers."""
        client = self.rest("")
        try:
            status, _ = await client.ask("GET", "/readyz")
        except Failure:
            return False
        finally:
            await client.close()
        return status == 200

    async def ready(self) -> None:
        """Waits until it is. Raises NeverReady."""
        deadline = reactor.seconds() + START_TIMEOUT
        while reactor.seconds() < deadline:
            if not self.alive:
                raise NeverReady(f"the server ended with status {self._process and self._process.returncode}")
            if await self.is_ready():
                return
            await pause(0.05)
        raise NeverReady("the server was not ready in time")

    def rest(self, key: str) -> RestClient:
        """A client of its REST API; close it."""
        return RestClient(reactor, f"http://127.0.0.1:{self.rest_port}", key, b"")


def pause(seconds: float) -> Deferred[Any]:
    """So many seconds later."""
    return task.deferLater(reactor, seconds)
