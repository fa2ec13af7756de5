"""How much the core does for an input, in lines of it that are run: a cost that no other process disturbs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from streampush.apns import http2

_CORE = str(Path(http2.__file__).parent)


def lines_run(work: Callable[[], object]) -> int:
    """Lines of `streampush.apns.http2` that run in `work`."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal count
        if not frame.f_code.co_filename.startswith(_CORE):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
