"""`twistd streampush` with listening sockets that another process opened: who connects before it runs is served by it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import unittest
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.integration.test_startup import LaunchTestCase

TIMEOUT = 30.0

LAUNCHER = """
import json, os, sys
descriptors, names, owner, command = json.loads(sys.argv[1])
copies = [os.dup(each) for each in descriptors]  # dup2 below must not overwrite one
for position, descriptor in enumerate(copies):
    os.dup2(descriptor, 50 + position)
for position in range(len(copies)):
    os.dup2(50 + position, 3 + position)
os.environ.update(LISTEN_FDS=str(len(copies)), LISTEN_FDNAMES=names)
if owner is not None:
    os.environ["LISTEN_PID"] = owner or str(os.getpid())
os.execv(command[0], command)
"""
"""Becomes the command, with sockets from descriptor 3 on."""


class InheritedSocketTests(LaunchTestCase):
    def listening(self) -> socket.socket:
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        return sock

    def connect(self, listening: socket.socket) -> socket.socket:
        """Completed by the kernel, whether a process accepts or not."""
        sock = socket.create_connection(listening.getsockname(), timeout=TIMEOUT)
        self.addCleanup(sock.close)
        return sock

    def launch_with(
        self, *sockets: socket.socket, names: str = "stream:rest", owner: str | None = "", options: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """`owner`: LISTEN_PID; empty: the process itself, None: not set."""
        descriptors = [sock.fileno() for sock in sockets]
        order = json.dumps([descriptors, names, owner, self.command(*options)])
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, order],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
        )
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT)

    @staticmethod
    def records(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)

    def shake_hands(self, sock: socket.socket) -> str:
        """A device's TLS handshake on a connection; the version that was agreed."""
        context = ssl.create_default_context(cafile=str(self.files.ca))
        device = self.files.device("phone-1")
        context.load_cert_chain(device.certificate, device.key)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            return str(tls.version())

    def ask(self, sock: socket.socket) -> bytes:
        """The first line of the answer to a question after the node's health."""
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with sock.makefile("rb") as answer:
            return answer.readline()

    def test_who_connected_before_the_start_is_served(self) -> None:
        stream, rest = self.listening(), self.listening()
        device, publisher = self.connect(stream), self.connect(rest)
        process = self.launch_with(stream, rest)
        self.assertEqual(self.shake_hands(device), "TLSv1.3")
        self.assertEqual(self.ask(publisher), b"HTTP/1.1 200 OK\r\n")
        source = next(record for record in self.records(process) if "sockets" in record)
        self.assertEqual(source["source"], "the environment (LISTEN_FDS)")
        host, port = stream.getsockname()
        self.assertEqual(source["sockets"], f"stream on {host}:{port}, rest on {host}:{rest.getsockname()[1]}")

    def test_sockets_listen_on_when_the_node_stops(self) -> None:
        stream, rest = self.listening(), self.listening()
        process = self.launch_with(stream, rest)
        next(record for record in self.records(process) if "rest" in record)
        process.terminate()
        self.assertEqual(process.wait(TIMEOUT), -signal.SIGTERM)
        device, publisher = self.connect(stream), self.connect(rest)
        self.launch_with(stream, rest)
        self.shake_hands(device)
        self.assertEqual(self.ask(publisher), b"HTTP/1.1 200 OK\r\n")

    def test_what_is_not_inherited_is_bound(self) -> None:
        stream = self.listening()
        process = self.launch_with(stream, names="stream", owner=None)
        started = next(record for record in self.records(process) if "rest" in record)
        self.assertEqual(started["port"], stream.getsockname()[1])
        with urllib.request.urlopen(f"http://{started['rest']}/healthz", timeout=TIMEOUT) as answer:
            self.assertEqual(answer.status, 200)

    def test_rest_is_served_with_tls_on_an_inherited_socket(self) -> None:
        rest = self.listening()
        server = self.files.server
        options = ("--set", f"rest.certificate={server.certificate}", "--set", f"rest.key={server.key}")
        sock = self.connect(rest)
        self.launch_with(rest, names="rest", options=options)
        context = ssl.create_default_context(cafile=str(self.files.ca))
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            self.assertEqual(self.ask(tls), b"HTTP/1.1 200 OK\r\n")

    def test_sockets_for_another_process_are_left_alone_with_a_warning(self) -> None:
        process = self.launch_with(self.listening(), self.listening(), owner="1")
        warning = next(record for record in self.records(process) if "LISTEN_PID" in record.get("problem", ""))
        self.assertEqual(warning["level"], "warn")

    def fault_with(self, *sockets: socket.socket, names: str = "stream:rest") -> str:
        process = self.launch_with(*sockets, names=names)
        _, errors = process.communicate(timeout=TIMEOUT)
        text = errors.decode()
        self.assertEqual(process.returncode, 1, text)
        self.assertEqual(text.count("\n"), 1, text)
        return text

    def test_socket_that_does_not_listen_is_one_line(self) -> None:
        with socket.socket() as other:
            said = self.fault_with(self.listening(), other)
        self.assertEqual(
            said, "streampush: the environment: LISTEN_FDS: descriptor 4, rest, does not listen: with systemd, Accept=no\n"
        )

    def test_unknown_name_is_one_line(self) -> None:
        self.assertIn("'admin' of descriptor 3 is not served here", self.fault_with(self.listening(), names="admin"))

    def test_rest_that_other_machines_reach_without_tls_is_one_line(self) -> None:
        with socket.create_server(("0.0.0.0", 0)) as everywhere:
            said = self.fault_with(everywhere, names="rest")
        self.assertIn("listens on 0.0.0.0, which other machines reach: set rest.certificate", said)

    @unittest.skipUnless(shutil.which("systemd-socket-activate"), "systemd-socket-activate is not installed")
    def test_systemds_own_activation(self) -> None:
        first, second = self.listening(), self.listening()
        places = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (first, second)]
        addresses = [sock.getsockname() for sock in (first, second)]
        for sock in (first, second):
            sock.close()
        listen = [argument for place in places for argument in ("--listen", place)]
        process = subprocess.Popen(
            ["systemd-socket-activate", *listen, "-E", f"PYTHONPATH={':'.join(sys.path)}", *self.command()],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self.end, process)
        assert process.stderr is not None
        while b"as 4" not in process.stderr.readline():  # it listens on both
            self.assertIsNone(process.poll())
        with socket.create_connection(addresses[0], timeout=TIMEOUT) as device:
            self.shake_hands(device)
        with socket.create_connection(addresses[1], timeout=TIMEOUT) as publisher:
            self.assertEqual(self.ask(publisher), b"HTTP/1.1 200 OK\r\n")
