"""Pushing: work of the kind PUSH is taken from the outbox, looked at once more, and sent.

Theory of operation. A push that was leased is *in work* here until the store knows what became of it; work that is leased again
meanwhile, because the store was slow, is not sent a second time by this process. All that was leased together is looked at
together, in one read of the messages and their devices. What is looked at is as of the moment of sending: who has acknowledged
since is not pushed to, and the token is the one of now. What changes while the sender has it takes it back, if it is not written
yet (`under_way`).

A crash between the claim and the answer leads to a second try when the lease has run out, with the same id, so that the push
service and we can tell it from the first; if there is a result nevertheless, which is known of devices' and users' messages, it
stands. Results go their own way (`push_results`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha1
from uuid import UUID

from streampush.errors import StoreUnavailable
from streampush.push.alerts import FallbackRule, split
from streampush.push.held import Held
from streampush.push.leasing import Leasing
from streampush.push.ports import Delayer, PushMetrics, PushSender, Scheduler, Spawner
from streampush.push.push_groups import PushGroup, push_key
from streampush.push.push_results import PushInWork, PushResults
from streampush.push.standing import DeviceStanding, Standing, Standings, over, settled_result, silent_until_ms
from streampush.push.store_ports import Store
from streampush.push.under_way import UnderWay
from streampush.push.values import (
    PUSH,
    MessageReach,
    MessageRecord,
    OutboxEntry,
    PushAnswer,
    PushOrder,
    PushOutcome,
    PushResult,
    PushToken,
)

MAX_UNSTORED = 10_000
"""Pushes whose results wait for the store; then nothing more is sent. About 10 MB."""

NAMESPACE = UUID("6f7b1f0e-0f6f-5d0c-9d0a-6b1a6d2f4c11")
"""Of the ids of pushes. Must never change: a push of before would not be known as the same."""

FAULT = "internal error"


_NAMESPACE_BYTES = NAMESPACE.bytes
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def push_id(message_id: str, device_id: str) -> str:
    """The id of the push of a message to a device: the same whoever makes it, a UUID of version 5 (RFC 9562, section 5.5).

    What `str(uuid.uuid5(NAMESPACE, ...))` gives, in a third of the time.
    """
    name = _NAMESPACE_BYTES + f"{message_id}/{device_id}".encode()
    digits = sha1(name, usedforsecurity=False).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


class Pushing:
    """Sends what is due, between `start` and `stop`.

    For work that it is handed by `take`: `again_at` is told when some is due again, Unix milliseconds, and `room_again` when there
    may be room after there was none. `wall_ms` gives Unix milliseconds.
    """

    def __init__(
        self,
        store: Store,
        sender: PushSender,
        standings: Standings,
        under_way: UnderWay,
        drop_token: Callable[[str, bytes, int], Awaitable[bool]],
        metrics: PushMetrics,
        *,
        again_at: Callable[[int], None],
        room_again: Callable[[], None],
        wall_ms: Callable[[], int],
        call_soon: Scheduler,
        call_later: Delayer,
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._store = store
        self._sender = sender
        self._standings = standings
        self._under_way = under_way
        self._metrics = metrics
        self._again_at = again_at
        self._others_room_again = room_again
        self._wall_ms = wall_ms
        self._spawn = spawn
        self._retry_later = retry_later
        self._in_work: dict[str, PushInWork] = {}
        self._groups: dict[str, PushGroup] = {}  # by the key of their work
        self._results = PushResults(
            store, drop_token, self._stored, self._stored_groups, call_soon=call_soon, spawn=spawn, retry_later=retry_later
        )
        self._leasing = Leasing(
            store,
            PUSH,
            metrics,
            take=self._take,
            room=lambda: self.room,
            busy=lambda: self.in_flight,
            wall_ms=wall_ms,
            call_later=call_later,
            spawn=spawn,
        )
        self._held = Held(store, due=self._due_now, spawn=spawn, retry_later=retry_later, wall_ms=wall_ms)
        sender.watch(self._held.mended)
        self.start = self._leasing.start
        self.stop = self._leasing.stop
        self.expect = self._leasing.expect

    async def settle(self) -> bool:
        """Waits for the answers of what is sent, and stores them; False if the store cannot take them now."""
        await self._leasing.quiet()
        return await self._results.settle() and not self._in_work and not self._groups

    @property
    def in_flight(self) -> int:
        """Pushes that are looked at or sent now."""
        return len(self._in_work) - len(self._results)

    @property
    def room(self) -> int:
        """How many more may be taken; 0 or less: what is due has to wait."""
        return min(self._sender.max_in_flight - self.in_flight, MAX_UNSTORED - len(self._results) - self._results.groups)

    def _room_again(self) -> None:
        self._leasing.room_again()
        self._others_room_again()

    # -------------------------------------------------------------------------------------------------------------- taking

    def take(self, works: Sequence[tuple[str, OutboxEntry]]) -> None:
        """Work that is a push, each with the key that it has as such."""
        pushes = [push for key, entry in works if (push := self._new(key, entry)) is not None]
        if pushes:
            self._begin(pushes)

    def _take(self, entries: Sequence[OutboxEntry]) -> None:
        self.take([(entry.key, entry) for entry in entries])

    def _new(self, key: str, entry: OutboxEntry) -> PushInWork | None:
        known = self._in_work.get(key)
        if known is not None:
            known.lease = entry.token
            return None
        push = self._in_work[key] = PushInWork(key, entry.body, entry.token, entry.attempts)
        push.work = entry.kind, entry.key
        return push

    # -------------------------------------------------------------------------------------------------------------- groups

    def renew_group(self, key: str, lease: str) -> bool:
        """Whether the group of this key is in work here; then this is the newest token of its lease."""
        group = self._groups.get(key)
        if group is not None:
            group.lease = lease
        return group is not None

    def begin_group(self, group: PushGroup) -> None:
        """The group is in work from now on, and will be taken or left."""
        self._groups[group.key] = group

    def leave_group(self, group: PushGroup) -> None:
        """The work of the group is not done as one."""
        del self._groups[group.key]

    def take_group(self, group: PushGroup, record: MessageRecord, standings: Sequence[DeviceStanding]) -> None:
        """Sends at once to these devices, as they were seen just now; but for those that have acknowledged since."""
        self._groups[group.key] = group
        alert = split(group.form)[1]
        pushes = []
        for one in standings:
            key = push_key(group.message_id, one.device_id)
            if one.token is not None and key not in self._in_work:  # else it is being sent to by work of its own
                push = self._in_work[key] = PushInWork(key, group.form, "", 1, group)
                pushes.append((push, one.token))
        group.left = len(pushes)
        if not pushes:
            self._results.add_group(group)
        for push, token in pushes:
            if self._standings.acknowledged_here(record, push.device_id):
                self._cancel(push, Standing.ACKNOWLEDGED.value)
            else:
                self._spawn(self._send(push, record, alert, token))

    def drop_group(self, group: PushGroup, count: int) -> None:
        """So many pushes are not needed any more; nothing was sent."""
        group.cancelled(count)
        self._metrics.fell_back(PushOutcome.CANCELLED, count)
        self.end_group(group)

    def end_group(self, group: PushGroup) -> None:
        """Nothing is sent, or no more."""
        self._groups[group.key] = group
        self._results.add_group(group)

    def _stored_groups(self, groups: Sequence[PushGroup]) -> None:
        for group in groups:
            del self._groups[group.key]
            for device_id, at_ms, held in group.again:
                self._leasing.expect(at_ms)
                if held is not None:
                    self._held.add(PUSH, push_key(group.message_id, device_id), held)
        self._room_again()

    # -------------------------------------------------------------------------------------------------------------- looking

    def _begin(self, pushes: list[PushInWork]) -> None:
        self._spawn(self._look(pushes))

    async def _look(self, pushes: list[PushInWork]) -> None:
        """All that was leased together. If the store is away they stay in work, and are looked at when it is there again."""
        by_message: dict[str, list[PushInWork]] = {}
        for push in pushes:
            by_message.setdefault(push.message_id, []).append(push)
        asked = [(message_id, [push.device_id for push in those]) for message_id, those in by_message.items()]
        try:
            found = await self._store.reach_with(asked, results=any(push.attempts > 1 for push in pushes))
        except StoreUnavailable:
            self._leasing.stuck()
            self._retry_later(lambda: self._begin(pushes))
            return
        except Exception:
            self._fail(pushes)
            raise
        fault: Exception | None = None
        for those, reach in zip(by_message.values(), found, strict=True):
            try:
                self._of_message(those, reach)
            except Exception as error:  # noqa: BLE001 - of one message: the others go on, and it is raised behind them
                self._fail([push for push in those if not push.decided])
                fault = error
        if fault is not None:
            raise fault

    def _fail(self, pushes: Iterable[PushInWork]) -> None:
        """A fault of ours."""
        for push in pushes:
            self._end(push, PushOutcome.NOT_SENT, FAULT)

    def _of_message(self, pushes: Sequence[PushInWork], reach: MessageReach | None) -> None:
        """Pushes of one message."""
        record = None if reach is None else reach.record
        why = over(record, self._wall_ms())
        if reach is None or record is None or why:
            for push in pushes:
                self._cancel(push, why)
            return
        standings = self._standings.judged(record, [push.device_id for push in pushes], reach.reaches)
        rule, alert = split(pushes[0].body)
        for push, standing in zip(pushes, standings, strict=True):
            push.result = reach.results.get(push.device_id)
            if push.result is not None:  # whoever had the work has lost the lease, but not its result
                self._finished(push)
            else:
                self._decide(push, record, rule, alert, standing)
            push.decided = True

    def _decide(self, push: PushInWork, record: MessageRecord, rule: FallbackRule, alert: bytes, one: DeviceStanding) -> None:
        if one.token is None:
            self._ended(push, settled_result(one.standing, self._wall_ms()))
        elif one.standing is Standing.CONNECTED and self._wall_ms() < (until_ms := self._silent_until_ms(rule, record, one.token)):
            self._again(push, until_ms)
        else:
            self._spawn(self._send(push, record, alert, one.token))

    def _silent_until_ms(self, rule: FallbackRule, record: MessageRecord, token: PushToken) -> int:
        return silent_until_ms(rule, record, self._sender.fallback_after(token), self._wall_ms())

    # ------------------------------------------------------------------------------------------------------------- sending

    async def _send(self, push: PushInWork, record: MessageRecord, alert: bytes, token: PushToken) -> None:
        order = PushOrder(
            push_id(push.message_id, push.device_id),
            push.message_id,
            record.channel,
            push.device_id,
            token,
            alert,
            record.priority,
            record.collapse_key,
            record.expires_at_ms,
        )
        self._under_way.begin(order, record)
        try:
            answer = await self._sender.send(order)
        except Exception:  # a fault of ours: whether it was sent is not known, and a repeat would fail as well
            self._end(push, PushOutcome.UNKNOWN, FAULT, order.push_id)
            raise
        finally:
            self._under_way.end(order)
        self._answered(push, record, token, answer)

    def _answered(self, push: PushInWork, record: MessageRecord, token: PushToken, answer: PushAnswer) -> None:
        if answer.token_dead_at_ms is not None:
            push.dead = token, answer.token_dead_at_ms - 1  # one that was registered in that millisecond is alive
        if answer.again_in is not None:
            again_ms = self._wall_ms() + int(answer.again_in * 1000)
            if not record.expires_at_ms or again_ms < record.expires_at_ms:
                push.held = self._held.mendings if answer.held else None
                self._again(push, again_ms)
                return
        self._end(push, answer.outcome, answer.reason, answer.apns_id)

    def _cancel(self, push: PushInWork, why: str) -> None:
        self._end(push, PushOutcome.CANCELLED, why)

    def _end(self, push: PushInWork, outcome: PushOutcome, reason: str, apns_id: str = "") -> None:
        self._ended(push, PushResult(self._wall_ms(), outcome, reason, apns_id))

    def _ended(self, push: PushInWork, result: PushResult) -> None:
        push.result = result
        self._metrics.fell_back(result.outcome, 1)
        self._finished(push)

    def _again(self, push: PushInWork, at_ms: int) -> None:
        push.again_ms = at_ms
        self._finished(push)

    def _finished(self, push: PushInWork) -> None:
        group = push.group
        if group is None:
            self._results.add(push)
        else:
            self._finished_in(group, push)
        self._room_again()

    def _finished_in(self, group: PushGroup, push: PushInWork) -> None:
        del self._in_work[push.key]
        if push.dead is not None:
            group.dead.append((push.device_id, *push.dead))
        if push.result is None:
            group.again.append((push.device_id, push.again_ms, push.held))
        else:
            group.ended(push.device_id, push.result)
        group.left -= 1
        if not group.left:
            self._results.add_group(group)

    def _stored(self, pushes: Sequence[PushInWork]) -> None:
        for push in pushes:
            del self._in_work[push.key]
            if push.result is None:
                self._leasing.expect(push.again_ms)
                self._again_at(push.again_ms)
                if push.held is not None:
                    self._held.add(*push.work, push.held)
        self._room_again()

    def _due_now(self, kind: str) -> None:
        (self._leasing.expect if kind == PUSH else self._again_at)(self._wall_ms())
