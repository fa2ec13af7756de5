"""What comes to the end of a log in memory: at once, or when it is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability
from streampush.push.channels import is_addressed
from streampush.push.values import FALLBACK, Accepted, Appended, Draft, Idempotency, OutboxWork
from streampush.store.memory.devices import Devices
from streampush.store.memory.keys import Keys
from streampush.store.memory.log import Log
from streampush.store.memory.logs import Logs, Space
from streampush.store.memory.waiting import Outbox, Schedule, draft_weight


class Appending:
    """Takes drafts, as push.store_ports.LogStore.append says. `wall_ms` gives Unix milliseconds."""

    def __init__(
        self,
        limits: StoreConfig,
        wall_ms: Callable[[], int],
        space: Space,
        logs: Logs,
        devices: Devices,
        keys: Keys,
        schedule: Schedule,
        outbox: Outbox,
    ) -> None:
        self._max_scheduled = limits.max_scheduled
        self._wall_ms = wall_ms
        self._space = space
        self._logs = logs
        self._devices = devices
        self._keys = keys
        self._schedule = schedule
        self._outbox = outbox

    def append(self, draft: Draft) -> Accepted:
        """See push.store_ports.LogStore.append."""
        self._check_recipient(draft.channel)
        asked = draft.idempotency
        now_ms = self._wall_ms() if asked is not None else 0
        if asked is not None:
            known = self._keys.answer(asked, now_ms, draft.channel)
            if known is not None:
                return replace(known, duplicate=True)
        accepted = self._accept(draft)
        if asked is not None:
            self._keys.keep(asked, replace(accepted, appended=None), now_ms)
        return accepted

    def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        """See push.store_ports.LogStore.first_answer."""
        known = self._keys.answer(idempotency, self._wall_ms(), "")
        return None if known is None else replace(known, duplicate=True)

    def _check_recipient(self, channel: str) -> None:
        if not is_addressed(channel):
            return
        kind, _, name = channel.partition(":")
        if not (self._devices.knows_user(name) if kind == "user" else self._devices.get(name) is not None):
            raise Refused(Code.UNKNOWN_RECIPIENT, f"no {kind} of this id was ever seen", channel=channel)

    def _accept(self, draft: Draft) -> Accepted:
        newer = self._newer(draft)
        if newer is not None:
            return newer
        size = draft_weight(draft)
        self._logs.make_room(draft.channel, size)
        if draft.deliver_at_ms:
            self._put_off(draft, size)
            epoch = self._logs.epoch
            return Accepted(draft.message_id, draft.channel, 0, epoch, Durability.MEMORY, deliver_at_ms=draft.deliver_at_ms)
        if draft.fallback:
            self._outbox.check(draft.channel)
        appended = self._enter(draft, draft.published_at_ms, self._logs.begin(draft.channel))
        return Accepted(
            draft.message_id, draft.channel, appended.publication.offset, appended.epoch, Durability.MEMORY, appended=appended
        )

    def _enter(self, draft: Draft, published_at_ms: int, log: Log) -> Appended:
        """Appends, with the work that a fallback is."""
        if draft.fallback:
            self._outbox.keep(OutboxWork(FALLBACK, draft.message_id, draft.fallback, published_at_ms))
        return self._logs.append(draft, published_at_ms, log)

    def _newer(self, draft: Draft) -> Accepted | None:
        """The answer to a version that was overtaken."""
        log = self._logs.get(draft.channel) if draft.version else None
        if log is None:
            return None
        version, offset = log.newest_version(draft.collapse_key)
        if draft.version > version:
            return None
        return Accepted(draft.message_id, draft.channel, offset, log.epoch, Durability.MEMORY, superseded=True)

    def _put_off(self, draft: Draft, size: int) -> None:
        if len(self._schedule) >= self._max_scheduled:
            detail = f"the store holds {len(self._schedule)} scheduled messages, its limit"
            raise Refused(Code.QUOTA_EXCEEDED, detail, channel=draft.channel)
        self._schedule.add(draft)
        self._space.used += size

    def fire_due(self, now_ms: int, limit: int) -> list[Appended]:
        """See push.store_ports.LogStore.fire_due."""
        fired = []
        for _ in range(limit):
            draft = self._schedule.take_due(now_ms)
            if draft is None:
                break
            self._space.used -= draft_weight(draft)
            if not self._dropped(draft, now_ms):
                fired.append(self._enter(draft, now_ms, self._logs.begin_anyway(draft.channel)))
        return fired

    def _dropped(self, draft: Draft, now_ms: int) -> bool:
        """Whether a scheduled publication is of no use any more."""
        if 0 < draft.expires_at_ms <= now_ms or self._newer(draft) is not None:
            return True
        try:
            self._check_recipient(draft.channel)
        except Refused:
            return True
        return False
