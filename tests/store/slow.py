"""A store whose calls take effect, and finish, when the test says so: in any order, or with StoreUnavailable.

A call takes effect at one moment between its beginning and its end, which is all that a real store promises. `act` is that
moment, `finish` the end; `fail` ends a call that changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from streampush.errors import StoreUnavailable
from streampush.protocol.terms import Durability
from streampush.push.ports import Store
from streampush.push.values import Appended, CursorMove, DeviceRecord, Draft, Head, Page, Position

T = TypeVar("T")


class Call:
    """One call that is under way."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.name = name
        self.done: Deferred[Any] = Deferred()
        self.effect: Deferred[Any] | None = None
        self._work = work

    def act(self) -> None:
        """Takes effect now, if it has not yet."""
        if self.effect is None:
            self.effect = Deferred.fromCoroutine(self._work())

    def finish(self) -> None:
        """The caller gets the result."""
        self.act()
        assert self.effect is not None
        self.effect.addBoth(self.done.callback)

    def fail(self) -> None:
        """The caller gets StoreUnavailable; only for a call that took no effect."""
        assert self.effect is None
        self.done.errback(StoreUnavailable("the test says so"))


class SlowStore:
    """See push.ports.Store. `calls` are under way; `begun` is called for each new one, so that it may be finished at once."""

    def __init__(self, store: Store, begun: Callable[[Call], object] = lambda call: None) -> None:
        self._store = store
        self._begun = begun
        self.calls: list[Call] = []

    @property
    def durability(self) -> Durability:
        return self._store.durability

    def take(self, name: str) -> Call:
        """The oldest call of this name, no longer among `calls`."""
        call = next(call for call in self.calls if call.name == name)
        self.calls.remove(call)
        return call

    def finish(self, name: str = "") -> None:
        """Finishes the oldest call, or the oldest of this name."""
        self.take(name or self.calls[0].name).finish()

    def fail(self, name: str = "") -> None:
        """Fails the oldest call, or the oldest of this name."""
        self.take(name or self.calls[0].name).fail()

    def _begin(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        call = Call(name, work)
        self.calls.append(call)
        self._begun(call)
        return call.done

    async def append(self, draft: Draft) -> Appended:
        return await self._begin("append", lambda: self._store.append(draft))

    async def head(self, channel: str) -> Head:
        return await self._begin("head", lambda: self._store.head(channel))

    async def peek(self, channel: str) -> Head | None:
        return await self._begin("peek", lambda: self._store.peek(channel))

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        return await self._begin("read", lambda: self._store.read(channel, after, max_messages, max_bytes))

    async def message_id(self, channel: str, offset: int) -> str | None:
        return await self._begin("message_id", lambda: self._store.message_id(channel, offset))

    async def live_after(self, channel: str, offset: int, up_to: int) -> int:
        return await self._begin("live_after", lambda: self._store.live_after(channel, offset, up_to))

    async def cursor(self, device_id: str, channel: str) -> Position | None:
        return await self._begin("cursor", lambda: self._store.cursor(device_id, channel))

    async def cursors(self, device_id: str) -> Mapping[str, Position]:
        return await self._begin("cursors", lambda: self._store.cursors(device_id))

    async def move_cursors(self, moves: Sequence[CursorMove]) -> None:
        return await self._begin("move_cursors", lambda: self._store.move_cursors(moves))

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        return await self._begin("forget_cursor", lambda: self._store.forget_cursor(device_id, channel))

    async def device(self, device_id: str) -> DeviceRecord | None:
        return await self._begin("device", lambda: self._store.device(device_id))

    async def remember_device(self, record: DeviceRecord) -> None:
        return await self._begin("remember_device", lambda: self._store.remember_device(record))

    async def knows_user(self, user_id: str) -> bool:
        return await self._begin("knows_user", lambda: self._store.knows_user(user_id))
