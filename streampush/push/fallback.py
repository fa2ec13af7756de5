"""Fallback: messages with an alert are followed up for every device that they are meant for. docs/protocol.md section 10.9.

Theory of operation. The store adds work of the kind FALLBACK in the same step as the message. Here it is looked at who is to be
reached, and how each device stands: for those that need a push the work is replaced, in one step, by work of the kind PUSH, which
`pushing` does when its time has come; what is settled already is recorded. A crash before that step repeats it, one behind it does
not matter.

A message to one device, as most are, needs no such step: its work is the push, and is handed to `pushing` as it is. One to a user
who has few devices needs none either, as far as they are pushed to at once: see `user_messages`.

A topic's followers are read in batches, in order of their ids. The work for one batch leads to the work for the next, whose key
has the last id, so the place is kept by the store; and there is no next batch while pushes wait for the sender, so a million
followers are never a million entries of the outbox. Those of a batch that are away are pushed to at once, as a group: the work of
the batch becomes theirs (`push_groups`), and ends when all of them have their answers.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from twisted.logger import Logger

from streampush.errors import Refused, StoreUnavailable
from streampush.push.alerts import split
from streampush.push.channels import Kind, kind_of
from streampush.push.leasing import Leasing
from streampush.push.ports import Delayer, PushMetrics, Spawner
from streampush.push.push_groups import PushGroup, group_body, push_key, split_group
from streampush.push.standing import DeviceStanding, Standing, Standings, over, settled_result, silent_until_ms
from streampush.push.store_ports import Store
from streampush.push.user_messages import Groups, UserMessages
from streampush.push.values import (
    FALLBACK,
    PUSH,
    MessageRecord,
    OutboxEntry,
    OutboxWork,
    PushOutcome,
    PushRecord,
    PushResult,
    PushToken,
)

MAX_IN_WORK = 64
"""Messages to users and topics that are followed up at the same time: each costs some reads of the store. Of what was leased with
them the others wait for a moment."""

MAX_DEVICES = 1_000
"""Devices of one user that a message is followed up for."""

BATCH = 200
"""Followers of a topic that are looked at in one step."""

PAUSE = 1.0
"""Seconds until a topic goes on whose pushes would wait for the sender, or for which the outbox has no room."""

MAX_FAULTS = 10
"""Tries at work that fails by a fault of ours; then it is given up."""


def next_batch_key(message_id: str, last_device: str) -> str:
    """The key of the work that goes on with a topic's followers behind this one."""
    return f"{message_id}/{last_device}"


def _only_device(entry: OutboxEntry) -> str:
    """The device that the message is for, empty if it is for others: then its work is a step of its own."""
    try:
        device_ids, form = split_group(entry.body)
        return "" if device_ids else split(form)[0].device_id
    except ValueError:  # it cannot be read, of which the step makes what it can
        return ""


def _is_whole(entry: OutboxEntry) -> bool:
    """Whether it is the work that a message has led to, not what a topic's was followed by."""
    return "/" not in entry.key and not entry.body.startswith(b"[")


class Pushes(Groups, Protocol):
    """What takes pushes: see push/pushing.py."""

    def take(self, works: Sequence[tuple[str, OutboxEntry]]) -> None:
        """Work that is a push, each with the key that it has as such."""

    def drop_group(self, group: PushGroup, count: int) -> None:
        """So many pushes of a group are not needed any more."""


class _Step:
    """A step that is done, or tried again: of the work as it is now."""

    __slots__ = ("entry",)

    def __init__(self, entry: OutboxEntry) -> None:
        self.entry = entry


class Fallback:
    """Follows up messages, between `start` and `stop`.

    `after` gives the seconds that a connected device with a token has to acknowledge, if the message does not say. `push_room` says
    how many more pushes may be taken (0 or less: they wait for the sender), `has_room` whether one to a token would not wait for
    others of its app. `expect_push` is told when work of the kind PUSH is due, `pushes` takes what is to be pushed. `wall_ms` gives
    Unix milliseconds.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        standings: Standings,
        metrics: PushMetrics,
        *,
        after: Callable[[PushToken], float],
        has_room: Callable[[PushToken], bool],
        push_room: Callable[[], int],
        expect_push: Callable[[int], None],
        pushes: Pushes,
        wall_ms: Callable[[], int],
        call_later: Delayer,
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._store = store
        self._standings = standings
        self._metrics = metrics
        self._after = after
        self._has_room = has_room
        self._push_room = push_room
        self._expect_push = expect_push
        self._pushes = pushes
        self._wall_ms = wall_ms
        self._spawn = spawn
        self._retry_later = retry_later
        self._in_work = 0
        self._waiting: deque[OutboxEntry] = deque()
        self._is_taking = False
        self._reserved = 0  # room for pushes that are as good as taken
        self._users = self._make_users()
        self._leasing = self._make_leasing(call_later)
        self.start = self._leasing.start
        self.stop = self._leasing.stop
        self.expect = self._leasing.expect
        self.room_again = self._leasing.room_again
        self.quiet = self._leasing.quiet

    def _make_users(self) -> UserMessages:
        return UserMessages(
            self._store,
            self._standings,
            self._pushes,
            self._metrics,
            after=self._after,
            room=self._push_room,
            stuck=lambda: self._leasing.stuck(),
            others=self._take_others,
            wall_ms=self._wall_ms,
            spawn=self._spawn,
            retry_later=self._retry_later,
        )

    def _make_leasing(self, call_later: Delayer) -> Leasing:
        return Leasing(
            self._store,
            FALLBACK,
            self._metrics,
            take=self._take,
            room=lambda: 0 if self._waiting else self._room(),
            busy=lambda: self._in_work + len(self._waiting) + len(self._users),
            wall_ms=self._wall_ms,
            call_later=call_later,
            spawn=self._spawn,
        )

    def _take(self, entries: Sequence[OutboxEntry]) -> None:
        pushes: list[tuple[str, OutboxEntry]] = []
        whole: list[OutboxEntry] = []
        for entry in entries:
            device_id = _only_device(entry)
            if device_id:
                pushes.append((push_key(entry.key, device_id), entry))
            else:
                (whole if _is_whole(entry) else self._waiting).append(entry)
        if pushes:
            self._pushes.take(pushes)
        if whole:
            self._users.take(whole)
        self._take_steps()

    def _take_others(self, entries: Sequence[OutboxEntry]) -> None:
        """What is not for a user with few devices."""
        self._waiting.extend(entries)
        self._take_steps()
        self._leasing.room_again()

    def _take_steps(self) -> None:
        if self._is_taking:  # a step that ended at once makes room for the loop below, not for one within it
            return
        self._is_taking = True
        while self._waiting and self._in_work < MAX_IN_WORK:
            self._in_work += 1
            self._begin(_Step(self._waiting.popleft()))
        self._is_taking = False

    def _room(self) -> int:
        return self._push_room() - self._reserved - len(self._users)

    def _begin(self, step: _Step) -> None:
        self._spawn(self._follow_up(step))

    async def _follow_up(self, step: _Step) -> None:
        try:
            await self._do(step)
        except StoreUnavailable:  # if it is away for longer than the lease lasts, somebody else may be quicker: that does no harm
            self._leasing.stuck()
            self._retry_later(lambda: self._begin(step))
            return
        except Exception:
            entry = step.entry
            if entry.attempts >= MAX_FAULTS:
                self._log.error("work is given up after {attempts} tries: {work}", attempts=entry.attempts, work=entry.key)
                self._spawn(self._give_up(entry))
            self._done()
            raise
        self._done()

    async def _give_up(self, entry: OutboxEntry) -> None:
        await self._store.outbox_complete(entry.token)

    def _done(self) -> None:
        self._in_work -= 1
        self._take_steps()
        self._leasing.room_again()

    # ------------------------------------------------------------------------------------------------------------ one step

    async def _do(self, step: _Step) -> None:
        entry = step.entry
        device_ids, form = split_group(entry.body)
        if device_ids and self._pushes.renew_group(entry.key, entry.token):
            return
        message_id, _, after = entry.key.partition("/")
        record = await self._store.message(message_id, 0)
        if record is None or over(record, self._wall_ms()):
            await self._cancel(entry, message_id, len(device_ids))
            return
        kind, name = kind_of(record.channel)
        if kind is Kind.TOPIC and self._room() <= 0:
            await self._later(entry)
            return
        more = False
        if not device_ids:
            device_ids, more = await self._audience(kind, name, after)
        standings = await self._standings.of(record, device_ids)
        if kind is Kind.TOPIC and self._mostly_waits(standings):
            await self._later(entry)
        elif kind is Kind.TOPIC:
            await self._batch(step, record, standings, form, more=more)
        else:
            await self._each(entry, record, standings)

    async def _cancel(self, entry: OutboxEntry, message_id: str, count: int) -> None:
        """The message need not reach anybody any more; of a group each is counted."""
        self._metrics.fell_back(PushOutcome.CANCELLED, max(count, 1))
        result = PushResult(self._wall_ms(), PushOutcome.CANCELLED)
        await self._store.outbox_replace(entry.token, (), [PushRecord(message_id, "", result, count=count)] if count else ())

    async def _audience(self, kind: Kind, name: str, after: str) -> tuple[Sequence[str], bool]:
        """Some of those who are meant, and whether there may be more behind them."""
        if kind is Kind.DEVICE:
            return (name,), False
        if kind is Kind.USER:
            return [device.device_id for device in await self._store.devices_of_user(name, MAX_DEVICES)], False
        followers = await self._store.subscribers(name, after, BATCH)
        return followers, len(followers) == BATCH

    async def _each(self, entry: OutboxEntry, record: MessageRecord, standings: Sequence[DeviceStanding]) -> None:
        """Of a message to a device or user there is a result for each device, stored in one step with the end of the work that it
        is of: else a step that is repeated could put an old result in the place of a newer one."""
        if any(one.token is not None for one in standings):
            await self._replace(entry, [self._work(entry.body, record, one) for one in standings])
            return
        results = self._results(record, standings)
        if not results:
            await self._store.outbox_complete(entry.token)
            return
        results[-1] = replace(results[-1], lease=entry.token)
        await self._store.record_pushes(results)
        self._count(results)

    def _mostly_waits(self, standings: Sequence[DeviceStanding]) -> bool:
        """Whether most of a batch would wait for the pushes of their own app. The few do not hold up the many."""
        rooms = [self._has_room(one.token) for one in standings if one.token is not None]
        return 2 * sum(rooms) < len(rooms)

    async def _batch(
        self, step: _Step, record: MessageRecord, standings: Sequence[DeviceStanding], form: bytes, *, more: bool
    ) -> None:
        """Of a topic's message results are counted, so the work comes first: a step that is repeated must not count twice."""
        away = [one for one in standings if one.standing is Standing.AWAY][: max(0, self._room())]
        now = {one.device_id for one in away}
        works = [self._work(form, record, one) for one in standings if one.token is not None and one.device_id not in now]
        if more:
            key = next_batch_key(record.message_id, standings[-1].device_id)
            works.append(OutboxWork(FALLBACK, key, form, self._wall_ms()))
        settled = [one for one in standings if one.token is None]
        if away:
            await self._group(step, record, away, settled, form, works)
            return
        results = self._results(record, settled)
        if await self._replace(step.entry, works, results):
            self._count(results)

    async def _group(
        self,
        step: _Step,
        record: MessageRecord,
        away: Sequence[DeviceStanding],
        settled: Sequence[DeviceStanding],
        form: bytes,
        works: Sequence[OutboxWork],
    ) -> None:
        """The work becomes that of a group, which is pushed to at once. What is settled is counted with it, also when all are
        looked at again behind a crash."""
        body = group_body([one.device_id for one in (*away, *settled)], form)
        self._reserved += len(away)
        try:
            if not await self._branch(step, body, works):
                return
            (seen,) = await self._store.reach_with([(record.message_id, ())], results=False)  # a commit may have taken its time
        finally:
            self._reserved -= len(away)
        results = self._results(record, settled)
        self._count(results)
        group = PushGroup(step.entry.key, step.entry.token, form, Counter(one.result.outcome for one in results))
        if seen is None or over(seen.record, self._wall_ms()):
            self._pushes.drop_group(group, len(away))
        else:
            self._pushes.take_group(group, seen.record, away)

    async def _branch(self, step: _Step, body: bytes, works: Sequence[OutboxWork]) -> bool:
        """False if the step is to be repeated, or somebody else has done it."""
        try:
            token = await self._store.outbox_branch(step.entry.token, body, works)
        except StoreUnavailable:
            raise
        except Refused:  # the outbox is full
            await self._later(step.entry)
            return False
        if token is None:
            return False
        step.entry = replace(step.entry, token=token, body=body)
        self._announce(works)
        return True

    def _work(self, form: bytes, record: MessageRecord, one: DeviceStanding) -> OutboxWork:
        """What `pushing` has to do for a device, and when."""
        now_ms = self._wall_ms()
        due_ms = now_ms
        if one.token is not None and one.standing is Standing.CONNECTED:
            due_ms = max(now_ms, silent_until_ms(split(form)[0], record, self._after(one.token), now_ms))
        return OutboxWork(PUSH, push_key(record.message_id, one.device_id), form, due_ms)

    def _results(self, record: MessageRecord, settled: Sequence[DeviceStanding]) -> list[PushRecord]:
        now_ms = self._wall_ms()
        return [PushRecord(record.message_id, one.device_id, settled_result(one.standing, now_ms)) for one in settled]

    async def _replace(self, entry: OutboxEntry, works: Sequence[OutboxWork], results: Sequence[PushRecord] = ()) -> bool:
        """False if the step is to be repeated, or somebody else has done it."""
        try:
            replaced = await self._store.outbox_replace(entry.token, works, results)
        except StoreUnavailable:
            raise
        except Refused:  # the outbox is full
            await self._later(entry)
            return False
        self._announce(works)
        return replaced

    def _announce(self, works: Sequence[OutboxWork]) -> None:
        for work in works:
            if work.kind == PUSH:
                self._expect_push(work.not_before_ms)
            else:
                self.expect(work.not_before_ms)

    def _count(self, results: Sequence[PushRecord]) -> None:
        for outcome, count in Counter(result.result.outcome for result in results).items():
            self._metrics.fell_back(outcome, count)

    async def _later(self, entry: OutboxEntry) -> None:
        again_ms = self._wall_ms() + int(PAUSE * 1000)
        await self._store.outbox_release(entry.token, again_ms)
        self.expect(again_ms)
