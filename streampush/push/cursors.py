"""What connections have reached, written in batches: acknowledgements come one by one, the store is asked once a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from streampush.errors import StoreUnavailable
from streampush.push.ports import PushMetrics, Scheduler, Spawner
from streampush.push.store_ports import Store
from streampush.push.values import Appended, CursorMove, Mark, Survey, Undeliverable, Want

MAX_MARKS = 100_000
"""Marks that wait for a store that is away; then the oldest are dropped and counted: receipts matter less than memory."""


class _Batch:
    """What is to be recorded: the furthest move of each device and channel, marks by where the next one would continue."""

    __slots__ = ("left", "marks", "moves", "undeliverable")

    def __init__(self) -> None:
        self.moves: dict[tuple[str, str], CursorMove] = {}
        self.left: list[CursorMove] = []  # moves before a jump: what they passed was delivered, what the jump passed was not
        self.marks: dict[tuple[str, str, str, int, int, int], Mark] = {}
        self.undeliverable: list[Undeliverable] = []

    def __len__(self) -> int:
        return len(self.moves) + len(self.left) + len(self.marks) + len(self.undeliverable)

    def move(self, move: CursorMove) -> None:
        key = move.device_id, move.channel
        known = self.moves.get(key)
        if known is not None and known.epoch == move.epoch:
            if move.offset < known.offset:
                return
            if move.begun > known.offset:
                if len(self.left) < MAX_MARKS:
                    self.left.append(known)
            elif move.processed < known.processed or move.begun != known.begun:
                # Delivery goes on where the known move ends: what that one passed was delivered, also if it was on the
                # connection before, and this one began behind it.
                move = replace(move, processed=max(move.processed, known.processed), begun=known.begun)
        self.moves[key] = move

    def mark(self, mark: Mark) -> None:
        """Adjacent marks become one, with the time of the first."""
        start = mark.device_id, mark.channel, mark.epoch, int(mark.milestone), mark.count
        known = self.marks.pop((*start, mark.first - 1), None)
        if known is not None:
            mark = replace(mark, first=known.first, at_ms=known.at_ms)
        self.marks[*start, mark.last] = mark

    def drop_marks(self, count: int) -> None:
        """Drops so many marks, the oldest."""
        for key in list(islice(self.marks, count)):
            del self.marks[key]

    def add(self, newer: _Batch) -> None:
        """What came after this batch."""
        self.left += newer.left
        for move in newer.moves.values():
            self.move(move)
        for mark in newer.marks.values():
            self.mark(mark)
        self.undeliverable += newer.undeliverable

    def forget(self, device_id: str, channel: str) -> None:
        """The move of the device on the channel is dropped."""
        move = self.moves.pop((device_id, channel), None)
        if move is not None or self.left:
            self.left = [one for one in self.left if (one.device_id, one.channel) != (device_id, channel)]

    def forget_device(self, device_id: str) -> None:
        """All moves of the device are dropped."""
        self.moves = {key: move for key, move in self.moves.items() if key[0] != device_id}
        self.left = [one for one in self.left if one.device_id != device_id]


class CursorWriter:
    """Collects cursor moves, marks and undeliverable publications. What the store could not take is kept and tried again.

    Moves are bounded by the number of (device, channel) pairs that are connected or were while the store was away, marks by
    MAX_MARKS, undeliverable publications by what was in the receive windows when the store went away. `recorded` is told of
    what the store has taken, `noticed` of the recall notices that a batch led to. Each dead letter that was stored is a line
    in the log.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        call_soon: Scheduler,
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
        metrics: PushMetrics,
        recorded: Callable[[Iterable[CursorMove], Iterable[Mark], Iterable[Undeliverable]], None] = lambda moves, marks, failed: (
            None
        ),
        noticed: Callable[[Sequence[Appended]], None] = lambda notices: None,
    ) -> None:
        self._store = store
        self._noticed = noticed
        self._call_soon = call_soon
        self._spawn = spawn
        self._retry_later = retry_later
        self._metrics = metrics
        self._recorded = recorded
        self._due = _Batch()
        self._under_way: _Batch | None = None
        self._begun = False  # a flush is under way, or will be
        self._dropped = 0  # marks, since the store went away
        self._settled = False  # the node ends: what cannot be stored now is not tried again
        self._waiting: list[Deferred[None]] = []  # for the end of what is under way

    def move(self, move: CursorMove) -> None:
        """The cursor is stored soon. The furthest of a device and channel wins; one of a new epoch wins over the old one."""
        self._due.move(move)
        self._begin()

    def mark(self, mark: Mark) -> None:
        """The milestone is stored soon, if the store is not away for too long."""
        self._due.mark(mark)
        self._bound()
        self._begin()

    def undeliverable(self, failed: Undeliverable) -> None:
        """The dead letter is stored soon."""
        self._due.undeliverable.append(failed)
        self._begin()

    def forget(self, device_id: str, channel: str) -> None:
        """A move that is not stored yet is dropped: the device has unsubscribed."""
        self._due.forget(device_id, channel)
        if self._under_way is not None:
            self._under_way.forget(device_id, channel)

    def forget_device(self, device_id: str) -> None:
        """Moves that are not stored yet are dropped: the device is forgotten."""
        self._due.forget_device(device_id)
        if self._under_way is not None:
            self._under_way.forget_device(device_id)

    def pending(self, device_id: str, channel: str) -> CursorMove | None:
        """The move that is not stored yet, and without which a device that comes back would begin at the wrong place."""
        key = device_id, channel
        move = self._due.moves.get(key)
        if move is None and self._under_way is not None:
            move = self._under_way.moves.get(key)
        return move

    def _bound(self) -> None:
        waiting = len(self._due.marks) + (len(self._under_way.marks) if self._under_way is not None else 0)
        excess = min(waiting - MAX_MARKS, len(self._due.marks))
        if excess > 0:
            self._due.drop_marks(excess)
            self._metrics.marks_dropped(excess)
            if not self._dropped:
                self._log.warn("the store is away for too long: from now on milestones of receipts are dropped, the oldest first")
            self._dropped += excess

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._call_soon(self._start)

    def _start(self) -> None:
        self._spawn(self.flush())

    async def flush(self) -> None:
        """Stores what is due now, or as soon as the store is there again. Does nothing while an older batch is under way: what
        is due follows it."""
        if self._under_way is not None:
            return
        while self._due and self._under_way is None:
            try:
                await self._write()
            except StoreUnavailable:
                if self._settled:
                    return
                self._begun = True
                self._retry_later(self._start)
                return
            except Exception:
                # A fault of ours: this batch is given up, which costs repeats after a reconnect; the next ones are stored.
                self._begun = False
                if self._due:
                    self._begin()
                raise
        self._begun = self._under_way is not None

    async def settle(self) -> bool:
        """For the end: stores what is due, and waits for what is under way. False if the store cannot take it now. What comes
        later is tried once."""
        self._settled = True
        try:
            while self._due or self._under_way is not None:
                if self._under_way is None:
                    await self._write()
                else:
                    done: Deferred[None] = Deferred()
                    self._waiting.append(done)
                    await done
        except StoreUnavailable:
            return False
        finally:
            self._begun = False
        return True

    async def _name_letters(self, failed: Sequence[Undeliverable]) -> None:
        """A line in the log for each dead letter, with the message's id: the feed does not know it, the log of the channel does."""
        by_device: dict[str, dict[str, list[Undeliverable]]] = {}
        for one in failed:
            by_device.setdefault(one.device_id, {}).setdefault(one.channel, []).append(one)
        for device_id, by_channel in by_device.items():
            wants = [Want(channel, tuple(one.offset for one in ones)) for channel, ones in by_channel.items()]
            try:
                surveys = await self._store.survey(device_id, wants)
            except StoreUnavailable:
                surveys = []
            found = {survey.channel: survey for survey in surveys}
            for channel, ones in by_channel.items():
                for one in ones:
                    self._name_letter(one, found.get(channel))

    def _name_letter(self, failed: Undeliverable, survey: Survey | None) -> None:
        message_id = None
        if survey is not None and survey.head.epoch == failed.epoch:
            message_id = survey.spots[failed.offset].message_id
        self._log.warn(
            "dead letter of {device}: message {message_id}, offset {offset} of {channel}, {attempts} deliveries: {reason}",
            device=failed.device_id,
            message_id=message_id or "unknown",
            offset=failed.offset,
            channel=failed.channel,
            attempts=failed.attempts,
            reason=failed.reason,
        )

    async def _write(self) -> None:
        """One batch; what the store could not take is due again."""
        batch = self._under_way = self._due
        self._due = _Batch()
        try:
            moves, marks = (*batch.left, *batch.moves.values()), tuple(batch.marks.values())
            notices = await self._store.record(moves, marks, tuple(batch.undeliverable))
            self._recorded(moves, marks, batch.undeliverable)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._log.warn("{count} milestones of receipts were dropped while the store was away", count=dropped)
            if batch.undeliverable:
                self._spawn(self._name_letters(batch.undeliverable))
        except StoreUnavailable:
            batch.add(self._due)
            self._due = batch
            raise
        finally:
            self._under_way = None
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)
        if notices:
            self._noticed(notices)
