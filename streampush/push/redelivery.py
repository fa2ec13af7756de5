"""When a delivery that is not acknowledged is repeated, and when it is given up: docs/protocol.md section 10.4."""

from __future__ import annotations

from dataclasses import dataclass

from streampush.backoff import doubled
from streampush.config import DeliveryConfig

NO_ANSWER = "not acknowledged"
RETRY_LATER = "the device could not take it"
"""Why a publication became a dead letter."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a delivery may stay unanswered, and how often it is tried. Times in seconds; see config.DeliveryConfig."""

    ack_timeout: float
    max_interval: float
    max_attempts: int
    max_held: int

    @classmethod
    def of(cls, config: DeliveryConfig) -> Patience:
        return cls(config.ack_timeout, config.redelivery_max_interval, config.max_attempts, config.max_held)

    def after(self, attempts: int) -> float:
        """Seconds from delivery number `attempts` to the next one."""
        return doubled(self.ack_timeout, attempts - 1, max(self.max_interval, self.ack_timeout))


@dataclass(slots=True)
class Held:
    """A publication that the device wants later. `attempts`: how often it was delivered in vain.

    It is due at `due` (monotonic seconds): to be written again, or, while it is `out`, to be answered. `size`: bytes of its
    frame, 0: not known yet.
    """

    attempts: int
    due: float
    size: int = 0
    out: bool = False
