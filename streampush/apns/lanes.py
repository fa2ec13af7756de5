"""Two lanes for pushes: tokens that Apple has rejected before go through a narrow one.

Apple lowers what a connection may have under way when too many pushes are rejected. A backend with a list of dead tokens must not
get the pushes to healthy devices throttled with it: suspects share a small part of the concurrency, and a connection of their own
if there are several.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from streampush.apns.outcome import Delivered, Outcome, Rejected
from streampush.apns.reasons import Action, treatment

MAX_SUSPECTS = 100_000
"""Tokens that are remembered, 200 bytes each. The oldest are forgotten: they are tried among the healthy, and caught again."""

SUSPECT_SHARE = 0.1
"""Part of the concurrency that suspects may use. As much as the rejected pushes that Apple bears without lowering its limit, and
some."""

_SUSPICIOUS = frozenset({Action.DROP_TOKEN, Action.REST_DEVICE})
"""What says something against the token, and nothing against push, key or service."""


class Lane(Enum):
    HEALTHY = "healthy"
    SUSPECT = "suspect"


class Lanes:
    """Which lane a token takes. Tokens stay in memory and are never shown."""

    __slots__ = ("_max_suspects", "_share", "suspects")

    def __init__(self, *, max_suspects: int = MAX_SUSPECTS, share: float = SUSPECT_SHARE) -> None:
        self._max_suspects = max_suspects
        self._share = share
        self.suspects: OrderedDict[str, None] = OrderedDict()
        """The tokens, for who asks about each push."""

    def __len__(self) -> int:
        return len(self.suspects)

    def lane(self, device_token: str) -> Lane:
        """The lane of a push to this device."""
        return Lane.SUSPECT if device_token in self.suspects else Lane.HEALTHY

    def note(self, device_token: str, outcome: Outcome) -> None:
        """An outcome of a push to this device."""
        suspects = self.suspects
        if isinstance(outcome, Delivered):
            self.clear(device_token)
        elif isinstance(outcome, Rejected) and treatment(outcome.status, outcome.reason).action in _SUSPICIOUS:
            suspects[device_token] = None
            suspects.move_to_end(device_token)
            if len(suspects) > self._max_suspects:
                suspects.popitem(last=False)

    def clear(self, device_token: str) -> None:
        """A push to this device was taken."""
        if self.suspects:
            self.suspects.pop(device_token, None)

    def width(self, lane: Lane, limit: int) -> int:
        """Pushes of this lane that may be under way when `limit` may be in all. Suspects have at least one, or they would never
        be cleared."""
        return limit if lane is Lane.HEALTHY else max(1, int(limit * self._share))
