"""Metrics that are remembered."""

from __future__ import annotations

from streampush.apns.link_state import LinkState
from streampush.apns.outcome import Why


class Counted:
    """All that was counted, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.times: list[tuple[float, float]] = []
        """Of pushes that were delivered: until they were sent, and from then on."""

    def link_moved(self, old: LinkState | None, new: LinkState) -> None:
        self.seen.append(("link_moved", old, new))

    def link_failed(self, permanent: bool) -> None:
        self.seen.append(("link_failed", permanent))

    def gone_away(self, code: str) -> None:
        self.seen.append(("gone_away", code))

    def returned(self, why: Why, again: bool) -> None:
        self.seen.append(("returned", why, again))

    def push_delivered(self, waited: float, answered: float) -> None:
        self.times.append((waited, answered))

    def push_ended(self, app: str, outcome: str, reason: str) -> None:
        self.seen.append(("push_ended", app, outcome, reason))

    def push_repeated(self, app: str, outcome: str, reason: str) -> None:
        self.seen.append(("push_repeated", app, outcome, reason))

    def credential_stopped(self, app: str, reason: str) -> None:
        self.seen.append(("credential_stopped", app, reason))

    def clock_skewed(self, seconds: float) -> None:
        self.seen.append(("clock_skewed", round(seconds)))

    def of(self, name: str) -> list[tuple[object, ...]]:
        return [each[1:] for each in self.seen if each[0] == name]
