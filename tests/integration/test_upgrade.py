"""`streampush upgrade` and SIGUSR2 with real processes: the process that serves starts its own successor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import unittest

from tests.cli import commands
from tests.integration.handing_over import TIMEOUT, HandoverTestCase, Process, Publisher
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer


class UpgradeTestCase(HandoverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.pids: set[int] = set()
        self.addCleanup(self.end_all)

    def end_all(self) -> None:
        """Processes that were started by processes; each was told by its own parent."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def command(self, *arguments: str) -> list[str]:
        return [*super().command(*arguments), "--set", "node.handover=handover.sock"]

    def upgrade(self, *arguments: str) -> tuple[int, str, str]:
        """The command's status, and what it says on either stream."""
        done = subprocess.run(
            [sys.executable, "-c", commands.PROGRAM, "upgrade", "--socket", self.path, *arguments],
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            check=False,
        )
        for line in done.stdout.splitlines():
            self.pids.add(int(line.split()[1]))
        return done.returncode, done.stdout, done.stderr

    def started(self) -> Process:
        return self.spawn(self.command())

    def spawn(self, words: list[str], **environ: str) -> Process:
        popen = subprocess.Popen(
            words, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C", **environ}
        )
        process = Process(popen)

        def end() -> None:
            popen.kill()
            self.end_all()  # they write to the same log
            process.end()
            popen.communicate(timeout=TIMEOUT)

        self.addCleanup(end)
        return process


class UpgradeTests(UpgradeTestCase):
    def test_the_process_is_replaced_under_load(self) -> None:
        first = self.started()
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        publisher = Publisher(rest, "device:phone-1")
        publisher.start()
        status, said, complaints = self.upgrade()
        self.assertEqual((status, complaints), (0, ""))
        (pid,) = self.pids
        self.assertEqual(said, f"process {pid} starts\nprocess {pid} serves\n")
        self.assertEqual(first.ended(), 0)
        sent = len(publisher.stored)
        while len(publisher.stored) < sent + 10:
            self.shake_hands(port)
        self.nothing_was_lost(publisher, device)

    def test_twice_and_the_log_goes_on_where_it_was(self) -> None:
        first = self.started()
        _, rest = first.until_it_serves()
        for _ in range(2):
            self.assertEqual(self.upgrade()[0], 0)
            first.until("taken over from")
        self.assertEqual(len(self.pids), 2)
        self.healthy(rest)

    def test_a_successor_that_does_not_start_leaves_the_first_and_its_fault_is_told(self) -> None:
        first = self.started()
        port, rest = first.until_it_serves()
        self.toml.write_text(self.toml.read_text() + '\n[log]\nformt = "json"\n')
        status, _, complaints = self.upgrade()
        self.assertEqual(status, 1)
        fault = f"streampush: {self.toml}: log.formt: unknown key, did you mean 'format'?"
        self.assertEqual(complaints, f"Error: the new process does not serve, the old one goes on: {fault}\n")
        self.healthy(rest)
        self.shake_hands(port)
        self.assertIsNone(first.process.poll())

    def test_after_a_failure_the_next_one_may_follow(self) -> None:
        first = self.started()
        _, rest = first.until_it_serves()
        good = self.toml.read_text()
        self.toml.write_text(good + "\n[listen]\nport = 99999\n")
        self.assertEqual(self.upgrade()[0], 1)
        self.toml.write_text(good)
        self.assertEqual(self.upgrade()[0], 0)
        self.assertEqual(first.ended(), 0)
        self.healthy(rest)

    def test_a_signal_does_the_same(self) -> None:
        first = self.started()
        _, rest = first.until_it_serves()
        first.process.send_signal(signal.SIGUSR2)
        self.pids.add(first.until("was started to take over")["pid"])
        first.until("taken over from")
        self.assertEqual(first.process.wait(TIMEOUT), 0)
        self.healthy(rest)

    def test_with_a_pid_file_it_is_refused_with_the_reason(self) -> None:
        words = self.command()
        words[words.index("--pidfile=")] = "--pidfile=streampush.pid"
        first = self.spawn(words)
        _, rest = first.until_it_serves()
        status, said, complaints = self.upgrade()
        self.assertEqual((status, said), (3, ""))
        self.assertIn("--pidfile=", complaints)
        self.healthy(rest)

    def test_where_nobody_serves_it_says_so(self) -> None:
        status, _, complaints = self.upgrade()
        self.assertEqual(status, 4)
        self.assertEqual(complaints, f"Error: nobody serves at {self.path}: No such file or directory\n")

    def test_systemd_is_told_of_the_start_and_of_the_process_that_follows(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(self.root / "notify"))
            notices.settimeout(TIMEOUT)
            first = self.spawn(self.command(), NOTIFY_SOCKET=str(self.root / "notify"))
            self.assertEqual(notices.recv(1000), b"READY=1\nSTATUS=serving")
            status, said, _ = self.upgrade()
            self.assertEqual(status, 0, said)
            (pid,) = self.pids
            self.assertTrue(notices.recv(1000).startswith(f"MAINPID={pid}\nREADY=1\n".encode()))
            self.assertEqual(first.ended(), 0)
            os.kill(pid, signal.SIGTERM)
            self.assertEqual(notices.recv(1000), b"STOPPING=1\nSTATUS=stopping")


@unittest.skipUnless(PROGRAM, NOT_HERE)
class SupervisorTests(UpgradeTestCase):
    """With several workers it is the supervisor that is followed, on the sockets of all of them."""

    def setUp(self) -> None:
        super().setUp()
        redis = RedisServer().start()
        self.addCleanup(redis.stop)
        self.store = ("--set", "store.backend=redis", "--set", f"store.url={redis.url}", "--workers", "2")

    def command(self, *arguments: str) -> list[str]:
        return super().command(*self.store, *arguments)

    def until_all_are_ready(self, process: Process) -> tuple[int, int]:
        """The ports, of the stream protocol and of REST."""
        record = process.until("supervises")
        ready: set[str] = set()
        while len(ready) < 2:
            ready.add(process.until("ready", "state")["worker"])
        return int(record["stream_port"]), int(record["rest_port"])

    def test_all_workers_are_replaced_under_load(self) -> None:
        first = self.started()
        port, rest = self.until_all_are_ready(first)
        device = self.device("phone-1", port)
        publisher = Publisher(rest, "device:phone-1")
        publisher.start()
        status, _, complaints = self.upgrade()
        self.assertEqual((status, complaints), (0, ""))
        self.assertEqual(first.ended(), 0)
        sent = len(publisher.stored)
        while len(publisher.stored) < sent + 20:
            self.shake_hands(port)
        self.nothing_was_lost(publisher, device)

    def test_one_whose_workers_do_not_start_leaves_the_first(self) -> None:
        first = self.started()
        port, rest = self.until_all_are_ready(first)
        good = self.toml.read_text()
        self.toml.write_text(good.replace("[[rest.keys]]", "[[rest.keys]]\nnaem = 1", 1))
        status, _, complaints = self.upgrade()
        self.assertEqual(status, 1)
        self.assertIn("naem: unknown key", complaints)
        self.healthy(rest)
        self.shake_hands(port)
