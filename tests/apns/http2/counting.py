"""How much the core does for an input: see tests.line_count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streampush.apns import http2
from tests import line_count

_CORE = str(Path(http2.__file__).parent)


def lines_run(work: Callable[[], object]) -> int:
    """Lines of `streampush.apns.http2` that run in `work`."""
    return line_count.lines_run(work, _CORE)
