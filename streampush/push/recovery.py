"""Where delivery on a channel begins, and what is lost: docs/protocol.md section 11.

A position is proven when its epoch is the log's and the entry at its offset has its message id. Whatever cannot be proven is
named as a loss; nothing is assumed. Nothing is asked here: `wants` says what to survey, `locate` decides with the answer.
"""

from __future__ import annotations

from dataclasses import replace

from streampush.protocol.terms import LossReason, Start
from streampush.push.channels import Kind, kind_of
from streampush.push.values import Cursor, CursorMove, Position, SubscribeRequest, Subscription, Survey, Want


def wants(request: SubscribeRequest, pending: CursorMove | None = None) -> Want:
    """What `locate` must know of the channel. `pending`: the move of the device's cursor that the store does not have yet."""
    offsets = [] if request.position is None else [request.position.offset]
    if pending is not None:
        offsets.append(pending.offset)
    return Want(request.channel, tuple(offsets))


def locate(request: SubscribeRequest, survey: Survey, pending: CursorMove | None = None) -> Subscription:
    """Where the device's delivery on the channel begins.

    With a position: behind it, if it can be proven. Without: at the request's start, which by default is the device's stored
    cursor, and failing that the newest publication, or for the device's own channel the oldest. `survey` is the answer to
    `wants` with the same `pending`.
    """
    cursor = _cursor(survey, pending)
    found = _locate(request, survey, cursor)
    if cursor is not None and (cursor.epoch, cursor.offset) == (found.epoch, found.offset):
        found = replace(found, attempts=cursor.attempts, processed=cursor.processed)
    unsaved = _unsaved(request, found, cursor)
    return replace(found, message_id=_id_at(survey, found.offset), urgent_offset=survey.head.urgent_offset, unsaved=unsaved)


def _unsaved(request: SubscribeRequest, found: Subscription, cursor: Cursor | None) -> int:
    """How much a device has acknowledged that the server did not come to store: it proves a position ahead of its cursor."""
    position = request.position
    if position is None or cursor is None or (cursor.epoch, position.offset) != (found.epoch, found.offset):
        return 0
    proven = found.recovered or found.loss is LossReason.EXPIRED
    return max(0, found.offset - cursor.offset) if proven else 0


def _cursor(survey: Survey, pending: CursorMove | None) -> Cursor | None:
    """The device's cursor: the stored one, or what it will be."""
    stored = survey.cursor
    if pending is None:
        return stored
    if stored is None or stored.epoch != pending.epoch:
        if stored is not None and stored.epoch == survey.head.epoch:
            return stored
        return Cursor(pending.epoch, pending.offset, pending.processed, pending.attempts)
    if pending.offset < stored.offset:
        return stored
    return Cursor(pending.epoch, pending.offset, max(stored.processed, pending.processed), pending.attempts)


def _locate(request: SubscribeRequest, survey: Survey, cursor: Cursor | None) -> Subscription:
    head = survey.head
    if request.position is not None:
        return _prove(survey, request.position, known_id=True)
    if request.start is Start.UNSPECIFIED and cursor is not None:
        return _prove(survey, Position(cursor.epoch, cursor.offset), known_id=False)
    earliest = request.start is Start.EARLIEST
    if request.start is Start.UNSPECIFIED and kind_of(request.channel)[0] is Kind.DEVICE:
        earliest = True  # it was addressed by name: nothing sent before its first connection is lost
        if head.floor_offset:
            lost = LossReason.TRIMMED, head.floor_offset
            return Subscription(request.channel, head.epoch, head.floor_offset, head.top_offset, False, *lost)
    offset = head.floor_offset if earliest else head.top_offset
    return Subscription(request.channel, head.epoch, offset, head.top_offset)


def _id_at(survey: Survey, offset: int) -> str:
    head = survey.head
    if not offset or offset == head.floor_offset:
        return head.floor_id
    spot = survey.spots.get(offset)
    return spot.message_id or "" if spot is not None else ""


def departed(survey: Survey, position: Position) -> LossReason:
    """Why a position of a former epoch is not one of the log's: it had got further, or has another publication there. UNSPECIFIED:
    it is, or has left the log: all that was before an entry with the same id is the same."""
    if position.offset > survey.head.top_offset:
        return LossReason.REWOUND
    if position.offset >= survey.head.floor_offset and position.offset and _id_at(survey, position.offset) != position.message_id:
        return LossReason.ID_MISMATCH
    return LossReason.UNSPECIFIED


def kept_place(survey: Survey) -> int:
    """Where delivery to a device whose position is not in the log goes on: the store was put back as a whole, so what its cursor
    has passed is in the log, too."""
    cursor, head = survey.cursor, survey.head
    if cursor is None or cursor.epoch != head.epoch or cursor.offset > head.top_offset:
        return head.floor_offset
    return max(cursor.offset, head.floor_offset)


def _prove(survey: Survey, position: Position, *, known_id: bool) -> Subscription:
    """`known_id` False: a cursor of our own, which lives and dies with the log and needs no id."""
    head = survey.head

    def lost(reason: LossReason, at_most: int = 0, offset: int = head.floor_offset) -> Subscription:
        return Subscription(survey.channel, head.epoch, offset, head.top_offset, False, reason, at_most)

    if position.epoch != head.epoch:
        if not known_id or position.epoch not in survey.former:
            return lost(LossReason.EPOCH_CHANGED)
        reason = departed(survey, position)
        if reason:
            return lost(reason, offset=kept_place(survey))
    if position.offset > head.top_offset:
        return lost(LossReason.REWOUND)
    if position.offset < head.floor_offset:
        return lost(LossReason.TRIMMED, head.floor_offset - position.offset)
    if known_id and position.offset and _id_at(survey, position.offset) != position.message_id:
        return lost(LossReason.ID_MISMATCH)
    expired = survey.spots[position.offset].expired
    if expired:
        return lost(LossReason.EXPIRED, expired, position.offset)
    return Subscription(survey.channel, head.epoch, position.offset, head.top_offset, True)
