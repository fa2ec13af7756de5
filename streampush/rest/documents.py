"""The application's values as the members of JSON objects: `openapi.json` describes them, a test compares."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from streampush.push.values import ChannelStatus, DeviceStatus, Published


def published(value: Published) -> dict[str, Any]:
    """The answer to a publish."""
    document = asdict(value) | {"durability": value.durability.name}
    document["deliver_at"] = document.pop("deliver_at_ms")
    return document


def device(value: DeviceStatus) -> dict[str, Any]:
    """The answer to GET /v1/devices/{id}."""
    document = asdict(value) | {"state": value.state.name}
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
