"""From the alert block of a message (push/alerts.py) to the payload of its push."""

from __future__ import annotations

import json

from streampush.apns.payload import Alert, InterruptionLevel, alert_payload, background_payload
from streampush.apns.push import PushType
from streampush.push.alerts import own_keys


def payload_of(block: bytes, message_id: str, channel: str) -> tuple[PushType, bytes]:
    """The push type, and the payload with the server's own key in it, which fits Apple's limit if `block` was let in by
    push/alerts.py. The same for every device of the message."""
    said = json.loads(block)
    alert = Alert(
        title=said.get("title", ""),
        subtitle=said.get("subtitle", ""),
        body=said.get("body", ""),
        badge=said.get("badge"),
        sound=said.get("sound"),
        category=said.get("category", ""),
        thread_id=said.get("thread_id", ""),
        mutable_content=said.get("mutable_content", False),
        interruption_level=InterruptionLevel(said["interruption_level"]) if "interruption_level" in said else None,
        relevance_score=said.get("relevance_score"),
        custom=said.get("custom", {}),
    )
    background = said.get("background", False)
    payload = background_payload(alert) if background else alert_payload(alert)
    return PushType.BACKGROUND if background else PushType.ALERT, payload[:-1] + b"," + own_keys(message_id, channel) + b"}"
