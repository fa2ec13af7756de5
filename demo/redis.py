"""Redis for the demo: a master that stores each command on disk before it answers, and a replica; on ports that nobody has."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from demo.processes import WAIT, Failed

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """One process; its files are in `folder`, which outlive it. `options`: lines of its configuration."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = _free_port()
        folder.mkdir(parents=True)
        self._folder = folder
        lines = (f"port {self.port}", "bind 127.0.0.1", f"dir {folder.absolute()}", "daemonize no", 'save ""', *options)
        self._file = folder / "redis.conf"
        self._file.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it takes connections. Raises Failed."""
        if PROGRAM is None:
            raise Failed("redis-server is not installed")
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, str(self._file)], stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise Failed(f"redis-server does not listen, see {self._folder / 'redis.log'}")

    def stop(self) -> None:
        """SIGKILL: no command is finished, nothing is written any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def start_pair(folder: Path) -> tuple[RedisServer, RedisServer]:
    """A master with an append-only file, and its replica. Raises Failed."""
    master = RedisServer(folder / "master", "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0")
    replica = RedisServer(folder / "replica", f"replicaof 127.0.0.1 {master.port}", "appendonly no")
    try:
        master.start()
        replica.start()
    except Failed:
        master.stop()
        replica.stop()
        raise
    return master, replica


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
