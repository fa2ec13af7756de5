"""The ports of `push/`: what it needs of the world, as protocols that adapters and tests implement."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability
from streampush.push.values import Appended, CursorMove, DeviceRecord, Draft, Head, Page, Position, Publication, Subscription

Encoder = Callable[[Publication], bytes]
"""A publication's delivery frame: the same bytes for every follower."""

Scheduler = Callable[[Callable[[], None]], object]
"""Calls its argument once, after the present turn of the reactor."""


Spawner = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine to its end and logs its failure."""


class Store(Protocol):
    """Logs, cursors and devices. Every method may raise StoreUnavailable; then nothing was changed.

    Implementations pass tests/store/contract.py.
    """

    @property
    def durability(self) -> Durability:
        """What an append gives at best."""

    async def append(self, draft: Draft) -> Appended:
        """Adds to the end of the channel's log, which is begun if need be; returns when it is as durable as promised.

        Raises Refused(QUOTA_EXCEEDED) if the store is full by its own limits.
        """

    async def head(self, channel: str) -> Head:
        """The state of the channel's log; of one that is not begun, with the epoch that it will have. Begins nothing, so that
        following a channel costs the store no room."""

    async def peek(self, channel: str) -> Head | None:
        """The state of the channel's log, or None if nothing was ever appended."""

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        """Publications with offset > `after`, oldest first: at least one if there is any, at most `max_messages`, and no more
        than `max_bytes` of payload but for the first. The log is begun if need be, as by `head`."""

    async def message_id(self, channel: str, offset: int) -> str | None:
        """The id of the entry at `offset` (also of the floor entry), None if the log does not know it."""

    async def live_after(self, channel: str, offset: int, up_to: int) -> int:
        """How many publications behind `offset`, and not behind `up_to`, can still be read: are in the log and not expired.

        The upper end makes the count comparable with a `Head` that was asked for earlier, whatever was appended since.
        """

    async def cursor(self, device_id: str, channel: str) -> Position | None:
        """How far the device has acknowledged on the channel; its `message_id` may be empty."""

    async def cursors(self, device_id: str) -> Mapping[str, Position]:
        """All cursors of the device, by channel; at most as many as the store keeps of one device."""

    async def move_cursors(self, moves: Sequence[CursorMove]) -> None:
        """Moves cursors; going back within the same epoch is ignored. A device keeps a bounded number of cursors."""

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        """The device has unsubscribed."""

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The device, if it was ever remembered."""

    async def remember_device(self, record: DeviceRecord) -> None:
        """Adds or replaces the device."""

    async def knows_user(self, user_id: str) -> bool:
        """Whether any device is bound to the user."""


class Link(Protocol):
    """The way from an attachment to its connection."""

    def deliver(self, frames: bytes, messages: int) -> None:
        """Writes `messages` delivery frames; returns at once, what the socket does not take is buffered.

        Should not raise: then it is not known what went out, and the connection is closed.
        """

    def has_room(self) -> bool:
        """Whether the send buffer is below its high-water mark. When room comes back, `Attachment.room_again` is called."""

    def backlog_end(self, channel: str, offset: int) -> None:
        """Tells the device that the backlog of the channel is out."""

    def repositioned(self, subscription: Subscription) -> None:
        """Tells the device that it fell behind what the log keeps, and where delivery goes on."""

    def close(self, code: Code, detail: str) -> None:
        """Closes the connection for a reason of the application's."""


class PushMetrics(Protocol):
    """What `push/` counts. All methods are cheap and never raise."""

    def published(self, kind: str, size: int) -> None:
        """A publication was stored; `kind` is the kind of the principal."""

    def refused(self, code: Code) -> None:
        """A request was refused."""

    def fanned_out(self, deliveries: int, publications: int, oldest_wait: float) -> None:
        """Publications of one channel were written to `deliveries` connections, `oldest_wait` seconds after the publish."""

    def read_from_log(self, deliveries: int) -> None:
        """Publications were read from the log for a connection that had fallen behind."""

    def acknowledged(self, outcome: str) -> None:
        """An acknowledgement moved a cursor, or named an outcome."""

    def positions_lost(self, reason: str) -> None:
        """A subscription could not be recovered without loss."""
