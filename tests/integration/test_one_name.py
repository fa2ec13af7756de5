"""Processes of one node name over one Redis: those of an upgrade, one that was killed and the next one."""

from __future__ import annotations

import http.client
import json
import signal
import unittest
import urllib.request
from typing import Any

from tests.integration.handing_over import EXTRA, KEY, TIMEOUT, HandoverTestCase, Process
from tests.integration.harness import TOML
from tests.redis_server import NOT_HERE, PROGRAM, RedisServer


@unittest.skipUnless(PROGRAM, NOT_HERE)
class OneNameTestCase(HandoverTestCase):
    def setUp(self) -> None:
        super().setUp()
        redis = RedisServer().start()
        self.addCleanup(redis.stop)
        self.store = ("--set", "store.backend=redis", "--set", f"store.url={redis.url}", "--set", "session.drain_timeout=60")
        self.toml.write_text(TOML + EXTRA + 'scopes = ["publish", "read", "devices", "nodes"]\n')

    def ask_rest(self, port: int, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert isinstance(answer, dict)
        return answer


class MistakeTests(OneNameTestCase):
    def test_two_processes_that_were_given_one_name_are_both_shown_and_keep_their_devices(self) -> None:
        first = Process(self.launch(*self.store))
        port, rest = first.until_it_serves()
        self.device("phone-1", port)
        second = Process(self.launch(*self.store))
        _, other_rest = second.until_it_serves()
        while not (namesakes := self.named_alike(other_rest)):
            self.assertIsNone(second.process.poll())
        self.assertTrue(namesakes[0]["address"].endswith(f":{port}"))
        self.assertEqual(self.named_alike(rest), namesakes)
        for port_of_one in (rest, other_rest):
            while b"streampush_node_namesakes 1.0" not in self.metrics(port_of_one):
                self.assertIsNone(second.process.poll())
            self.assertTrue(self.ask_rest(port_of_one, "/v1/devices/phone-1")["connected"])

    def named_alike(self, rest: int) -> list[dict[str, Any]]:
        return [one for node in self.ask_rest(rest, "/v1/nodes").get("nodes", ()) for one in node["namesakes"]]

    def metrics(self, rest: int) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{rest}/metrics", timeout=TIMEOUT) as answer:
            return bytes(answer.read())


class UpgradeTests(OneNameTestCase):
    def test_a_device_of_the_process_that_drains_is_present_and_one_of_a_process_that_was_killed_is_not(self) -> None:
        first = self.node()
        port, rest = first.until_it_serves()
        device = self.device("phone-1", port)
        device.send_signal(signal.SIGSTOP)  # it does not leave
        second = self.node()
        second.until("taken over from")
        self.assertTrue(self.ask_rest(rest, "/v1/devices/phone-1")["connected"])
        self.kill(second)
        self.kill(first)
        third = self.node()
        _, rest = third.until_it_serves()
        while "error" in (found := self.ask_rest(rest, "/v1/devices/phone-1")) or found["connected"]:
            self.assertIsNone(third.process.poll())
