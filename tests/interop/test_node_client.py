"""A client in JavaScript, written from docs/protocol.md and the schema alone, against the vectors and a real server process."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.redis_server import NOT_HERE, PROGRAM, RedisServer

CLIENT = Path(__file__).with_name("node")
NODE = which("node")
SCRIPTS = Path(sys.executable).parent
SECONDS = 60.0  # for a machine with much else to do; a fifth of it is usual

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="there is no `node`: install Node.js 20 or later"),
    pytest.mark.skipif(
        not (CLIENT / "node_modules" / "protobufjs").is_dir(),
        reason="no node_modules: run `npm install` in tests/interop/node, or `make test`",
    ),
]

# Waits and heartbeats of a test, not of a mobile network.
SETTINGS = {
    "listen.address": "127.0.0.1",
    "listen.port": 0,
    "rest.port": 0,
    "heartbeat.interval": 1.5,
    "heartbeat.reply_timeout": 1,
    "heartbeat.min_ping_interval": 0.5,
    "reconnect.first_jitter": 0.2,
    "reconnect.backoff_initial": 0.1,
    "reconnect.backoff_max": 0.5,
    "session.drain_timeout": 2,
    "store.backend": "memory",  # a restart begins new logs: interop.js looks at how that is told
    "delivery.ack_timeout": 3,
    "store.history_messages": 20,  # as interop.js says
}


class Lines:
    """A process and the JSON lines of its stdout, each waited for until a common deadline; ends the process with the block."""

    def __init__(self, command: list[str | Path], deadline: float) -> None:
        self._deadline = deadline
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def left(self) -> float:
        return max(0.01, self._deadline - time.monotonic())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while line := self._lines.get(timeout=self.left()):
            yield json.loads(line)

    def write(self, document: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()


class Server(Lines):
    """A real `twistd streampush`; `port` and `rest` are where it listens."""

    def __init__(self, directory: Path, deadline: float, settings: Mapping[str, object] = SETTINGS) -> None:
        options = [f"--set={name}={value}" for name, value in settings.items()]
        config = directory / "streampush.toml"
        super().__init__([SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "streampush", "--config", config, *options], deadline)
        try:
            self.port, self.rest = self._listening()
        except BaseException:
            self.end()
            raise

    def _listening(self) -> tuple[int, str]:
        seen = []
        for line in self:
            seen.append(line)
            if "rest" in line and "port" in line:
                return line["port"], line["rest"]
        raise AssertionError(f"the server did not start: {seen}")

    def begin_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def node(script: str, *arguments: Path) -> list[str | Path]:
    assert NODE is not None
    return [NODE, CLIENT / script, *arguments]


def set_up(directory: Path) -> Path:
    subprocess.run([SCRIPTS / "streampush", "init", directory], check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
    return directory


def pair(directory: Path, name: str) -> dict[str, str]:
    secrets = directory / "secrets"
    return {"cert": os.fspath(secrets / f"{name}.crt"), "key": os.fspath(secrets / f"{name}.key")}


def write_stage(directory: Path, foreign: Path, server: Server) -> Path:
    """What interop.js needs to know."""
    stage = directory / "stage.json"
    document = {
        "address": {"host": "127.0.0.1", "port": server.port},
        "ca": os.fspath(directory / "ca.crt"),
        "certificates": {
            "device": pair(directory, "device-phone-1"),
            "other": pair(directory, "device-tablet-1"),
            "quiet": pair(directory, "device-sensor-1"),
            "publisher": pair(directory, "publisher-backend"),
            "foreign": pair(foreign, "device-phone-1"),
        },
        "rest": server.rest,
        "rest_key": os.fspath(directory / "secrets" / "rest.key"),
    }
    stage.write_text(json.dumps(document))
    return stage


def play(directory: Path, foreign: Path, deadline: float) -> tuple[list[dict[str, Any]], int]:
    """Runs interop.js, stops and starts the server where it asks for that; gives its steps and its exit status."""
    steps = []
    server = Server(directory, deadline)
    try:
        with Lines(node("interop.js", write_stage(directory, foreign, server)), deadline) as client:
            for line in client:
                if line.get("need") == "stop":
                    server.begin_to_stop()
                    client.write({})
                elif line.get("need") == "start":
                    assert server.process.wait(server.left()) == -signal.SIGTERM  # twistd dies of it again when it has cleaned up
                    server.end()
                    server = Server(directory, deadline)
                    client.write({"address": {"host": "127.0.0.1", "port": server.port}})
                else:
                    steps.append(line)
            status = client.process.wait(client.left())
    finally:
        server.end()
    return steps, status


def play_failovers(directory: Path, deadline: float, redis: RedisServer) -> tuple[list[dict[str, Any]], int]:
    """Runs failover.js; each start of Redis begins a new epoch."""
    settings = SETTINGS | {"store.backend": "redis", "store.url": redis.url, "store.publish_timeout": 30}
    steps = []
    server = Server(directory, deadline, settings)
    try:
        with Lines(node("failover.js", write_stage(directory, directory, server)), deadline) as client:
            for line in client:
                if line.get("need") == "fail over":
                    redis.kill()
                    redis.start()
                    client.write({})
                else:
                    steps.append(line)
            status = client.process.wait(client.left())
    finally:
        server.end()
    return steps, status


def check_vectors(*file: Path) -> tuple[int, dict[str, int], str]:
    """The exit status of vectors.js, its counts, and all that it said."""
    run = subprocess.run(node("vectors.js", *file), capture_output=True, text=True, timeout=SECONDS, check=False)
    return run.returncode, json.loads(run.stdout.splitlines()[-1]), run.stdout + run.stderr


def test_the_node_client_agrees_with_every_vector() -> None:
    status, counts, said = check_vectors()
    assert (status, counts["failed"]) == (0, 0), said
    assert counts["decoded"] == counts["vectors"] >= 100
    assert counts["encoded"] >= counts["canonical"] >= 50


def test_the_node_client_finds_a_vector_that_is_wrong(tmp_path: Path) -> None:
    document = json.loads((CLIENT.parent.parent / "vectors" / "frames.json").read_text(encoding="utf-8"))
    document["vectors"][0]["results"][0]["envelope"]["id"] = "8"
    wrong = tmp_path / "frames.json"
    wrong.write_text(json.dumps(document))
    status, counts, said = check_vectors(wrong)
    assert (status, counts["failed"]) == (1, 1), said


def test_the_node_client_lives_with_a_real_server_through_disconnects_and_a_restart(tmp_path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    steps, status = play(set_up(tmp_path / "site"), set_up(tmp_path / "foreign"), deadline)
    print(*steps, sep="\n")  # pytest shows it if one failed
    assert [step for step in steps if not step["ok"]] == []
    assert status == 0
    assert {"restartChangesTheEpoch", "goodbye"} <= {step["step"] for step in steps}


@pytest.mark.skipif(PROGRAM is None, reason=NOT_HERE)
def test_the_node_client_is_given_nothing_twice_over_failovers_with_a_message_put_off(tmp_path: Path) -> None:
    redis = RedisServer("appendonly yes", "appendfsync always").start()
    try:
        steps, status = play_failovers(set_up(tmp_path / "site"), time.monotonic() + SECONDS, redis)
    finally:
        redis.stop()
    print(*steps, sep="\n")  # pytest shows it if one failed
    assert [step for step in steps if not step["ok"]] == []
    assert (status, len(steps)) == (0, 5)
