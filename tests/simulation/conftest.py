"""For tests whose scenarios break off."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def collected() -> Iterator[None]:
    """What a broken scenario leaves behind is collected with its test. Later, its errors would be logged in another one."""
    gc.freeze()  # what was there before need not be looked at
    yield
    gc.collect()
    gc.unfreeze()
