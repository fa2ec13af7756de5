"""What is known of devices, as the members of JSON objects: `openapi.json` describes them, a test compares."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from streampush.push.backlog import BacklogEntry, BacklogPage, ChannelBacklog
from streampush.push.explain import Explanation, Facts
from streampush.push.push_tokens import shown
from streampush.push.values import ChannelPresence, DeadLetter, DurableSubscription, PushToken, Session


def subscription(value: DurableSubscription) -> dict[str, Any]:
    """A durable subscription."""
    return asdict(value)


def channel_backlog(value: ChannelBacklog) -> dict[str, Any]:
    """How much of a channel waits."""
    return asdict(value)


def backlog_page(value: BacklogPage) -> dict[str, Any]:
    """The entries of a channel that wait."""
    return {
        "channel": value.channel,
        "epoch": value.epoch,
        "entries": [_entry(entry) for entry in value.entries],
        "next": value.following,
    }


def _entry(value: BacklogEntry) -> dict[str, Any]:
    document = asdict(value) | {"priority": value.priority.name}
    document["expires_at"] = document.pop("expires_at_ms")
    return document


def dead_letter(value: DeadLetter, *, with_payload: bool = False) -> dict[str, Any]:
    """A dead letter. The payload is the application's own affair: only who asks for it gets it."""
    publication = value.publication
    document = {
        "message_id": publication.message_id,
        "channel": publication.channel,
        "offset": publication.offset,
        "at_ms": value.at_ms,
        "attempts": value.attempts,
        "reason": value.reason,
        "published_at_ms": publication.published_at_ms,
        "expires_at": publication.expires_at_ms,
        "size": len(publication.payload),
        "content_type": publication.content_type,
        "priority": publication.priority.name,
        "collapse_key": publication.collapse_key,
    }
    if with_payload:
        document |= {
            "headers": dict(publication.headers),
            "payload_base64": base64.b64encode(publication.payload).decode("ascii"),
        }
    return document


def push_token(value: PushToken) -> dict[str, Any]:
    """A push token, without the token itself: it is secret."""
    return {
        "token_hash": shown(value.token),
        "topic": value.topic,
        "environment": "sandbox" if value.sandbox else "production",
        "registered_at_ms": value.registered_at_ms,
    }


def session(value: Session) -> dict[str, Any]:
    """A device that is connected. Which of a node's processes has it is nothing to backends."""
    document = asdict(value) | {"node": value.node}
    del document["run"]
    return document


def channel_presence(value: ChannelPresence) -> dict[str, Any]:
    """Who follows a channel."""
    return asdict(value) | {"device_ids": list(value.device_ids)}


def explanation(value: Explanation) -> dict[str, Any]:
    """Why a device is silent, and what is known of it."""
    return {"verdicts": [asdict(verdict) for verdict in value.verdicts], "facts": facts(value.facts)}


def facts(value: Facts) -> dict[str, Any]:
    """What an explanation is built on. Round trips and pauses are seconds."""
    document = asdict(value)
    if value.last_close is not None:
        document["last_close"]["advice"] = value.last_close.advice.name
    if value.connection is not None:
        document["connection"]["state"] = value.connection.state.name
    return document
