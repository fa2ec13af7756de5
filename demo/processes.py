"""The demo's processes: each tells its story in JSON lines, which a thread collects."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]

WAIT = 30.0
"""Seconds for anything to happen: far more than it takes on a busy machine."""


class Failed(Exception):
    """The demo did not show what it is there to show."""


class Story:
    """A process and what it has told so far. `stays`: it does not end with its standard input."""

    def __init__(self, name: str, command: list[str], *, stays: bool = False) -> None:
        self.name = name
        self._stays = stays
        self.records: list[Record] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"event": line.strip()}
            with self._changed:
                self.records.append(record)
                self._changed.notify_all()

    def wait(self, what: str, met: Callable[[Record], bool]) -> Record:
        """The first record that meets the condition. Raises Failed if none comes."""
        return self.wait_all(what, lambda records: next(filter(met, records), None))

    def wait_all(self, what: str, met: Callable[[list[Record]], Record | None]) -> Record:
        """As `wait`, for a condition on all records so far."""
        deadline = time.monotonic() + WAIT
        with self._changed:
            while (found := met(self.records)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or self._process.poll() is not None:
                    raise Failed(f"{self.name}: {what} was waited for in vain; the last it told: {self.records[-3:]}")
                self._changed.wait(min(left, 0.5))
            return found

    def events(self, kind: str) -> list[Record]:
        """What it told of one kind."""
        with self._changed:
            return [record for record in self.records if record["event"] == kind]

    def say(self, line: str) -> None:
        """A line for the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Ends the process: stdin first, then by signal."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(0 if self._stays else 5)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(WAIT)


@contextmanager
def running(*stories: Story) -> Iterator[None]:
    """Whatever happens, the processes are ended, the last one first."""
    try:
        yield
    finally:
        for story in reversed(stories):
            story.stop()


def server_command(root: Path, *options: str) -> list[str]:
    """`twistd streampush` of this virtualenv, on ports that the kernel gives. `options`: more of its command line."""
    settings = ["listen.port=0", "listen.address=127.0.0.1", "rest.port=0", "reconnect.first_jitter=2", "session.drain_timeout=3"]
    twistd = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "streampush"]
    command = [*twistd, "--config", str(root / "streampush.toml")]
    for assignment in settings:
        command += ["--set", assignment]
    return [*command, *options]


def device_command(root: Path, port: int, device_id: str, topics: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "demo.device", str(root), str(port), device_id, *topics]


def publisher_command(root: Path, port: int, name: str) -> list[str]:
    return [sys.executable, "-m", "demo.publisher", str(root), str(port), name]
