"""What a draft becomes in any store: an entry of the log, or a message that waits for its time."""

from __future__ import annotations

from streampush.protocol.terms import Durability
from streampush.push.values import Draft, MessageRecord, Publication


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
