"""When a server wants this client back, kept over connections and, with a store of its own, over restarts of the application.

A server that sends many clients away gives each a moment of its own (docs/protocol.md section 12.1). An application that is
started again by its user, or by the system, must not come before that; else all that are restarted come at once.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

MAX_FILE_BYTES = 4096
"""An appointment has some 100 bytes."""


@dataclass(frozen=True, slots=True)
class Appointment:
    """Not before `not_before_ms`, Unix time in milliseconds, and then at `address`, as HOST:PORT."""

    not_before_ms: int
    address: str


class AppointmentStore(Protocol):
    """Called on the reactor's thread, once for each time that the server names: be quick. An exception is reported as a Fault."""

    def load(self) -> Appointment | None:
        """The last one, also if it has passed; called once, when the client is started."""

    def save(self, appointment: Appointment) -> None:
        """The server wants the client back then; takes the place of an earlier one."""

    def forget(self) -> None:
        """The client is back."""


class MemoryAppointments:
    """An appointment that lives as long as the process."""

    def __init__(self, appointment: Appointment | None = None) -> None:
        self._appointment = appointment

    def load(self) -> Appointment | None:
        return self._appointment

    def save(self, appointment: Appointment) -> None:
        self._appointment = appointment

    def forget(self) -> None:
        self._appointment = None


class FileAppointments:
    """An appointment in a file of its own, which need not exist, nor its folder. A file that makes no sense counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Appointment | None:
        """Raises OSError."""
        try:
            with self._path.open("rb") as file:
                found: Any = json.loads(file.read(MAX_FILE_BYTES))
            not_before_ms, address = found["not_before_ms"], found["address"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        valid = type(not_before_ms) is int and isinstance(address, str)
        return Appointment(not_before_ms, address) if valid else None

    def save(self, appointment: Appointment) -> None:
        """Raises OSError. Whoever reads the file sees the old one or the new one, whole."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            written.write_text(json.dumps(asdict(appointment)), encoding="utf-8")
            written.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                written.unlink()
            raise

    def forget(self) -> None:
        """Raises OSError."""
        self._path.unlink(missing_ok=True)
