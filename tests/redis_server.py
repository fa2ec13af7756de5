"""A real redis-server for tests: on a free port of loopback, in a folder of its own, ended by its process id."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import hiredis

PROGRAM = shutil.which("redis-server")
NOT_HERE = "redis-server is not installed here (.ci/run installs it)"
START_TIMEOUT = 20.0


class RedisServer:
    """Runs from `start` to `stop`; `options` are lines of its configuration. Keeps port and folder over a restart."""

    arguments: tuple[str, ...] = ()

    def __init__(self, *options: str, port: int = 0) -> None:
        assert PROGRAM is not None, NOT_HERE
        self.folder = Path(tempfile.mkdtemp(prefix="streampush-redis-"))
        self.port = port or free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def lines(self) -> tuple[str, ...]:
        """The configuration."""
        own = (f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "daemonize no", 'save ""', "appendonly no")
        return (*own, *self._options)

    def start(self) -> RedisServer:
        """Returns when it takes connections."""
        path = self.folder / "redis.conf"
        path.write_text("\n".join(self.lines()) + "\n")
        assert PROGRAM is not None
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, str(path), *self.arguments], stdout=log, stderr=log)
        self._wait()
        return self

    def _wait(self) -> None:
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"redis-server ended: {(self.folder / 'redis.log').read_text()[-2000:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.01)  # it is another process: there is nothing to wait for but its socket
        raise AssertionError("redis-server does not listen")

    def say(self, *parts: str) -> Any:
        """The answer to one command, over a connection of its own."""
        reader = hiredis.Reader()
        words = b"".join(b"$%d\r\n%s\r\n" % (len(part.encode()), part.encode()) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT) as connection:
            connection.sendall(b"*%d\r\n" % len(parts) + words)
            while (answer := reader.gets()) is False:
                reader.feed(connection.recv(65536))
        return answer

    def kill(self) -> None:
        """As a machine that goes down."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It is there, and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ends it, and removes its folder."""
        if self._process is not None:
            self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
        self._process.wait()
        self._process = None


class RedisSentinel(RedisServer):
    """Watches a master as "main", and promotes its replica half a second behind its end, if `quorum` sentinels agree."""

    arguments = ("--sentinel",)

    def __init__(self, master: RedisServer, quorum: int) -> None:
        watching = f"sentinel monitor main 127.0.0.1 {master.port} {quorum}"
        super().__init__(watching, "sentinel down-after-milliseconds main 500", "sentinel failover-timeout main 3000")

    def lines(self) -> tuple[str, ...]:
        """As above: a sentinel keeps no data."""
        return (f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "daemonize no", *self._options)

    def knows(self) -> tuple[int, int]:
        """How many replicas, and other sentinels."""
        found = self.say("SENTINEL", "MASTER", "main")
        facts = dict(zip(found[::2], found[1::2], strict=True))
        return int(facts[b"num-slaves"]), int(facts[b"num-other-sentinels"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_shared: list[RedisServer] = []


def shared_server() -> RedisServer:
    """One for all tests of a process that do not harm it; each has keys with a prefix of its own."""
    if not _shared:
        _shared.append(RedisServer().start())
        atexit.register(_shared[0].stop)
    return _shared[0]
