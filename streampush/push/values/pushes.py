"""Pushes to devices that are away: what a sender is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from streampush.protocol.terms import Priority
from streampush.push.values.devices import PushToken
from streampush.push.values.receipts import PushOutcome
from streampush.quick_values import quick_value


@quick_value(frozen=True, slots=True)
class PushOrder:
    """One push of a message to one device.

    `push_id`: a UUID, the same whenever the same message is pushed to the same device, so that a repeat can be told from the
    first. `alert`: an alert block, see push/alerts.py. `expires_at_ms`: Unix milliseconds, 0: it does not expire.
    """

    push_id: str
    message_id: str
    channel: str
    device_id: str
    token: PushToken = field(repr=False)
    alert: bytes = field(repr=False)
    priority: Priority
    collapse_key: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """How a push ended.

    `reason`: a word or a few, safe to store and to show. `apns_id`: under which the push service knows it, empty if it never had
    it. `again_in`: seconds after which the same push may be sent again, None: that would be of no use, or might do harm.
    `token_dead_at_ms`: the device token was of no use any more at that time, Unix milliseconds; None: nothing is said of it.
    """

    outcome: PushOutcome
    reason: str = ""
    apns_id: str = ""
    again_in: float | None = None
    token_dead_at_ms: int | None = None
