"""The Unix sockets of a node of several workers: the folder that they are in, and what workers are asked there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, Final

from streampush.config import Config
from streampush.errors import ConfigError
from streampush.rest.asking import Asker, NoAnswer
from streampush.rest.problems import Answer
from streampush.rest.reports import READY, json_body
from streampush.supervised import Supervised

MAX_READY_BYTES: Final = 64 * 1024
"""Bytes of a worker's answer to whether it is ready."""

MAX_REASONS: Final = 20
MAX_REASON: Final = 200
"""Reasons kept of a worker, and characters of each."""

MAX_PATH: Final = 107
"""Bytes of a Unix socket's path (unix(7))."""


class WorkerSockets:
    """A folder that only its owner can enter, from `open` to `remove`.

    It is made in what systemd names as RUNTIME_DIRECTORY, else in that for temporary files. `ask_deadline`: seconds for an answer.
    """

    def __init__(self, reactor: Any, config: Config, environ: Mapping[str, str], ask_deadline: float) -> None:
        self._reactor = reactor
        self._config = config
        self._environ = environ
        self._ask_deadline = ask_deadline
        self.folder = ""

    def open(self) -> None:
        """Makes the folder. Raises ConfigError."""
        parent = self._environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or None  # systemd may name several
        try:
            self.folder = tempfile.mkdtemp(prefix="streampush-", dir=parent)
        except OSError as error:
            raise self._refusal(f"no folder for their sockets in {parent}: {error.strerror}") from error
        longest = self.place(self._config.node.workers)
        if len(os.fsencode(longest.socket)) > MAX_PATH or len(os.fsencode(longest.supervisor)) > MAX_PATH:
            os.rmdir(self.folder)
            raise self._refusal(f"{self.folder} is too long a path for their sockets, set TMPDIR")

    def _refusal(self, problem: str) -> ConfigError:
        return ConfigError(self._config.file, "node.workers", problem)

    def place(self, number: int) -> Supervised:
        """Where that worker, from 1 on, and the supervisor find one another."""
        return Supervised(self.folder, number)

    async def reasons(self, number: int) -> tuple[str, ...]:
        """Why a worker says that it should get no traffic; empty: it should. Raises NoAnswer, also for what is no such answer."""
        asker = Asker(self._reactor, self.place(number).socket, deadline=self._ask_deadline, max_bytes=MAX_READY_BYTES)
        return _reasons(await asker.ask(READY))

    def remove(self) -> None:
        """The folder goes with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _reasons(answer: Answer) -> tuple[str, ...]:
    body = json_body(answer)
    if answer.status == 200:
        return ()
    reasons = body.get("reasons") if body is not None else None
    if answer.status != 503 or not isinstance(reasons, list):
        raise NoAnswer(f"status {answer.status}")
    return tuple(str(reason)[:MAX_REASON] for reason in reasons[:MAX_REASONS]) or ("not ready",)
