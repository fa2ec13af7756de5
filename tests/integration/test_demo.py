"""`make demo` is the promise of the README's first screen; here it is held."""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class DemoTests(unittest.TestCase):
    def test_every_message_arrives_once_and_the_last_line_counts_them(self) -> None:
        done = subprocess.run([sys.executable, "-m", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        last = done.stdout.strip().splitlines()[-1]
        self.assertIn("19 deliveries due, 19 received, 0 missing, 0 repeated", last)
        self.assertIn("proven without loss", done.stdout)
