"""Processes that hand their listening sockets over, devices and a publisher that must not notice."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

from streampush.handover.successor import Succession, ask
from tests.forked import Forked
from tests.integration.harness import TOML
from tests.integration.test_startup import ForkedTestCase

TIMEOUT = 60.0
"""Seconds, by far more than anything takes: the machine may be busy with other things."""

KEY = "sp_handover"

EXTRA = f"""
[[rest.keys]]
name = "web"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
publish = ["*"]
"""


class Process:
    """`twistd streampush` as a process, or what it has started; its log is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked) -> None:
        self.process = process
        self.pid = process.pid
        self.records: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.seen: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.records.put(json.loads(line))
        self.records.put(None)

    def until(self, words: str, field: str = "event") -> dict[str, Any]:
        """The next record whose text has these words in it."""
        while True:
            record = self.records.get(timeout=TIMEOUT)
            if record is None:
                said = [one["message"] for one in self.seen[-12:]]
                raise AssertionError(f"the log ended before {words!r}: {said}, {self._complaints()!r}")
            self.seen.append(record)
            if words in str(record.get(field, "")):
                return record

    def _complaints(self) -> bytes:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def until_it_serves(self) -> tuple[int, int]:
        """Its ports, of the stream protocol and of REST."""
        record = self.until("serves devices")
        return int(record["port"]), int(record["rest"].rpartition(":")[2])

    def ended(self) -> int:
        """Its status when it has ended by itself."""
        return self.process.wait(TIMEOUT)

    def end(self) -> None:
        """Kills it if it lives, and waits until its log is read to the end: whoever reads or closes it before takes lines away
        from under the thread, whose failure is then that of the test behind."""
        if self.process.poll() is None:
            self.process.kill()
        self._reader.join(TIMEOUT)


class Listening:
    """A device of the reference client's as a process, which has its place in its channel. What it prints is read as it comes: one
    that cannot print takes no more messages, and these leave the log at its limit."""

    def __init__(self, root: Path, name: str, port: int) -> None:
        words = ["listen", "--dir", str(root), "--device", name, "--json", "--host", "127.0.0.1", "--port", str(port)]
        self._process = Forked("streampush", words, root, os.environ)
        self._payloads: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._payloads.put(json.loads(line)["payload"])
        self._payloads.put(None)

    def until_connected(self) -> None:
        """It says so first."""
        said = self._process.stderr.readline()
        assert said.startswith(b"connected to"), said

    def until(self, last: str) -> list[str]:
        """What it was given, up to this payload."""
        got: list[str] = []
        while not got or got[-1] != last:
            payload = self._payloads.get(timeout=TIMEOUT)
            if payload is None:
                raise AssertionError(f"the device ended behind {got[-3:]}: {self._process.stderr.read()!r}")
            got.append(payload)
        return got

    def send_signal(self, number: int) -> None:
        """As Popen's."""
        self._process.send_signal(number)

    def end(self) -> None:
        """As Process.end."""
        if self._process.poll() is None:
            self._process.kill()
        self._reader.join(TIMEOUT)
        self._process.communicate(timeout=TIMEOUT)


class Publisher(threading.Thread):
    """Publishes over REST, one message behind the other, half of them on a connection of its own; notes what went wrong."""

    def __init__(self, port: int, channel: str) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._channel = channel
        self._over = threading.Event()
        self.stored: list[str] = []
        self.refused: list[str] = []

    def run(self) -> None:
        kept: http.client.HTTPConnection | None = None
        number = 0
        while not self._over.wait(0.005):
            number += 1
            if kept is not None and number % 2:
                kept.close()
                kept = None
            if kept is None:
                kept = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
            try:
                closes = self._publish(kept, str(number))
            except (http.client.RemoteDisconnected, ConnectionResetError):  # a kept connection that was idle: HTTP's own race
                if number % 2:
                    self.refused.append(f"{number}: cut without an answer on a new connection")
                closes = True
            except OSError as error:
                self.refused.append(f"{number}: {error!r}")
                closes = True
            if closes:
                kept.close()
                kept = None
        if kept is not None:
            kept.close()

    def _publish(self, connection: http.client.HTTPConnection, text: str) -> bool:
        body = json.dumps({"channel": self._channel, "payload": text})
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/publish", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status == 200:
            self.stored.append(text)
        else:
            self.refused.append(f"{text}: {answer.status} {said!r}")
        return answer.will_close

    def finish(self) -> None:
        self._over.set()
        self.join(TIMEOUT)


class HandoverTestCase(ForkedTestCase):
    store: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.toml.write_text(TOML + EXTRA)
        self.path = str(self.root / "handover.sock")

    def node(self, *options: str) -> Process:
        """A process that serves, or will, where the other one does."""
        process = Process(self.launch("--set", "node.handover=handover.sock", *self.store, *options))
        self.addCleanup(process.end)
        return process

    def ask(self) -> Succession:
        """This process asks, as a successor."""
        found = ask(self.path)
        assert found is not None
        self.addCleanup(found.received.close)
        self.addCleanup(found.close)
        return found

    def healthy(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        connection.request("GET", "/healthz")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()

    def shake_hands(self, port: int) -> None:
        context = ssl.create_default_context(cafile=str(self.files.ca))
        device = self.files.device("tablet-1", "alice")
        context.load_cert_chain(device.certificate, device.key)
        sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        with sock, context.wrap_socket(sock, server_hostname="localhost"):
            return

    def device(self, name: str, port: int) -> Listening:
        """A device that is connected."""
        listening = Listening(self.root, name, port)
        self.addCleanup(listening.end)
        listening.until_connected()
        return listening

    def nothing_was_lost(self, publisher: Publisher, device: Listening) -> None:
        """The publisher ends: none of its requests was refused, and the device was given all that was stored."""
        publisher.finish()
        self.assertEqual(publisher.refused, [])
        got = set(device.until(publisher.stored[-1]))
        self.assertEqual([text for text in publisher.stored if text not in got], [])

    def kill(self, process: Process) -> None:
        process.process.send_signal(signal.SIGKILL)
        process.process.wait(TIMEOUT)
