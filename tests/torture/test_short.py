"""A short torture inside the tests; `make torture` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest
from pathlib import Path

from tests.redis_server import NOT_HERE, PROGRAM
from tests.torture.__main__ import ENDED

ROOT = Path(__file__).resolve().parents[2]
CLUSTER_RUN = "--workers 3 --kills 4 --freezes 1 --drains 1 --phones 8 --publishers 4 --rate 60 --seed 7 --json"
ONE_RUN = "--kills 2 --freezes 1 --fills 1 --small-disk --phones 8 --publishers 4 --rate 60 --seed 7 --json"
TIMEOUT = 400.0
"""Seconds, for a machine that does much else."""


class ShortTortureTests(unittest.TestCase):
    @unittest.skipIf(PROGRAM is None, NOT_HERE)
    def test_nothing_is_lost_or_repeated_when_workers_their_supervisor_and_redis_are_killed(self) -> None:
        command = [sys.executable, "-m", "tests.torture", *CLUSTER_RUN.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["broken"], [])
        told = {"worker killed": 2, "redis killed": 1, "supervisor killed": 1, "worker frozen": 1, "node drained": 1}
        self.assertEqual(result["faults"], told)
        self.assertGreater(result["delivered"], 20)
        self.assertGreater(result["receipts"], 0)

    def test_nothing_is_lost_or_repeated_over_kills_a_freeze_and_a_full_disk(self) -> None:
        command = [sys.executable, "-m", "tests.torture", *ONE_RUN.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["broken"], [])
        self.assertGreaterEqual(result["starts"], 3)
        self.assertGreater(result["delivered"], 20)
        self.assertGreater(result["receipts"], 0)
        if result["skipped"]:
            self.assertNotIn("fill", result["faults"])
            print(f"the disk was not filled: {result['skipped']}")

    def test_ended_by_a_signal_it_ends_what_it_has_started_and_judges_nothing(self) -> None:
        command = [sys.executable, "-m", "tests.torture", *["--fills", "0", "--phones", "2", "--publishers", "2"]]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            run.stderr.readline()  # the server is there
            servers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            run.terminate()
            said, errors = run.communicate(timeout=TIMEOUT)
        self.assertEqual((run.returncode, said.split()[0]), (ENDED, "ended"), said + errors)
        self.assertNotIn("Traceback", errors)
        self.assertTrue(servers)
        self.assertEqual([pid for pid in servers if Path(f"/proc/{pid}").exists()], [])
