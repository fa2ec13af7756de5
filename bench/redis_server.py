"""A redis-server under test, on a core of its own choice, and what it says of itself."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.dialects import LoadError
from bench.servers import Server, Settings, free_port, launched

PROGRAM = shutil.which("redis-server")
REDIS = "redis-server"

WAIT_FOR_REDIS = 30.0
"""Seconds that a node's requests wait until it has found its Redis, when both have just been started."""

SYNCED = ("appendonly yes", "appendfsync always")
"""Redis answers when it is on the disk, as SQLite does."""


def start_redis(root: Path, core: int, *options: str) -> Server:
    """Starts one that keeps nothing, if `options`, lines of its configuration, do not say otherwise. Raises LoadError."""
    if PROGRAM is None:
        raise LoadError("redis-server is not installed")
    port = free_port()
    directory = root / f"redis-{port}"
    directory.mkdir()
    lines = (f"port {port}", "bind 127.0.0.1", f"dir {directory}", "daemonize no", 'save ""', "appendonly no", *options)
    path = directory / "redis.conf"
    path.write_text("\n".join(lines) + "\n")
    return launched(REDIS, core, [PROGRAM, str(path)], port, directory)


def settings_of(redis: Server, name: str) -> Settings:
    """For bench.servers.start: a node of this name over this Redis."""
    host, port = redis.address
    store = {"backend": "redis", "url": f"redis://{host}:{port}", "publish_timeout": WAIT_FOR_REDIS}
    return {"store": store, "node": {"name": name}}


class Console:
    """Asks a Redis, one question at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def info(self, section: str) -> dict[str, str]:
        """The fields of a section of INFO. Raises LoadError."""
        self._sock.sendall(f"INFO {section}\r\n".encode())
        size = self._file.readline()
        if not size.startswith(b"$"):
            raise LoadError(f"redis-server answers {size!r}")
        text = self._file.read(int(size[1:]) + 2).decode()
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {pair[0]: pair[1] for pair in pairs}

    def traffic(self) -> tuple[int, int]:
        """Bytes that Redis has read and written since its start."""
        stats = self.info("stats")
        return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])


@contextmanager
def console(redis: Server) -> Iterator[Console]:
    """A connection to it."""
    with socket.create_connection(redis.address, WAIT_FOR_REDIS) as sock:
        yield Console(sock)
