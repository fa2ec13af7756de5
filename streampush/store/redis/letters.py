"""See push.store_ports.DeviceStore, of which this is what devices did not take. How letters are made: `recording`."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from streampush.push.values import DeadLetter
from streampush.store.redis.entries import publication, unpack_facts
from streampush.store.redis.scripts import Scripts


class RedisLetters:
    """The part of the store that knows dead letters."""

    _scripts: Scripts

    async def dead_letters(self, device_id: str, before_ms: int, limit: int) -> Sequence[DeadLetter]:
        found = await self._scripts.run("dead_letters", device_id, before_ms, limit)
        return [_letter(device_id, *one) for one in found]

    async def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        found = await self._scripts.run("dead_letter", device_id, message_id)
        return _letter(device_id, *found) if found else None

    async def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        return bool(await self._scripts.run("drop_dead_letter", device_id, message_id))


def _letter(device_id: str, packed: bytes, body: bytes) -> DeadLetter:
    _, _, channel, offset, attempts, reason, at_ms, facts = msgpack.unpackb(packed, raw=True)
    headers, payload = msgpack.unpackb(body, raw=True) if body else (b"", b"")
    copy = publication(channel.decode(), offset, unpack_facts(facts), headers, payload)
    return DeadLetter(device_id, copy, attempts, reason.decode(), at_ms)
