"""`make demo-cluster`: a worker and Redis are killed under load, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

from tests.redis_server import NOT_HERE, PROGRAM

ROOT = Path(__file__).resolve().parents[2]


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo.cluster"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **environment}
    )


class ClusterDemoTests(unittest.TestCase):
    @unittest.skipIf(PROGRAM is None, NOT_HERE)
    def test_nothing_is_lost_when_a_worker_and_redis_are_killed(self) -> None:
        done = run()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = done.stdout.strip().splitlines()
        self.assertRegex(
            lines[-1], r"^nothing lost: 12 devices, \d+ messages published, (\d+) deliveries due, \1 received, 0 missing, 0 repe"
        )
        self.assertIn("1 worker and 1 Redis killed", lines[-1])
        self.assertEqual([line.split()[0] for line in lines[4:9]], ["SIGKILL", "back", "SIGKILL", "away", "back"])
        self.assertIn("messages acknowledged, REPLICATED", lines[3])
        self.assertIn("12 of 12 devices are connected all the same", lines[7])

    def test_without_redis_it_says_what_is_missing(self) -> None:
        done = run(PATH="/nowhere")
        self.assertEqual((done.returncode, done.stdout[:46]), (0, "skipped   redis-server is not installed here: "), done.stderr)
