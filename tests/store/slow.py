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
from streampush.push.store_ports import Store
from streampush.push.values import (
    Accepted,
    Appended,
    ChannelPresence,
    Close,
    Cursor,
    CursorMove,
    DeadLetter,
    DeviceRecord,
    Draft,
    DurableSubscription,
    Head,
    Idempotency,
    KnownNode,
    Mark,
    MessageReach,
    MessageRecord,
    NodeOrder,
    NodeRecord,
    OutboxEntry,
    OutboxWork,
    Page,
    PushRecord,
    Reach,
    Session,
    StoreStatus,
    Survey,
    Undeliverable,
    Want,
)

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

    def lose(self) -> None:
        """Takes effect, and the caller gets StoreUnavailable: the store failed behind it."""
        self.act()
        self.done.errback(StoreUnavailable("the test says so"))


class SlowStore:
    """See push.store_ports.Store. `calls` are under way; `begun` is called for each new one, so that it may be finished at once."""

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

    async def append(self, draft: Draft) -> Accepted:
        return await self._begin("append", lambda: self._store.append(draft))

    async def first_answer(self, idempotency: Idempotency) -> Accepted | None:
        return await self._begin("first_answer", lambda: self._store.first_answer(idempotency))

    async def head(self, channel: str) -> Head:
        return await self._begin("head", lambda: self._store.head(channel))

    async def peek(self, channel: str) -> Head | None:
        return await self._begin("peek", lambda: self._store.peek(channel))

    async def read(self, channel: str, after: int, max_messages: int, max_bytes: int) -> Page:
        return await self._begin("read", lambda: self._store.read(channel, after, max_messages, max_bytes))

    async def survey(self, device_id: str, wants: Sequence[Want]) -> Sequence[Survey]:
        return await self._begin("survey", lambda: self._store.survey(device_id, wants))

    async def count_readable(self, spans: Sequence[tuple[str, int, int]]) -> Sequence[int]:
        return await self._begin("count_readable", lambda: self._store.count_readable(spans))

    async def take_trimmed(self, limit: int) -> Sequence[tuple[str, int]]:
        return await self._begin("take_trimmed", lambda: self._store.take_trimmed(limit))

    async def next_due_ms(self) -> int | None:
        return await self._begin("next_due_ms", lambda: self._store.next_due_ms())

    async def fire_due(self, now_ms: int, limit: int) -> Sequence[Appended]:
        return await self._begin("fire_due", lambda: self._store.fire_due(now_ms, limit))

    async def status(self) -> StoreStatus:
        return await self._begin("status", lambda: self._store.status())

    async def cursors(self, device_id: str) -> Mapping[str, Cursor]:
        return await self._begin("cursors", lambda: self._store.cursors(device_id))

    async def record(
        self, moves: Sequence[CursorMove], marks: Sequence[Mark] = (), undeliverable: Sequence[Undeliverable] = ()
    ) -> Sequence[Appended]:
        return await self._begin("record", lambda: self._store.record(moves, marks, undeliverable))

    async def forget_cursor(self, device_id: str, channel: str) -> None:
        return await self._begin("forget_cursor", lambda: self._store.forget_cursor(device_id, channel))

    async def add_subscription(self, device_id: str, channel: str, at_ms: int, at_most: int) -> bool:
        return await self._begin("add_subscription", lambda: self._store.add_subscription(device_id, channel, at_ms, at_most))

    async def remove_subscription(self, device_id: str, channel: str) -> bool:
        return await self._begin("remove_subscription", lambda: self._store.remove_subscription(device_id, channel))

    async def subscriptions(self, device_id: str) -> Sequence[DurableSubscription]:
        return await self._begin("subscriptions", lambda: self._store.subscriptions(device_id))

    async def subscribers(self, channel: str, after: str, limit: int) -> Sequence[str]:
        return await self._begin("subscribers", lambda: self._store.subscribers(channel, after, limit))

    async def device(self, device_id: str) -> DeviceRecord | None:
        return await self._begin("device", lambda: self._store.device(device_id))

    async def remember_device(self, record: DeviceRecord) -> None:
        return await self._begin("remember_device", lambda: self._store.remember_device(record))

    async def drop_token(self, device_id: str, token: bytes, at_ms: int) -> bool:
        return await self._begin("drop_token", lambda: self._store.drop_token(device_id, token, at_ms))

    async def device_of_token(self, token: bytes) -> DeviceRecord | None:
        return await self._begin("device_of_token", lambda: self._store.device_of_token(token))

    async def forget_device(self, device_id: str) -> bool:
        return await self._begin("forget_device", lambda: self._store.forget_device(device_id))

    async def devices_of_user(self, user_id: str, limit: int) -> Sequence[DeviceRecord]:
        return await self._begin("devices_of_user", lambda: self._store.devices_of_user(user_id, limit))

    async def reach(self, channel: str, device_ids: Sequence[str]) -> Sequence[Reach]:
        return await self._begin("reach", lambda: self._store.reach(channel, device_ids))

    async def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], *, results: bool) -> Sequence[MessageReach | None]:
        return await self._begin("reach_with", lambda: self._store.reach_with(asked, results=results))

    async def reach_users(self, message_ids: Sequence[str], limit: int, *, results: bool) -> Sequence[MessageReach | None]:
        return await self._begin("reach_users", lambda: self._store.reach_users(message_ids, limit, results=results))

    async def devices_named(self, prefix: str, limit: int) -> Sequence[str]:
        return await self._begin("devices_named", lambda: self._store.devices_named(prefix, limit))

    async def dead_letters(self, device_id: str, before_ms: int, limit: int) -> Sequence[DeadLetter]:
        return await self._begin("dead_letters", lambda: self._store.dead_letters(device_id, before_ms, limit))

    async def dead_letter(self, device_id: str, message_id: str) -> DeadLetter | None:
        return await self._begin("dead_letter", lambda: self._store.dead_letter(device_id, message_id))

    async def drop_dead_letter(self, device_id: str, message_id: str) -> bool:
        return await self._begin("drop_dead_letter", lambda: self._store.drop_dead_letter(device_id, message_id))

    async def message(self, message_id: str, max_devices: int) -> MessageRecord | None:
        return await self._begin("message", lambda: self._store.message(message_id, max_devices))

    async def recall(self, message_id: str, notice_id: str, at_ms: int) -> Appended | None:
        return await self._begin("recall", lambda: self._store.recall(message_id, notice_id, at_ms))

    async def record_pushes(self, records: Sequence[PushRecord]) -> None:
        return await self._begin("record_pushes", lambda: self._store.record_pushes(records))

    async def push_of(self, apns_id: str) -> PushRecord | None:
        return await self._begin("push_of", lambda: self._store.push_of(apns_id))

    async def begin_session(self, session: Session, age_ms: int = 0) -> int:
        return await self._begin("begin_session", lambda: self._store.begin_session(session, age_ms))

    async def end_session(self, device_id: str, generation: int, close: Close) -> bool:
        return await self._begin("end_session", lambda: self._store.end_session(device_id, generation, close))

    async def session_follows(self, device_id: str, generation: int, channels: Sequence[str], *, follows: bool) -> None:
        return await self._begin(
            "session_follows", lambda: self._store.session_follows(device_id, generation, channels, follows=follows)
        )

    async def extend_run(self, run: str, until_ms: int) -> None:
        return await self._begin("extend_run", lambda: self._store.extend_run(run, until_ms))

    async def forget_run(self, run: str) -> None:
        return await self._begin("forget_run", lambda: self._store.forget_run(run))

    async def forget_former(self, run: str) -> None:
        return await self._begin("forget_former", lambda: self._store.forget_former(run))

    async def session(self, device_id: str) -> Session | None:
        return await self._begin("session", lambda: self._store.session(device_id))

    async def newer_sessions(self, sessions: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        return await self._begin("newer_sessions", lambda: self._store.newer_sessions(sessions))

    async def user_sessions(self, user_id: str, limit: int) -> Sequence[Session]:
        return await self._begin("user_sessions", lambda: self._store.user_sessions(user_id, limit))

    async def channel_presence(self, channel: str, limit: int) -> ChannelPresence:
        return await self._begin("channel_presence", lambda: self._store.channel_presence(channel, limit))

    async def announce_node(self, record: NodeRecord, until_ms: int) -> NodeOrder:
        return await self._begin("announce_node", lambda: self._store.announce_node(record, until_ms))

    async def retire_node(self, name: str, started_at_ms: int) -> None:
        return await self._begin("retire_node", lambda: self._store.retire_node(name, started_at_ms))

    async def nodes(self) -> Sequence[KnownNode]:
        return await self._begin("nodes", lambda: self._store.nodes())

    async def order_drain(self, name: str, *, drain: bool) -> bool:
        return await self._begin("order_drain", lambda: self._store.order_drain(name, drain=drain))

    async def order_move(self, name: str, move_id: str, keep: int) -> bool:
        return await self._begin("order_move", lambda: self._store.order_move(name, move_id, keep))

    async def outbox_add(self, kind: str, key: str, body: bytes, not_before_ms: int) -> bool:
        return await self._begin("outbox_add", lambda: self._store.outbox_add(kind, key, body, not_before_ms))

    async def outbox_lease(self, kind: str, limit: int, now_ms: int, lease_ms: int) -> Sequence[OutboxEntry]:
        return await self._begin("outbox_lease", lambda: self._store.outbox_lease(kind, limit, now_ms, lease_ms))

    async def outbox_complete(self, token: str) -> bool:
        return await self._begin("outbox_complete", lambda: self._store.outbox_complete(token))

    async def outbox_release(self, token: str, not_before_ms: int) -> bool:
        return await self._begin("outbox_release", lambda: self._store.outbox_release(token, not_before_ms))

    async def outbox_hasten(self, kind: str, keys: Sequence[str], not_before_ms: int) -> None:
        await self._begin("outbox_hasten", lambda: self._store.outbox_hasten(kind, keys, not_before_ms))

    async def outbox_replace(self, token: str, works: Sequence[OutboxWork], records: Sequence[PushRecord] = ()) -> bool:
        return await self._begin("outbox_replace", lambda: self._store.outbox_replace(token, works, records))

    async def outbox_branch(self, token: str, body: bytes, works: Sequence[OutboxWork]) -> str | None:
        return await self._begin("outbox_branch", lambda: self._store.outbox_branch(token, body, works))

    async def outbox_next_ms(self, kind: str) -> int | None:
        return await self._begin("outbox_next_ms", lambda: self._store.outbox_next_ms(kind))
