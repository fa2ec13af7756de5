"""What is the same in any store: what a draft weighs and becomes, an entry of the log or a message that waits for its time; and how
much of a log one read looks at."""

from __future__ import annotations

from collections.abc import Mapping

from streampush.protocol.terms import Durability
from streampush.push.values import Draft, MessageRecord, Publication

LOOK_AT_MOST = 1_000
"""Entries that one read looks at: a page may be empty and still not at the end."""


def weight(headers: Mapping[str, str], payload: bytes, content_type: str) -> int:
    """Bytes that count against the limits: payload, headers, content type; each character as one byte."""
    size = len(payload) + len(content_type)
    if headers:
        size += sum(len(name) + len(value) for name, value in headers.items())
    return size


def published(draft: Draft, offset: int, published_at_ms: int, recalls: str = "") -> Publication:
    """The draft as an entry of the log. With `recalls` it is the notice of that message's recall."""
    return Publication(
        draft.channel,
        offset,
        draft.message_id,
        draft.payload,
        published_at_ms,
        draft.expires_at_ms,
        draft.content_type,
        draft.headers,
        draft.priority,
        draft.collapse_key,
        recalls,
        draft.want_receipt,
        draft.clear_on_processed,
    )


def scheduled(draft: Draft, epoch: str, durability: Durability) -> MessageRecord:
    """What is known of a message that is not in the log yet."""
    return MessageRecord(
        draft.message_id,
        draft.channel,
        epoch,
        0,
        draft.publisher,
        draft.published_at_ms,
        draft.expires_at_ms,
        draft.deliver_at_ms,
        draft.priority,
        draft.collapse_key,
        draft.want_receipt,
        len(draft.payload),
        durability,
    )
