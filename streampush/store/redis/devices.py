"""The devices in Redis: their records, their users, their push tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from streampush.config import StoreConfig
from streampush.protocol.codes import Advice
from streampush.push.values import NO_HEADERS, Close, DeviceRecord, PushToken
from streampush.store.redis.scripts import Scripts

MORE = b"more"
"""What a script says that has done its share of the work, and is to be called again."""


class RedisDevices:
    """push.store_ports.DeviceStore, but for `reach` and dead letters."""

    _scripts: Scripts
    _limits: StoreConfig

    async def device(self, device_id: str) -> DeviceRecord | None:
        fields = await self._scripts.run("device", device_id)
        return _record(device_id, fields) if fields else None

    async def remember_device(self, record: DeviceRecord) -> None:
        await self._scripts.run("remember_device", _packed(record), self._limits.max_devices)

    async def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        return bool(await self._scripts.run("drop_token", device_id, token, at_ms))

    async def device_of_token(self, token: bytes) -> DeviceRecord | None:
        found = await self._scripts.run("device_of_token", token)
        return _record(found[0].decode(), found[1]) if found else None

    async def forget_device(self, device_id: str) -> bool:
        while (known := await self._scripts.run("forget_device", device_id)) == MORE:
            pass  # others have their turn
        return bool(known)

    async def devices_of_user(self, user_id: str, limit: int) -> Sequence[DeviceRecord]:
        found = await self._scripts.run("devices_of_user", user_id, limit)
        return [_record(device_id.decode(), fields) for device_id, fields in found]

    async def devices_named(self, prefix: str, limit: int) -> Sequence[str]:
        return [name.decode() for name in await self._scripts.run("devices_named", prefix, limit)]


def packed_close(close: Close) -> tuple[int, int, str, int]:
    """How a connection ended, as the scripts take it."""
    return close.code, int(close.advice), close.detail, close.at_ms


def _packed(record: DeviceRecord) -> dict[str, object]:
    """What the script remember_device takes."""
    packed: dict[str, object] = {
        "device": record.device_id,
        "user": record.user_id,
        "first": record.first_seen_ms,
        "last": record.last_seen_ms,
        "attributes": json.dumps(dict(record.attributes), ensure_ascii=False) if record.attributes else "",
    }
    token = record.push_token
    if token is not None:
        packed |= {
            "token": token.token,
            "topic": token.topic,
            "sandbox": int(token.sandbox),
            "registered": token.registered_at_ms,
        }
    if record.last_close is not None:
        packed["close"] = packed_close(record.last_close)
    return packed


def _record(device_id: str, fields: Sequence[bytes]) -> DeviceRecord:
    """The record, from the names and values of its hash in turn."""
    known: dict[bytes, Any] = dict(zip(fields[::2], fields[1::2], strict=True))
    token = close = None
    if b"token" in known:
        token = PushToken(known[b"token"], known[b"topic"].decode(), known[b"sandbox"] == b"1", int(known[b"registered"]))
    if b"close_code" in known:
        advice, detail = Advice(int(known[b"close_advice"])), known[b"close_detail"].decode()
        close = Close(int(known[b"close_code"]), advice, detail, int(known[b"close_at"]))
    attributes = known[b"attributes"]
    return DeviceRecord(
        device_id,
        known[b"user"].decode(),
        int(known[b"first"]),
        int(known[b"last"]),
        token,
        json.loads(attributes) if attributes else NO_HEADERS,
        close,
    )
