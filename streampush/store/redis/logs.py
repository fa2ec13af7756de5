"""See push.store_ports.LogStore, and MessageStore.recall: each is one script, or a part of one with others (see appends)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from streampush.config import StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.terms import Durability
from streampush.push.values import (
    Accepted,
    Appended,
    Cursor,
    Draft,
    Head,
    Idempotency,
    Page,
    Publication,
    Spot,
    StoreStatus,
    Survey,
    Want,
)
from streampush.store.drafts import published
from streampush.store.redis import entries
from streampush.store.redis.appends import Appends
from streampush.store.redis.replication import Replication
from streampush.store.redis.scripts import Scripts

FIRE_AT_MOST = 50
"""Scheduled publications that one step appends, of some 60 us each."""

SURVEY_AT_MOST = 400
"""Channels that one step looks at for a device, of some 10 us each. Few devices follow so many (delivery.max_subscriptions); the
steps need not be of one moment, for each channel stands for itself."""

LOOK_AT_MOST = 300
"""Entries that one read looks at, of some 5 us each: Redis does nothing else meanwhile."""


class RedisLogs:
    """The part of the store that knows logs."""

    durability: Durability
    _scripts: Scripts
    _writing: Scripts
    """For what replicas must have: of the connection that waits for them, if it has to."""
    _replication: Replication | None
    _appends: Appends
    _limits: StoreConfig
    _wall_ms: Callable[[], int]
    _ahead_ms: Callable[[], int]

    # ------------------------------------------------------------------------------------------------------------- append

    async def append(self, draft: Draft) -> Accepted:
        asked = draft.idempotency
        packed = entries.pack_draft(draft)
        try:
            epoch, answer = await self._appends.append((packed, _asked(asked) if asked is not None else False), packed[-1])
            if self._replication is not None:
                await self._replication.confirm()
        except StoreUnavailable:
            raise
        except Refused as refused:
            raise Refused(refused.code, refused.detail, channel=draft.channel) from None
        if isinstance(answer, int):  # its offset: nearly always
            new = Appended(published(draft, answer, draft.published_at_ms), epoch, self.durability)
            return Accepted(draft.message_id, draft.channel, answer, epoch, self.durability, appended=new)
        return self._stood(answer)

    def _terms(self) -> Sequence[Any]:
        """What `append` is told behind the drafts."""
        limits, now_ms = self._limits, self._wall_ms()
        at_most = (
            limits.max_channels,
            limits.max_bytes,
            limits.max_scheduled,
            limits.max_outbox,
            limits.max_idempotency_keys,
            limits.max_idempotency_keys_total,
        )
        return now_ms, entries.history(limits, now_ms - self._ahead_ms()), at_most, self._replication is not None

    async def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        must_wait = self._replication is not None
        answer = await self._writing.run("first_answer", _asked(idempotency), self._wall_ms(), must_wait)
        if not answer:
            return None
        await self._replicated()
        return self._stood(answer)

    async def _replicated(self) -> None:
        """Returns when replicas have what was answered just now, if they must. Raises StoreUnavailable."""
        if self._replication is not None:
            await self._replication.confirm()

    def _stood(self, answer: Sequence[Any]) -> Accepted:
        """An answer for which nothing is new in the log."""
        duplicate, message_id, channel, offset, epoch, superseded, deliver_at = answer
        epoch = epoch.decode()
        return Accepted(message_id.decode(), channel.decode(), offset, epoch, self.durability, duplicate, superseded, deliver_at)

    # -------------------------------------------------------------------------------------------------------------- logs

    async def head(self, channel: str) -> Head:
        return _head(await self._scripts.run("head", channel))

    async def peek(self, channel: str) -> Head | None:
        head = await self._scripts.run("head", channel)
        return None if head[1] < 0 else _head(head)

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        head, next_offset, expired, rows = await self._scripts.run(
            "read", channel, after, max_messages, max_bytes, self._wall_ms(), LOOK_AT_MOST
        )
        return Page(_head(head), tuple(_publication(channel, *row) for row in rows), next_offset, expired)

    async def survey(self, device_id: str, wants: Sequence[Want]) -> Sequence[Survey]:
        surveys: list[Survey] = []
        for first in range(0, len(wants), SURVEY_AT_MOST):
            some = wants[first : first + SURVEY_AT_MOST]
            asked = [[want.channel, list(want.offsets)] for want in some]
            found, names = await self._scripts.run("survey", device_id, asked, self._wall_ms())
            former = frozenset(name.decode() for name in names)
            surveys += (_survey(former, want.channel, *row) for want, row in zip(some, found, strict=True))
        return surveys

    async def count_readable(self, spans: Sequence[tuple[str, int, int]]) -> Sequence[int]:
        counts: list[int] = await self._scripts.run("count_readable", list(spans), self._wall_ms())
        return counts

    async def take_trimmed(self, limit: int) -> Sequence[tuple[str, int]]:
        rows = await self._scripts.run("take_trimmed", limit)
        return [(channel.decode(), floor) for channel, floor in rows]

    # ---------------------------------------------------------------------------------------------- schedule and recall

    async def next_due_ms(self) -> int | None:
        due = await self._scripts.run("next_due")
        return int(due) if due is not False else None

    async def fire_due(self, now_ms: int, limit: int) -> Sequence[Appended]:
        history = entries.history(self._limits, self._wall_ms() - self._ahead_ms())
        epoch, rows = await self._writing.run("fire_due", now_ms, min(limit, FIRE_AT_MOST), history)
        durability = self.durability
        if rows:
            try:
                await self._replicated()
            except StoreUnavailable:
                durability = Durability.MEMORY  # nobody waits to be told; what is in the log is delivered
        return [entries.appended(row, epoch.decode(), durability) for row in rows]

    async def recall(self, message_id: str, notice_id: str, at_ms: int) -> Appended | None:
        history = entries.history(self._limits, self._wall_ms() - self._ahead_ms())
        must_wait = self._replication is not None
        epoch, notices = await self._writing.run("recall", message_id, notice_id, at_ms, history, must_wait)
        await self._replicated()
        return entries.appended(notices[0], epoch.decode(), self.durability) if notices else None

    # ------------------------------------------------------------------------------------------------------------ upkeep

    async def status(self) -> StoreStatus:
        return StoreStatus(*await self._scripts.run("status"))

    async def sweep(self) -> bool:
        """Drops and frees a bounded number of things that are too old, in steps of some milliseconds; whether there is more to do.
        Any node may do it, and several at once."""
        more = False
        for part in ("logs", "payloads", "keys", "nodes"):
            now_ms = self._wall_ms() - self._ahead_ms()
            more |= bool(await self._scripts.run("sweep", part, now_ms, entries.history(self._limits, now_ms)))
        return more


def _asked(idempotency: Idempotency) -> list[Any]:
    return [idempotency.scope, idempotency.key, idempotency.fingerprint, idempotency.expires_at_ms]


def _head(row: Sequence[Any]) -> Head:
    epoch, top, floor, floor_id, urgent = row
    return Head(epoch.decode(), max(top, 0), floor, floor_id.decode(), urgent)


def _publication(channel: str, offset: int, facts: bytes, body: bytes) -> Publication:
    headers, payload = msgpack.unpackb(body, raw=True) if body else (b"", b"")
    return entries.publication(channel, offset, entries.unpack_facts(facts), headers, payload)


def _survey(former: frozenset[str], channel: str, head: Sequence[Any], cursor: Any, spots: Sequence[Any]) -> Survey:
    known = {offset: Spot(message_id.decode() if message_id else None, expired) for offset, message_id, expired in spots}
    return Survey(channel, _head(head), Cursor(cursor[0].decode(), *cursor[1:]) if cursor else None, known, former)
