"""Where the files of a test go."""

from __future__ import annotations

import os
import tempfile

QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory, if the system has one: most tests make many commits, and none of them cuts the power."""


def quick_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in which a commit costs no time."""
    return tempfile.TemporaryDirectory(prefix="streampush-store-", dir=QUICK)
