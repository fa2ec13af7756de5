"""What is told of connections that are refused before TLS: each is counted, a few are logged."""

from __future__ import annotations

from typing import Final, Protocol

from twisted.logger import Logger

from streampush.server.admission import DRAINING

INTERVAL: Final = 10.0
"""Seconds between two lines of the same reason: in a storm a refusal must cost next to nothing."""

_log: Final = Logger(namespace="streampush.connections")


class RefusalMetrics(Protocol):
    def refused_connection(self, reason: str) -> None:
        """A connection was refused before TLS."""

    def proxy_check(self) -> None:
        """A proxy connected for itself, to see whether we live."""


class Refusals:
    """Counts every refusal, and logs the first of each reason, then one in INTERVAL with the number of those in between."""

    __slots__ = ("_metrics", "_told")

    def __init__(self, metrics: RefusalMetrics) -> None:
        self._metrics = metrics
        self._told: dict[str, tuple[float, int]] = {}  # by reason: when, and how many since

    def refused(self, reason: str, address: str, now: float, detail: str = "") -> None:
        """A connection from `address` was refused; `now` in monotonic seconds, `detail` for the log. Draining is the operator's
        wish, and no news."""
        self._metrics.refused_connection(reason)
        if reason == DRAINING:
            return
        told_at, untold = self._told.get(reason, (now - INTERVAL, 0))
        if now - told_at < INTERVAL:
            self._told[reason] = told_at, untold + 1
            return
        self._told[reason] = now, 0
        _log.warn(
            "{address}: refused before TLS: {reason}, and {untold} others since the last such line",
            address=address,
            reason=f"{reason} ({detail})" if detail else reason,
            untold=untold,
        )
