"""Milestones of the messages in a log: push.store_ports.CursorStore.record says which are kept."""

from __future__ import annotations

from collections.abc import Container

from streampush.protocol.terms import Durability, Milestone
from streampush.push.channels import is_addressed
from streampush.push.values import NO_COUNTS, NO_PUSHES, CursorMove, DeviceReceipt, Mark, MessageRecord
from streampush.store.memory.log import Entry, Log


def mark(log: Log, one: Mark) -> None:
    """A range of messages has reached a milestone."""
    if one.epoch != log.epoch:
        return
    if is_addressed(log.channel):
        for entry in log.between(one.first - 1, one.last):
            entry.reached(one.device_id, one.milestone, one.at_ms)
    elif log.wanting:
        for entry in log.between(one.first - 1, one.last):
            if entry.publication.want_receipt:
                entry.counted(one.milestone, one.count)


def moved(log: Log, move: CursorMove, before: tuple[int, int], dead: Container[int], now_ms: int) -> list[Entry]:
    """A cursor was moved from `before` (offset and processed offset); `dead`: offsets that were dead-lettered just now.

    Gives what is to be recalled because it was processed.
    """
    cleared: list[Entry] = []
    if move.epoch != log.epoch:
        return cleared
    delivered, processed = max(before[0], move.begun), max(before[1], move.begun)
    if is_addressed(log.channel):
        device_id, at_ms = move.device_id, move.at_ms
        for entry in log.between(delivered, move.offset):
            if not entry.has(device_id, Milestone.DEAD_LETTERED) and (
                entry.readable(now_ms) or entry.has(device_id, Milestone.WRITTEN)
            ):
                entry.reached(device_id, Milestone.DELIVERED, at_ms)
        for entry in log.between(processed, move.processed):
            if entry.has(device_id, Milestone.DELIVERED) and not entry.has(device_id, Milestone.REJECTED):
                entry.reached(device_id, Milestone.PROCESSED, at_ms)
                if entry.publication.clear_on_processed and not entry.recalled_at_ms:
                    cleared.append(entry)
    elif log.wanting:
        for after, last, milestone in (
            (delivered, move.offset, Milestone.DELIVERED),
            (processed, move.processed, Milestone.PROCESSED),
        ):
            for entry in log.between(after, last):
                if entry.publication.want_receipt and entry.publication.offset not in dead and entry.readable(now_ms):
                    entry.counted(milestone)
    return cleared


def describe(log: Log, entry: Entry, max_devices: int) -> MessageRecord:
    """What became of a message in the log."""
    publication = entry.publication
    times, pushes = entry.rows or {}, entry.pushes or {}
    rows = sorted(times.keys() | pushes.keys())[:max_devices] if times or pushes else ()
    return MessageRecord(
        publication.message_id,
        publication.channel,
        log.epoch,
        publication.offset,
        entry.publisher,
        publication.published_at_ms,
        publication.expires_at_ms,
        entry.deliver_at_ms,
        publication.priority,
        publication.collapse_key,
        publication.want_receipt,
        entry.size,
        Durability.MEMORY,
        publication.recalls,
        entry.recalled_at_ms,
        entry.superseded_by,
        tuple(DeviceReceipt(device_id, dict(times.get(device_id, ())), pushes.get(device_id)) for device_id in rows),
        dict(entry.counts) if entry.counts else NO_COUNTS,
        dict(entry.push_counts) if entry.push_counts else NO_PUSHES,
    )
