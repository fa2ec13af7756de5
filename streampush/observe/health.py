"""Readiness: named checks, each of which says why the node should get no traffic, or nothing. Time is an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Check = Callable[[float], str]
"""Takes the time in monotonic seconds and gives the reason why not, or the empty string."""


class Health:
    """Ready when no check has a reason against it."""

    def __init__(self, checks: Mapping[str, Check] | None = None) -> None:
        self._checks: dict[str, Check] = dict(checks or {})

    def add(self, name: str, check: Check) -> None:
        """Adds or replaces a check. Reasons are shown to anybody who asks: they name no secret, device or channel."""
        self._checks[name] = check

    def ready(self, now: float) -> tuple[bool, tuple[str, ...]]:
        """Whether the node is ready, and each reason why not as "name: reason", in the order in which checks were added."""
        reasons = tuple(f"{name}: {reason}" for name, check in self._checks.items() if (reason := check(now)))
        return not reasons, reasons


class Flag:
    """A check that somebody sets: draining, store unavailable."""

    __slots__ = ("reason",)

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def __call__(self, now: float) -> str:
        return self.reason


class ProbeWatch:
    """A check: a probe has succeeded within the last `failures` intervals of `interval` seconds, and at least once."""

    __slots__ = ("_last_at", "_limit")

    def __init__(self, interval: float, failures: int) -> None:
        self._limit = interval * failures
        self._last_at: float | None = None

    def succeeded(self, now: float) -> None:
        """A probe went the whole way."""
        self._last_at = now

    def ready(self, now: float) -> tuple[bool, tuple[str, ...]]:
        """As `Health.ready`, for the probe alone."""
        reason = self(now)
        return (False, (reason,)) if reason else (True, ())

    def __call__(self, now: float) -> str:
        if self._last_at is None:
            return "no probe message has arrived yet"
        silence = now - self._last_at
        if silence > self._limit:
            return f"no probe message has arrived for {silence:.1f} s, the limit is {self._limit:g} s"
        return ""
