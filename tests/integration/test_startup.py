"""The real launch: `twistd streampush` as a process. Faults at the start are one line that names file and key, and status 1."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import unittest
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampush.cli.pki import CertificateAuthority
from tests.apns.minting import KEY, pem, write_private
from tests.forked import Forked
from tests.integration.harness import TOML
from tests.store.folders import quick_folder
from tests.support import make_files

TIMEOUT = 60.0

APP = """
[[apns.apps]]
name = "shop"
bundle_id = "com.example.shop"
key = "apple.p8"
team_id = "TEAM123456"
key_id = "KEY1234567"
"""


class LaunchTestCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = quick_folder()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.files = make_files(self.root)
        self.toml = self.root / "streampush.toml"
        self.toml.write_text(TOML)

    def command(self, *arguments: str) -> list[str]:
        twistd = Path(sys.executable).with_name("twistd")
        return [str(twistd), "--nodaemon", "--pidfile=", "streampush", "--config", str(self.toml), *arguments]

    def launch(self, *arguments: str) -> subprocess.Popen[bytes] | Forked:
        process = self.begin(*arguments)

        def end() -> None:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=TIMEOUT)

        self.addCleanup(end)
        return process

    def begin(self, *arguments: str) -> subprocess.Popen[bytes] | Forked:
        """As users start it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )

    def fault(self, *arguments: str) -> str:
        """The one line on stderr of a launch that must fail."""
        process = self.launch(*arguments)
        _, errors = process.communicate(timeout=TIMEOUT)
        text = errors.decode()
        self.assertEqual(process.returncode, 1, text)
        lines = text.strip().splitlines()
        self.assertEqual(len(lines), 1, text)
        return lines[0]


class ForkedTestCase(LaunchTestCase):
    """Where not the start is the matter, but what the process does then: see tests/forked.py."""

    def begin(self, *arguments: str) -> Forked:
        return Forked("twistd", self.command(*arguments)[1:], self.root, {**os.environ, "LC_ALL": "C"})


class FaultTests(LaunchTestCase):
    def test_port_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            line = self.fault("--set", f"listen.port={port}")
        self.assertIn(str(self.toml), line)
        self.assertIn("listen.port", line)
        self.assertIn(str(port), line)

    def test_rest_port_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            line = self.fault("--set", f"rest.port={taken.getsockname()[1]}")
        self.assertIn("rest.port", line)

    def test_file_that_is_not_there(self) -> None:
        self.toml.unlink()
        self.assertIn(str(self.toml), self.fault())

    def test_unknown_key(self) -> None:
        self.toml.write_text(TOML + '\n[log]\nformt = "json"\n')
        line = self.fault()
        self.assertIn("log.formt", line)
        self.assertIn("'format'", line)

    def test_value_out_of_range(self) -> None:
        line = self.fault("--set", "heartbeat.misses=0")
        self.assertIn("heartbeat.misses", line)

    def test_unreadable_key(self) -> None:
        self.files.server.key.unlink()
        line = self.fault()
        self.assertIn(str(self.toml), line)
        self.assertIn("tls.key", line)

    def test_key_that_others_can_read(self) -> None:
        self.files.server.key.chmod(0o644)
        line = self.fault()
        self.assertIn("tls.key", line)
        self.assertIn("chmod 600", line)

    def test_key_of_another_certificate(self) -> None:
        CertificateAuthority.create("x").issue_server(["localhost"]).write(self.root / "x.crt", self.files.server.key)
        self.assertIn("tls.key", self.fault())

    def test_key_of_an_app_that_is_no_ec_key(self) -> None:
        self.toml.write_text(TOML + APP)
        write_private(self.root / "apple.p8", self.files.ca.read_bytes())
        self.assertEqual(
            self.fault(), f"streampush: {self.toml}: apns.apps[0].key: {self.root}/apple.p8 holds a certificate and no private key"
        )

    def test_rest_on_every_address_without_tls(self) -> None:
        self.assertIn("rest.", self.fault("--set", "rest.address=0.0.0.0"))


class RunTests(LaunchTestCase):
    def records(self, process: subprocess.Popen[bytes] | Forked) -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)

    def test_serves_reloads_and_stops_with_a_json_log(self) -> None:
        process = self.launch()
        records = self.records(process)
        started = next(record for record in records if "rest" in record)
        self.assertRegex(started["rest"], r"^127\.0\.0\.1:\d+$")
        with urllib.request.urlopen(f"http://{started['rest']}/healthz", timeout=TIMEOUT) as answer:
            self.assertEqual(answer.status, 200)
        process.send_signal(signal.SIGHUP)
        next(record for record in records if "reloaded" in record["event"])
        process.terminate()
        next(record for record in records if record["event"] == "stopped")
        self.assertEqual(process.wait(TIMEOUT), -signal.SIGTERM)  # twistd ends as it was told to

    def test_a_hangup_reads_the_apps_of_apples_again(self) -> None:
        self.toml.write_text(TOML + APP)
        write_private(self.root / "apple.p8", pem(KEY))
        process = self.launch()
        records = self.records(process)
        apps = (record["apps"] for record in records if "apps" in record)
        self.assertEqual(next(apps), "shop (com.example.shop, production)")
        self.toml.write_text(TOML + APP + APP.replace("shop", "news"))
        process.send_signal(signal.SIGHUP)
        self.assertEqual(next(apps), "shop (com.example.shop, production), news (com.example.news, production)")

    def test_low_file_descriptor_limit_lowers_the_cap_with_a_warning(self) -> None:
        limited = (
            "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400)); os.execv(sys.argv[1], sys.argv[1:])"
        )
        process = subprocess.Popen([sys.executable, "-c", limited, *self.command()], cwd=self.root, stdout=subprocess.PIPE)
        self.addCleanup(lambda: (process.terminate(), process.communicate(timeout=TIMEOUT)))
        warning = next(record for record in self.records(process) if "admission.max_connections" in record.get("problem", ""))
        self.assertEqual(warning["level"], "warn")
        self.assertIn("400", warning["problem"])

    def test_twistd_lists_streampush_from_another_directory(self) -> None:
        twistd = str(Path(sys.executable).with_name("twistd"))
        done = subprocess.run([twistd, "--help"], cwd=self.root, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        self.assertIn("streampush", done.stdout)
