"""Where delivery on a channel begins, and what is lost: docs/protocol.md section 11.

A position is proven when its epoch is the log's and the entry at its offset has its message id. Whatever cannot be proven is
named as a loss; nothing is assumed.
"""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.terms import LossReason, Start
from streampush.push.channels import Kind, kind_of
from streampush.push.ports import Store
from streampush.push.values import CursorMove, Head, Position, SubscribeRequest, Subscription


async def locate(store: Store, device_id: str, request: SubscribeRequest, pending: CursorMove | None = None) -> Subscription:
    """Where the device's delivery on the channel begins.

    With a position: behind it, if it can be proven. Without: at the request's start, which by default is the device's stored
    cursor, and failing that the newest publication, or for the device's own channel the oldest. `pending`: the move of that
    cursor that the store does not have yet. Raises Refused.
    """
    found = await _locate(store, device_id, request, pending)
    if not found.offset:
        return found
    return replace(found, message_id=await store.message_id(found.channel, found.offset) or "")


async def _locate(store: Store, device_id: str, request: SubscribeRequest, pending: CursorMove | None) -> Subscription:
    channel = request.channel
    head = await store.head(channel)
    position = request.position
    if position is not None:
        return await _prove(store, channel, head, position, known_id=True)
    if request.start is Start.UNSPECIFIED:
        cursor = await store.cursor(device_id, channel)
        if pending is not None and (cursor is None or _supersedes(pending, cursor, head)):
            cursor = Position(pending.epoch, pending.offset)
        if cursor is not None:
            return await _prove(store, channel, head, cursor, known_id=bool(cursor.message_id))
    earliest = request.start is Start.EARLIEST
    if request.start is Start.UNSPECIFIED and kind_of(channel)[0] is Kind.DEVICE:
        earliest = True  # it was addressed by name: nothing sent before its first connection is lost
    return Subscription(channel, head.epoch, head.floor_offset if earliest else head.top_offset, head.top_offset)


def _supersedes(pending: CursorMove, cursor: Position, head: Head) -> bool:
    if pending.epoch == cursor.epoch:
        return pending.offset > cursor.offset
    return cursor.epoch != head.epoch


async def _prove(store: Store, channel: str, head: Head, position: Position, *, known_id: bool) -> Subscription:
    """`known_id` False: a cursor of our own, which lives and dies with the log and needs no id."""

    def lost(reason: LossReason, at_most: int = 0, offset: int = head.floor_offset) -> Subscription:
        return Subscription(channel, head.epoch, offset, head.top_offset, False, reason, at_most)

    if position.epoch != head.epoch:
        return lost(LossReason.EPOCH_CHANGED)
    if position.offset > head.top_offset:
        return lost(LossReason.REWOUND)
    if position.offset < head.floor_offset:
        return lost(LossReason.TRIMMED, head.floor_offset - position.offset)
    if known_id and position.offset and await store.message_id(channel, position.offset) != position.message_id:
        return lost(LossReason.ID_MISMATCH)
    expired = head.top_offset - position.offset - await store.live_after(channel, position.offset, head.top_offset)
    if expired > 0:
        return lost(LossReason.EXPIRED, expired, position.offset)
    return Subscription(channel, head.epoch, position.offset, head.top_offset, True)
