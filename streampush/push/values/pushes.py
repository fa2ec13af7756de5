"""Pushes to devices that are away: what a sender is given, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from streampush.protocol.terms import Priority
from streampush.push.values.devices import PushToken, Reach
from streampush.push.values.receipts import MessageRecord, PushOutcome, PushResult
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


@quick_value(frozen=True, slots=True)
class PushAnswer:
    """How a push ended.

    `reason`: a word or a few, safe to store and to show. `apns_id`: under which the push service knows it, empty if it never had
    it. `again_in`: seconds after which the same push may be sent again, None: that would be of no use, or might do harm.
    `token_dead_at_ms`: the device token was of no use any more at that time, Unix milliseconds; None: nothing is said of it.
    `held`: it waits for a person to mend something; after `PushSender.watch` was told, it need not wait for `again_in`.
    """

    outcome: PushOutcome
    reason: str = ""
    apns_id: str = ""
    again_in: float | None = None
    token_dead_at_ms: int | None = None
    held: bool = False


@quick_value(frozen=True, slots=True)
class MessageReach:
    """A message in a log, and how devices may be reached with it. Of `record` rows and counts are left out; `results`: how pushes
    of it ended so far, by device, of a message to devices and users."""

    record: MessageRecord
    reaches: tuple[Reach, ...]
    results: Mapping[str, PushResult]
