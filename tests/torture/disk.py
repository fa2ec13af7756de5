"""A small disk that can be filled: a tmpfs of our own, where we may mount one."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

SIZE = 192 * 1024 * 1024
"""Bytes: room for what one run stores, and quickly filled."""

CHUNK = 1024 * 1024


class SmallDisk:
    """Mounted at `path` between `mount` and `unmount`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def mount(self) -> str:
        """Mounts; gives why that is not permitted, or nothing."""
        self.path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(self.path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return str(error)
        return done.stderr.strip() or "mount failed" if done.returncode else ""

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], capture_output=True, check=False)

    def fill(self) -> None:
        """Not a byte is free any more."""
        size = CHUNK
        with self._ballast.open("ab", buffering=0) as file:
            while size:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def empty(self) -> None:
        """The room is there again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._ballast)
