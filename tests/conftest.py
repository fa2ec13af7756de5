"""For all tests: the order of files, who compiles them, and how long an example may take.

No example has to be done in a given time: how long it takes says more of what else the machine does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

settings.register_profile("streampush", deadline=None)
settings.load_profile("streampush")

TESTS: Final = Path(__file__).parent

FIRST: Final = ("torture", "test_bench.py", "integration", "supervisor", "cli", "simulation", "apns", "push", "store", "server")
"""Folders and files of tests/ in the order in which they are begun; all others follow. `make test` deals whole files out to
processes, and a long one that is dealt last keeps one process at work when the others have ended. Most time is taken by what starts
processes of its own, so that comes first; what takes milliseconds fills up the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of FIRST; within a folder nothing changes."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(TESTS).parts[0], len(FIRST)))


def pytest_collection() -> None:
    """Of several processes each imports a share of the files before all of them. What one has compiled the others only read: pytest
    compiles tests in 15 s, which every process would do for itself in a fresh clone, all in the same order."""
    process = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if process:
        files = sorted(TESTS.rglob("test_*.py"))
        for file in files[int(process) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
            with suppress(Exception, pytest.skip.Exception):  # collecting it says what is wrong with it
                import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))
