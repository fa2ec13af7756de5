"""Servers of others, as processes: each is ended with the test that started it."""

from __future__ import annotations

import socket
from pathlib import Path
from shutil import which
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support import server_issued

reactor: Any = any_reactor

NODE = which("node")
NGHTTPD = which("nghttpd")

NO_NODE = None if NODE else "there is no `node`: install Node.js 20 or later"
NO_NGHTTPD = None if NGHTTPD else "there is no `nghttpd`: install the package nghttp2-server"


class PeerProcess(ProcessProtocol):
    """Fires `ended` when the process is over."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self._output = b""
        self._errors = b""
        self._asked: Deferred[bytes] | None = None

    def line(self) -> Deferred[bytes]:
        """The next line of its output; fails with what it complained of if it ends before. One at a time."""
        asked: Deferred[bytes] = Deferred()
        self._asked = asked
        self._look()
        return asked

    def ask(self, question: bytes) -> Deferred[bytes]:
        """Writes a line to it, and gives the one that comes back."""
        transport: Any = self.transport
        transport.write(question + b"\n")
        return self.line()

    def outReceived(self, data: bytes) -> None:
        self._output += data
        self._look()

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        self._look()

    def _look(self) -> None:
        line, found, rest = self._output.partition(b"\n")
        asked = self._asked
        if asked is None:
            return
        if found:
            self._output, self._asked = rest, None
            asked.callback(line)
        elif self.ended.called:
            self._asked = None
            asked.errback(RuntimeError(self._errors.decode()))


def start(test: TestCase, command: list[str | Path]) -> PeerProcess:
    peer = PeerProcess()
    process = reactor.spawnProcess(peer, str(command[0]), [str(part) for part in command], env=None)

    def end() -> Deferred[None]:
        if not peer.ended.called:
            process.signalProcess("KILL")
        return peer.ended

    test.addCleanup(end)
    return peer


def server_files(test: TestCase) -> tuple[Path, Path]:
    """Certificate and key of localhost."""
    root = Path(test.mktemp())
    root.mkdir(parents=True)
    certificate, key = root / "server.crt", root / "server.key"
    server_issued().write(certificate, key)
    return certificate, key


async def start_node(test: TestCase, max_streams: int = 100) -> int:
    """http2_server.js; gives its port."""
    script = Path(__file__).with_name("http2_server.js")
    assert NODE is not None
    peer = start(test, [NODE, script, *server_files(test), str(max_streams)])
    return int(await peer.line())


def start_nghttpd(test: TestCase, documents: Path) -> int:
    """nghttpd, which gives back what is uploaded, and files of that directory; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    certificate, key = server_files(test)
    assert NGHTTPD is not None
    options = ["--address=127.0.0.1", "--echo-upload", f"--htdocs={documents}"]
    start(test, [NGHTTPD, *options, str(port), key, certificate])
    return port  # it does not say when it listens; the agent tries to connect some times
