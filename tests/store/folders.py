"""Where the files of a test go."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import SkipTest

QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory, if the system has one: most tests make many commits, and none of them cuts the power."""


def quick_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in which a commit costs no time."""
    return tempfile.TemporaryDirectory(prefix="streampush-", dir=QUICK)


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """The folder of a file system of its own that holds so many bytes; skips the test where mounting is not permitted."""
    with quick_folder() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest(f"no file system can be mounted here: {error}") from error
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)
