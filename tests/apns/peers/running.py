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


class _Peer(ProcessProtocol):
    """Fires `line` with the first line of its output, and `ended` when the process is over."""

    def __init__(self) -> None:
        self.line: Deferred[bytes] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._output = b""

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if b"\n" in self._output and not self.line.called:
            self.line.callback(self._output.partition(b"\n")[0])

    def errReceived(self, data: bytes) -> None:
        self.outReceived(data)

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        if not self.line.called:
            self.line.errback(RuntimeError(self._output.decode()))


def _start(test: TestCase, command: list[str | Path]) -> _Peer:
    peer = _Peer()
    process = reactor.spawnProcess(peer, str(command[0]), [str(part) for part in command], env=None)

    def end() -> Deferred[None]:
        if not peer.ended.called:
            process.signalProcess("KILL")
        return peer.ended

    test.addCleanup(end)
    return peer


def _files(test: TestCase) -> tuple[Path, Path]:
    root = Path(test.mktemp())
    root.mkdir(parents=True)
    certificate, key = root / "server.crt", root / "server.key"
    server_issued().write(certificate, key)
    return certificate, key


async def start_node(test: TestCase, max_streams: int = 100) -> int:
    """http2_server.js; gives its port."""
    script = Path(__file__).with_name("http2_server.js")
    assert NODE is not None
    peer = _start(test, [NODE, script, *_files(test), str(max_streams)])
    return int(await peer.line)


def start_nghttpd(test: TestCase, documents: Path) -> int:
    """nghttpd, which gives back what is uploaded, and files of that directory; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    certificate, key = _files(test)
    assert NGHTTPD is not None
    options = ["--address=127.0.0.1", "--echo-upload", f"--htdocs={documents}"]
    _start(test, [NGHTTPD, *options, str(port), key, certificate]).line.addErrback(lambda _: None)
    return port  # it does not say when it listens; the agent tries to connect some times
