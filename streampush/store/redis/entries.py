"""Publications as they lie in Redis, and as values: `lua/lib/log.lua` has the same order of facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from streampush.config import StoreConfig
from streampush.protocol.terms import Durability, Priority
from streampush.push.values import Appended, Draft, Publication
from streampush.store.drafts import weight
from streampush.store.packing import CLEAR_ON_PROCESSED, WANTS_RECEIPT, pack_flags, pack_headers, unpack_headers


def pack_draft(draft: Draft) -> list[Any]:
    """A draft for scripts: {channel, facts, headers, payload, fallback, bytes that it needs}."""
    headers = pack_headers(draft.headers)
    size = weight(draft.headers, draft.payload, draft.content_type)
    facts = [
        draft.message_id,
        draft.published_at_ms,
        draft.expires_at_ms,
        draft.deliver_at_ms,
        int(draft.priority),
        pack_flags(draft),
        len(draft.payload),
        size,
        _version(draft.version),
        0,  # the offset of what supersedes it
        0,  # when it was recalled
        "",  # what it recalls
        draft.collapse_key,
        draft.publisher,
        draft.content_type,
    ]
    return [draft.channel, facts, headers, draft.payload, draft.fallback, size + len(draft.fallback)]


def _version(version: int) -> str:
    """20 digits, which Lua compares as texts: it counts to 2**53 only. Empty for none."""
    return f"{version:020}" if version else ""


def unpack_facts(packed: bytes) -> list[Any]:
    """The facts of an entry from what lies in Redis. Texts are bytes."""
    facts: list[Any] = msgpack.unpackb(packed, raw=True)
    return facts


def publication(channel: str, offset: int, facts: Sequence[Any], headers: bytes, payload: bytes) -> Publication:
    """An entry of the log."""
    message_id, published_at, expires_at, _, priority, flags, _, _, _, _, _, recalls, key, _, content_type = facts
    return Publication(
        channel,
        offset,
        message_id.decode(),
        payload,
        published_at,
        expires_at,
        content_type.decode(),
        unpack_headers(headers),
        Priority(priority),
        key.decode(),
        recalls.decode(),
        bool(flags & WANTS_RECEIPT),
        bool(flags & CLEAR_ON_PROCESSED),
    )


def appended(row: Sequence[Any], epoch: str, durability: Durability) -> Appended:
    """What is new in a log, from what `appending.enter` gives: {channel, offset, facts, headers, payload}."""
    channel, offset, facts, headers, payload = row
    return Appended(publication(channel.decode(), offset, unpack_facts(facts), headers, payload), epoch, durability)


def history(limits: StoreConfig, now_ms: int) -> list[int]:
    """What is kept of a channel, for scripts that append: entries, bytes, and what was published before that is too old; and
    the time of now."""
    return [limits.history_messages, limits.history_bytes, now_ms - int(limits.history_age * 1000), now_ms]
