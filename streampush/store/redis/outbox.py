"""The work of senders in Redis, under leases: whichever node takes it, one at a time has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streampush.config import StoreConfig
from streampush.push.values import OutboxEntry, OutboxWork, PushRecord
from streampush.store.redis import pushes
from streampush.store.redis.scripts import Scripts


class RedisOutbox:
    """push.store_ports.OutboxStore. `_new_epoch` gives a random id, which makes a lease's token one that was never given."""

    _scripts: Scripts
    _limits: StoreConfig
    _new_epoch: Callable[[], str]

    async def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        limits = self._limits
        return bool(await self._scripts.run("outbox_add", kind, key, body, not_before_ms, limits.max_outbox, limits.max_bytes))

    async def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> Sequence[OutboxEntry]:
        leased = await self._scripts.run("outbox_lease", kind, limit, now_ms, now_ms + lease_ms, self._new_epoch())
        return [OutboxEntry(token.decode(), kind, key.decode(), body, attempts) for token, key, body, attempts in leased]

    async def outbox_complete(self, token: str) -> bool:
        return bool(await self._scripts.run("outbox_complete", token))

    async def outbox_release(self, token: str, not_before_ms: int) -> bool:
        return bool(await self._scripts.run("outbox_release", token, not_before_ms))

    async def outbox_hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        await self._scripts.run("outbox_hasten", kind, tuple(keys), not_before_ms)

    async def outbox_replace(self, token: str, works: Sequence[OutboxWork], records: Sequence[PushRecord] = ()) -> bool:
        told = pushes.packed(records)
        return bool(await self._scripts.run("outbox_replace", token, _packed(works), told, self._limits.max_outbox))

    async def outbox_branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        new, max_works = self._new_epoch(), self._limits.max_outbox
        follows = await self._scripts.run("outbox_branch", token, body, _packed(works), new, max_works)
        return follows.decode() if follows else None

    async def outbox_next_ms(self, kind: str) -> int | None:
        due = await self._scripts.run("outbox_next_ms", kind)
        return None if due is False else int(due)


def _packed(works: Sequence[OutboxWork]) -> list[tuple[str, str, bytes, int]]:
    """Work as the scripts take it."""
    return [(work.kind, work.key, work.body, work.not_before_ms) for work in works]
