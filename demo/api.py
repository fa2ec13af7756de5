"""The server's REST API, as a backend without any library of ours uses it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from demo.processes import WAIT, Failed


class RestApi:
    """Asks with the key that `streampush init` made."""

    def __init__(self, address: str, key: Path) -> None:
        self._address = address
        self._key = key.read_text().strip()

    def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        """One request. Raises Failed for any answer but a success."""
        request = urllib.request.Request(
            f"http://{self._address}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                document: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
        return document

    def await_ready(self) -> None:
        """Until the server can do its work. Raises Failed."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                with urllib.request.urlopen(f"http://{self._address}/readyz", timeout=5):
                    return
            except urllib.error.URLError as error:
                if time.monotonic() > deadline:
                    raise Failed(f"the server is not ready: {error}") from error
                time.sleep(0.05)

    def await_receipt(self, message_id: str, devices: int) -> list[dict[str, Any]]:
        """The rows of the message's devices, when so many have processed it. Raises Failed."""
        deadline = time.monotonic() + WAIT
        while True:
            rows: list[dict[str, Any]] = self.ask("GET", f"/v1/messages/{message_id}")["devices"]
            if sum("processed" in row["milestones_ms"] for row in rows) == devices:
                return rows
            if time.monotonic() > deadline:
                raise Failed(f"the receipt of {message_id} is not complete: {rows}")
            time.sleep(0.05)

    def await_push(self, message_id: str) -> dict[str, str]:
        """How the push of a message to one device ended, when it has. Raises Failed."""
        deadline = time.monotonic() + WAIT
        while True:
            rows: list[dict[str, Any]] = self.ask("GET", f"/v1/messages/{message_id}")["devices"]
            ended: list[dict[str, str]] = [row["push"] for row in rows if "push" in row]
            if ended:
                return ended[0]
            if time.monotonic() > deadline:
                raise Failed(f"the push of {message_id} has not ended: {rows}")
            time.sleep(0.05)
