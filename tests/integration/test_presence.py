"""Presence when processes die without a word: right within one heartbeat period, of clients and of the server itself."""

from __future__ import annotations

import hashlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import unittest
import urllib.request
from pathlib import Path
from typing import Any

from tests.integration.harness import TOML
from tests.store.folders import quick_folder
from tests.support import make_files

KEY = "sp_presence"
PERIOD = 15.0
"""Seconds: the heartbeat's interval, far above what a busy machine needs for everything else."""

KEYS = f"""
[[rest.keys]]
name = "test"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
scopes = ["read"]
[reconnect]
first_jitter = 0.1
backoff_initial = 0.1
backoff_max = 0.5
degraded_after = 100
"""


class Spoken:
    """A process and the lines that it writes, each waited for."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, pattern: str) -> re.Match[str]:
        """The first line from now on that the pattern is found in."""
        deadline, seen = time.monotonic() + 4 * PERIOD, []
        while line := self._lines.get(timeout=max(0.01, deadline - time.monotonic())):
            found = re.search(pattern, line)
            if found is not None:
                return found
            seen.append(line)
        raise AssertionError(f"{pattern!r} was not said in {seen}")

    def kill(self) -> None:
        """SIGKILL: it has no chance to say anything more."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class SuddenDeathTests(unittest.TestCase):
    def setUp(self) -> None:
        directory = quick_folder()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        make_files(self.root, devices=("phone-1:alice", "tablet-1:alice"))
        (self.root / "streampush.toml").write_text(TOML + KEYS)
        self.port = 0
        self.known: set[str] = set()

    def spoken(self, *command: str) -> Spoken:
        process = Spoken(list(command), self.root)
        self.addCleanup(process.end)
        return process

    def serve(self, interval: float = PERIOD) -> Spoken:
        """A server; a later one listens where the first did."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        beats = (f"heartbeat.interval={interval}", f"heartbeat.reply_timeout={interval / 2}", "heartbeat.min_ping_interval=0.5")
        settings = [f"--set={one}" for one in (f"listen.port={self.port}", *beats)]
        server = self.spoken(twistd, "--nodaemon", "--pidfile=", "streampush", "--config", "streampush.toml", *settings)
        started = json.loads(server.until(r'^.*"rest": *"[\d.]+:\d+".*$')[0])
        self.port, self.rest = started["port"], started["rest"]
        return server

    def device(self, device_id: str) -> Spoken:
        """A connected device that comes back whenever it can."""
        program = "from streampush.cli.main import main; main()"
        where = ("--dir", str(self.root), "--host", "127.0.0.1", "--port", str(self.port))
        device = self.spoken(sys.executable, "-u", "-c", program, "listen", "--device", device_id, *where)
        device.until("^connected")
        self.known.add(device_id)
        return device

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"http://{self.rest}{path}", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=PERIOD) as answer:
            return json.load(answer)

    def present(self) -> list[str]:
        """Who is connected, by all that can be asked."""
        sessions = self.get("/v1/presence/users/alice")["sessions"]
        names = [row["device_id"] for row in sessions]
        self.assertEqual(self.get("/v1/presence/channels/user:alice")["device_ids"], names)
        for name in self.known:
            self.assertEqual(self.get(f"/v1/devices/{name}")["connected"], name in names)
        return names

    def test_a_device_whose_process_is_killed_is_away_and_the_other_is_not(self) -> None:
        server = self.serve()
        phone, _ = self.device("phone-1"), self.device("tablet-1")
        self.assertEqual(self.present(), ["phone-1", "tablet-1"])
        died_at = time.monotonic()
        phone.kill()
        server.until("device phone-1: closed by network")
        self.assertEqual(self.present(), ["tablet-1"])
        self.assertLess(time.monotonic() - died_at, PERIOD)

    def test_a_device_that_is_replaced_and_killed_at_once_is_away(self) -> None:
        server = self.serve()
        first, second = self.device("phone-1"), self.device("phone-1")
        first.until("replaced|1006")
        self.assertEqual(len(self.get("/v1/presence/users/alice")["sessions"]), 1)
        second.kill()
        server.until("device phone-1: closed by network")
        self.assertEqual(self.get("/v1/presence/users/alice")["sessions"], [])

    def test_after_the_death_of_the_server_nobody_is_there_but_who_came_back(self) -> None:
        server = self.serve()
        phone, tablet = self.device("phone-1"), self.device("tablet-1")
        self.assertEqual(self.present(), ["phone-1", "tablet-1"])
        before = {row["session_id"] for row in self.get("/v1/presence/users/alice")["sessions"]}
        server.kill()
        tablet.kill()
        self.serve()
        started_at = time.monotonic()
        sessions = self.get("/v1/presence/users/alice")["sessions"]
        self.assertEqual([row for row in sessions if row["session_id"] in before], [])
        phone.until("^connected")
        self.assertEqual(self.present(), ["phone-1"])
        self.assertLess(time.monotonic() - started_at, PERIOD)

    def test_a_device_that_hangs_is_away_when_its_heartbeat_is_lost_and_there_again_when_it_goes_on(self) -> None:
        server = self.serve(interval=1.0)
        phone = self.device("phone-1")
        phone.process.send_signal(signal.SIGSTOP)
        server.until("device phone-1: closed by server: 2001")
        self.assertEqual(self.present(), [])
        phone.process.send_signal(signal.SIGCONT)
        phone.until("^connected")
        self.assertEqual(self.present(), ["phone-1"])
