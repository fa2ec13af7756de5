"""What the parts of the contract of a store share."""

from __future__ import annotations

from itertools import count
from typing import Any

from streampush.config import StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Milestone
from streampush.push.store_ports import Store
from streampush.push.values import Cursor, DeviceRecord, Draft, MessageRecord, Publication, Spot, Want

LIMITS = StoreConfig()
NOW_MS = 1_800_000_000_000

_NUMBERS = count(1)


class ContractBase:
    """`self.now_ms` is the wall clock that the store must be given."""

    now_ms = NOW_MS

    def make_store(self, limits: StoreConfig) -> Store:
        """An empty store with these limits whose wall clock is `self.now_ms`."""
        raise NotImplementedError

    def draft(
        self, channel: str = "news", payload: bytes = b"payload", ttl_ms: int = 0, message_id: str = "", **fields: Any
    ) -> Draft:
        """A draft; if no id is given it has one of its own."""
        expires_at_ms = self.now_ms + ttl_ms if ttl_ms else 0
        message_id = message_id or f"id-{next(_NUMBERS)}"
        return Draft(channel, message_id, payload, self.now_ms, expires_at_ms, "text/plain", {"k": "v"}, **fields)

    async def fill(self, store: Store, count: int, channel: str = "news", payload: bytes = b"payload", ttl_ms: int = 0) -> str:
        """Appends so many, whose ids are m1, m2 … by their offsets, in other channels with its name in front; gives the epoch."""
        head = await store.head(channel)
        prefix = "" if channel == "news" else f"{channel}-"
        for number in range(head.top_offset + 1, head.top_offset + count + 1):
            await store.append(self.draft(channel, payload, ttl_ms, f"{prefix}m{number}"))
        return head.epoch

    async def appended(self, store: Store, draft: Draft) -> Publication:
        """Appends, and gives what is in the log."""
        appended = (await store.append(draft)).appended
        assert appended is not None
        return appended.publication

    async def readable(self, store: Store, channel: str = "news") -> list[str]:
        """The ids of what can be read."""
        return [publication.message_id for publication in (await store.read(channel, 0, 1000, 1_000_000)).publications]

    async def spot(self, store: Store, offset: int, channel: str = "news") -> Spot:
        """What the log says of one offset."""
        (survey,) = await store.survey("nobody", [Want(channel, (offset,))])
        return survey.spots[offset]

    async def message_id(self, store: Store, offset: int, channel: str = "news") -> str | None:
        return (await self.spot(store, offset, channel)).message_id

    async def cursor(self, store: Store, device_id: str, channel: str) -> Cursor | None:
        return (await store.cursors(device_id)).get(channel)

    async def record_of(self, store: Store, message_id: str) -> MessageRecord:
        """What became of a message that is there."""
        record = await store.message(message_id, 1000)
        assert record is not None
        return record

    async def row(self, store: Store, message_id: str, device_id: str = "d") -> dict[Milestone, int]:
        """The device's times in the receipts of a message."""
        rows = {receipt.device_id: dict(receipt.times) for receipt in (await self.record_of(store, message_id)).devices}
        return rows.get(device_id, {})

    async def with_device(self, count: int = 0, limits: StoreConfig = LIMITS, **fields: Any) -> tuple[Store, str]:
        """A store that knows the device d of the user u, with messages m1, m2 … to the device; and the epoch of its channel."""
        store = self.make_store(limits)
        await store.remember_device(DeviceRecord("d", "u"))
        for number in range(1, count + 1):
            await store.append(self.draft("device:d", message_id=f"m{number}", **fields))
        return store, (await store.head("device:d")).epoch

    async def knows_user(self, store: Store, user_id: str) -> bool:
        """Whether a message to the user is taken."""
        try:
            await store.append(self.draft(f"user:{user_id}"))
        except Refused as refused:
            assert refused.code is Code.UNKNOWN_RECIPIENT
            return False
        return True

    async def refused(self, work: object, code: Code) -> None:
        """The awaitable is refused with this code."""
        try:
            await work  # type: ignore[misc]  # any awaitable
        except Refused as refused:
            assert refused.code is code
        else:
            raise AssertionError("not refused")
