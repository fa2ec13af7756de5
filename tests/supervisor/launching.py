"""A supervisor as a process, with its workers."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import ssl
import sys
import time
import unittest
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streampush.protocol import codec
from streampush.protocol import messages as m
from streampush.protocol.framing import encode_frame
from tests.forked import Forked
from tests.integration.harness import TOML
from tests.store.folders import quick_folder
from tests.support import make_files

TIMEOUT = 40.0
"""Seconds, by far more than anything takes: the machine may be busy with other things."""

Record = dict[str, Any]


class Launched:
    """The process, and its log. Every wait fails behind TIMEOUT."""

    def __init__(self, process: Forked) -> None:
        self.process = process
        self.records: list[Record] = []
        self.pids: dict[str, int] = {}
        self.stream_port = 0
        self.rest_port = 0
        self._unread = b""
        self._deadline = 0.0

    def until(self, found: Callable[[Record], bool]) -> Record:
        """The next line of the log for which this holds."""
        self._deadline = time.monotonic() + TIMEOUT
        while True:
            line = self._line()
            try:
                record: Record = json.loads(line)
            except ValueError:
                raise AssertionError(f"no line of the log: {line!r}") from None
            self.records.append(record)
            if "starts as process" in record["event"]:
                self.pids[record["worker"]] = record["pid"]
            if "supervises" in record["event"]:
                self.stream_port, self.rest_port = record["stream_port"], record["rest_port"]
            if found(record):
                return record

    def _line(self) -> bytes:
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, self._deadline - time.monotonic()))
            data = os.read(descriptor, 65536) if ready else b""
            if not data:
                last = "\n".join(f"{record['node']}: {record['message']}" for record in self.records[-20:])
                raise AssertionError(f"the log {'has ended' if ready else 'says no more'}:\n{last}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def until_event(self, text: str, **fields: Any) -> Record:
        """The next line with this in its template, and these fields."""
        return self.until(lambda record: text in record["event"] and all(record.get(name) == fields[name] for name in fields))

    def until_ready(self, *workers: str) -> None:
        """Each of these has become ready, in whatever order."""
        waiting = set(workers)
        while waiting:
            record = self.until(lambda record: record["event"] == "{worker} is {state}" and record["state"] == "ready")
            waiting.discard(record["worker"])

    # ------------------------------------------------------------------------------------------------------------- asking

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a route of the REST API."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}", timeout=TIMEOUT) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def readiness(self) -> Record:
        """What /readyz says, whether it is red or green."""
        found: Record = json.loads(self.get("/readyz")[1])
        return found

    def sample(self, name: str) -> float:
        """A metric, named with its labels as they are written; 0.0 if it is not there."""
        for line in self.get("/metrics")[1].decode().splitlines():
            key, _, value = line.rpartition(" ")
            if key == name:
                return float(value)
        return 0.0


class SupervisorTestCase(unittest.TestCase):
    """`settings` are given to each launch."""

    settings: tuple[str, ...] = ("node.name=n", "listen.backlog=512")

    def setUp(self) -> None:
        directory = quick_folder()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.files = make_files(self.root)
        self.toml = self.root / "streampush.toml"
        self.toml.write_text(TOML)
        self.run_folder = self.root / "run"
        self.run_folder.mkdir()

    def command(self, workers: object, *settings: str) -> list[str]:
        twistd = str(Path(sys.executable).with_name("twistd"))
        sets = [word for each in (*self.settings, *settings) for word in ("--set", each)]
        return [twistd, "--nodaemon", "--pidfile=", "streampush", "--config", str(self.toml), "--workers", str(workers), *sets]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "LC_ALL": "C", "RUNTIME_DIRECTORY": str(self.run_folder)}

    def launch(self, workers: object, *settings: str) -> Launched:
        process = Forked("twistd", self.command(workers, *settings)[1:], self.root, self.environment(), new_session=True)
        launched = Launched(process)

        def end() -> None:
            process.kill()
            for pid in launched.pids.values():
                _kill(pid)
            process.communicate(timeout=TIMEOUT)

        self.addCleanup(end)
        return launched

    def serving(self, workers: int, *settings: str) -> Launched:
        """All workers are ready."""
        launched = self.launch(workers, *settings)
        launched.until_ready(*(f"n-{number}" for number in range(1, workers + 1)))
        return launched

    def fault(self, workers: object, *settings: str) -> str:
        """The one line on stderr of a launch that must fail."""
        process = self.launch(workers, *settings).process
        output, errors = process.communicate(timeout=TIMEOUT)
        text = errors.decode() or output.decode()
        self.assertEqual(process.returncode, 1, text)
        lines = text.strip().splitlines()
        self.assertEqual(len(lines), 1, text)
        return lines[0]

    def wait_until_gone(self, pid: int) -> None:
        """The process has ended: its descriptor of pidfd_open(2) becomes readable then, whoever its parent is."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            ready, _, _ = select.select([descriptor], [], [], TIMEOUT)
            self.assertTrue(ready, f"process {pid} lives on")
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------------------------------------------------ devices

    def connect(self, launched: Launched) -> socket.socket:
        """A TCP connection to the stream's port, with nothing said yet."""
        sock = socket.create_connection(("127.0.0.1", launched.stream_port), timeout=TIMEOUT)
        self.addCleanup(sock.close)
        return sock

    def handshake(self, sock: socket.socket, device: str = "phone-1") -> ssl.SSLSocket:
        """TLS as this device; returns when a worker has done its part."""
        context = ssl.create_default_context(cafile=str(self.files.ca))
        credentials = self.files.device(device, "alice")
        context.load_cert_chain(str(credentials.certificate), str(credentials.key))
        tls = context.wrap_socket(sock, server_hostname="localhost")
        self.addCleanup(tls.close)
        return tls

    def device(self, launched: Launched, device: str = "phone-1") -> ssl.SSLSocket:
        """A device that was welcomed, and stays for as long as it may."""
        tls = self.handshake(self.connect(launched), device)
        tls.sendall(encode_frame(codec.encode(m.Hello(), 1)))
        self.assertNotEqual(tls.recv(1), b"")
        return tls


def _kill(pid: int) -> None:
    """A worker of ours; its number cannot be another process's so soon."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
