"""From the alert block of a message (push/alerts.py) to the payload of its push."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streampush.apns.payload import NOTHING, Alert, InterruptionLevel, alert_payload, background_payload
from streampush.apns.push import MAX_PAYLOAD, PushType
from streampush.config import ApnsAppConfig
from streampush.push.alerts import own_keys

NO_DEFAULTS = ApnsAppConfig()

_short = re.compile(rb'(\{"title":"[^"\\]*","body":"[^"\\]*")(?:,("sound":"[^"\\]*"))?\}').fullmatch
"""Finds what most blocks are: a title, a body and perhaps a sound, with nothing in them that is escaped."""

_quote = json.encoder.encode_basestring


def payload_of(block: bytes, message_id: str, channel: str, app: ApnsAppConfig = NO_DEFAULTS) -> tuple[PushType, bytes]:
    """The push type, and the payload with the server's own key in it, which fits Apple's limit if `block` was let in by
    push/alerts.py. The same for every device of the message and app.

    What `app` says of its alerts by default is in it where the block says nothing; all of that is left out where it would not fit.
    """
    end = b"," + own_keys(message_id, channel) + b"}"
    short = _short(block)
    if short is not None and not (app.category or app.interruption_level or app.mutable_content):
        payload = _short_payload(short, app) + end
        if len(payload) <= MAX_PAYLOAD:
            return PushType.ALERT, payload
    said = json.loads(block)
    alert = alert_of(said)
    if said.get("background", False):
        return PushType.BACKGROUND, background_payload(alert)[:-1] + end
    full = with_defaults(alert, app)
    payload = alert_payload(full)[:-1] + end
    if len(payload) > MAX_PAYLOAD and full is not alert:
        payload = alert_payload(alert)[:-1] + end
    return PushType.ALERT, payload


def _short_payload(short: re.Match[bytes], app: ApnsAppConfig) -> bytes:
    """What `alert_payload` gives, but for the last brace: Apple's words for texts are those of the block."""
    texts, sound = short.groups()
    if sound is None and app.sound:
        sound = b'"sound":' + _quote(app.sound).encode()
    return b'{"aps":{"alert":' + texts + (b"}}" if sound is None else b"}," + sound + b"}")


def alert_of(said: Mapping[str, Any]) -> Alert:
    """What an alert block says, `background` aside. Raises ValueError for an interruption level that is none."""
    return Alert(
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
        custom=said.get("custom", NOTHING),
    )


def with_defaults(alert: Alert, app: ApnsAppConfig) -> Alert:
    """The alert with what the app says where it says nothing itself. One without a text stays as it is: a badge makes no sound."""
    has_text = alert.title or alert.subtitle or alert.body
    if not has_text or not (app.sound or app.category or app.interruption_level or app.mutable_content):
        return alert
    level = InterruptionLevel(app.interruption_level) if app.interruption_level else None
    return replace(
        alert,
        sound=app.sound or None if alert.sound is None else alert.sound,
        category=alert.category or app.category,
        interruption_level=alert.interruption_level or level,
        mutable_content=alert.mutable_content or app.mutable_content,
    )
