"""`make demo` is the promise of the README's first screen; here it is held."""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

from demo.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]


class DemoTests(unittest.TestCase):
    def test_every_message_arrives_once_and_what_is_promised_is_shown(self) -> None:
        done = subprocess.run([sys.executable, "-m", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = done.stdout.strip().splitlines()
        self.assertIn("30 deliveries due, 30 received, 0 missing, 0 repeated", lines[-1])
        self.assertIn("1 pushed by Apple, 1 cancelled, 1 dead token removed", lines[-1])
        for shown in (
            "resumed   phone-1 is back, proven without loss on device:phone-1, news/today, user:alice",
            "backlog   tablet-1: 2 on device:tablet-1, 1 on user:alice wait for it",
            "recall    'sent by mistake', which was stored: tablet-1 will never see it",
            "back      tablet-1 is on again and has collected its backlog",
            "recall    phone-1 is told on user:alice to remove 'you have won'",
            "recall    tablet-1 is told on user:alice to remove 'you have won'",
            "receipt   told to the publisher: tablet-1 has processed it",
            "push      phone-1: none, the device has acknowledged the message",
            "push      watch-1: Apple says Unregistered",
            "forgotten the token of watch-1: the next message found 'no token'",
            "back      tablet-1 and watch-1 are on again and have collected what they were pushed for",
        ):
            self.assertIn(shown, lines)
        self.assertEqual(len([line for line in lines if line.startswith("push      tablet-1: Apple took it as ")]), 1, lines)
        receipts = [line for line in lines if line.startswith("receipt   GET /v1/messages/")]
        self.assertEqual(len(receipts), 2, lines)
        for line in receipts:
            self.assertRegex(line, r"accepted .* stored .* written .* delivered .* processed ")


class LedgerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.ledger = Ledger({"a": frozenset({"device:a", "news"}), "b": frozenset({"news"})})
        self.ledger.expect("news", "one")
        self.ledger.expect("device:a", "two")

    def test_everything_once_is_status_0(self) -> None:
        wrong, counts, status = self.ledger.reckon({"a": [("news", "one"), ("device:a", "two")], "b": [("news", "one")]})
        self.assertEqual((wrong, status), ([], 0))
        self.assertEqual(counts, "2 devices, 2 messages published, 3 deliveries due, 3 received, 0 missing, 0 repeated")

    def test_what_did_not_come_is_missing_and_status_1(self) -> None:
        wrong, counts, status = self.ledger.reckon({"a": [("news", "one"), ("device:a", "two")]})
        self.assertEqual((wrong, status), (["MISSING   b: news 'one'"], 1))
        self.assertIn("1 missing, 0 repeated", counts)

    def test_what_came_twice_is_repeated_and_status_1(self) -> None:
        got = {"a": [("news", "one"), ("device:a", "two")], "b": [("news", "one"), ("news", "one")]}
        wrong, counts, status = self.ledger.reckon(got)
        self.assertEqual((wrong, status), (["REPEATED  b: news 'one'"], 1))
        self.assertIn("0 missing, 1 repeated", counts)

    def test_what_was_recalled_must_not_come(self) -> None:
        self.ledger.recalled()
        got = {"a": [("news", "one"), ("device:a", "two"), ("device:a", "wrong")], "b": [("news", "one")]}
        wrong, _, status = self.ledger.reckon(got)
        self.assertEqual((wrong, status), (["REPEATED  a: device:a 'wrong'"], 1))
