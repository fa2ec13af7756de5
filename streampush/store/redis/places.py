"""How far devices are, and what they follow for good, in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streampush.errors import Refused, StoreUnavailable
from streampush.push.values import Cursor, DurableSubscription
from streampush.store.redis.scripts import Scripts


class RedisPlaces:
    """push.store_ports.CursorStore, but for `record`."""

    _scripts: Scripts

    async def cursors(self, device_id: str) -> Mapping[str, Cursor]:
        found = await self._scripts.run("cursors", device_id)
        return {channel.decode(): Cursor(epoch.decode(), *numbers) for channel, (epoch, *numbers) in found}

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        await self._scripts.run("forget_cursor", device_id, channel)

    async def add_subscription(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        try:
            return bool(await self._scripts.run("add_subscription", device_id, channel, at_ms, at_most))
        except StoreUnavailable:
            raise
        except Refused as refused:
            raise Refused(refused.code, refused.detail, channel=channel) from None

    async def remove_subscription(self, device_id: str, channel: str) -> bool:
        return bool(await self._scripts.run("remove_subscription", device_id, channel))

    async def subscriptions(self, device_id: str) -> Sequence[DurableSubscription]:
        found = await self._scripts.run("subscriptions", device_id)
        since = {channel.decode(): int(at_ms) for channel, at_ms in zip(found[::2], found[1::2], strict=True)}
        return [DurableSubscription(channel, since[channel]) for channel in sorted(since)]

    async def subscribers(self, channel: str, after: str, limit: int) -> Sequence[str]:
        return [name.decode() for name in await self._scripts.run("subscribers", channel, after, limit)]
