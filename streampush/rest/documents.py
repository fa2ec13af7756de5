"""The application's values as the members of JSON objects: `openapi.json` describes them, a test compares.

All times are Unix milliseconds. What a publisher gives has the name under which it was given (`expires_at`, `deliver_at`); times
that the server has noted end in `_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from streampush.protocol.terms import Milestone
from streampush.push.progress import ORDER, DeviceProgress, MessageProgress
from streampush.push.values import ChannelStatus, DeviceStatus, Published, PushOutcome, PushRecord, PushResult, Recalled


def published(value: Published) -> dict[str, Any]:
    """The answer to a publish."""
    document = asdict(value) | {"durability": value.durability.name}
    document["deliver_at"] = document.pop("deliver_at_ms")
    return document


def recalled(value: Recalled) -> dict[str, Any]:
    """The answer to DELETE /v1/messages/{id}."""
    return {"recalled": True} | asdict(value)


def device(value: DeviceStatus) -> dict[str, Any]:
    """The answer to GET /v1/devices/{id}."""
    document = asdict(replace(value, attributes=dict(value.attributes)))
    document |= {"state": value.state.name, "last_close_advice": value.last_close_advice.name}
    seconds = document.pop("round_trip")
    return document | {"round_trip_ms": None if seconds is None else round(seconds * 1000, 3)}


def channel(value: ChannelStatus) -> dict[str, Any]:
    """The answer to GET /v1/channels/{name}."""
    head = value.head
    return {
        "channel": value.channel,
        "epoch": head.epoch,
        "top_offset": head.top_offset,
        "floor_offset": head.floor_offset,
        "connections": value.connections,
    }


def message(value: MessageProgress) -> dict[str, Any]:
    """The answer to GET /v1/messages/{id}."""
    record = value.record
    return {
        "message_id": record.message_id,
        "channel": record.channel,
        "epoch": record.epoch,
        "offset": record.offset,
        "publisher": record.publisher,
        "published_at_ms": record.published_at_ms,
        "expires_at": record.expires_at_ms,
        "deliver_at": record.deliver_at_ms,
        "durability": record.durability.name,
        "priority": record.priority.name,
        "collapse_key": record.collapse_key,
        "want_receipt": record.want_receipt,
        "size": record.size,
        "recalls": record.recalls,
        "recalled_at_ms": record.recalled_at_ms,
        "superseded_by": record.superseded_by,
        "state": value.state.value,
        "ended": bool(value.ending),
        "devices": [_device_progress(row) for row in value.devices],
        "more_devices": value.more,
        "counts": counts(record.counts),
        "pushes": {outcome.value: record.push_counts[outcome] for outcome in PushOutcome if outcome in record.push_counts},
    }


def _device_progress(row: DeviceProgress) -> dict[str, Any]:
    document = {"device_id": row.device_id, "state": row.state, "milestones_ms": counts(row.times)}
    return document if row.push is None else document | {"push": push(row.push)}


def push(value: PushResult) -> dict[str, Any]:
    """How a push to a device that is away ended."""
    return {"outcome": value.outcome.value, "at_ms": value.at_ms, "reason": value.reason, "apns_id": value.apns_id}


def push_record(value: PushRecord) -> dict[str, Any]:
    """The answer to GET /v1/apns/pushes/{apns_id}."""
    return {"message_id": value.message_id, "device_id": value.device_id} | push(value.result)


def counts(values: Mapping[Milestone, int]) -> dict[str, int]:
    """Numbers or times by milestone, in order."""
    return {milestone.name.lower(): values[milestone] for milestone in ORDER if milestone in values}
