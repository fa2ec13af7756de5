"""Taking work of one kind from the outbox as it falls due.

Theory of operation. One timer waits for the earliest work. What is due is leased, a bounded number at a time and no more than the
owner has room for; the store says what is due next. Work that this process adds is announced (`expect`), as a hint: the store is
asked every LONGEST_WAIT anyway, for what other processes have added and for leases that have run out. So nothing is kept here, and
a restart only asks the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from streampush.errors import StoreUnavailable
from streampush.push.ports import Delayer, OutboxStore, PushMetrics, Spawner, Timer
from streampush.push.values import OutboxEntry

STEP_WORKS = 100
"""Leased in one turn of the reactor."""

LONGEST_WAIT = 30.0
"""Seconds after which the store is asked again, and the wall time looked at, whatever was expected."""

RETRY_PAUSE = 1.0
"""Seconds before a store that was not there is asked again."""

LEASE = 60.0
"""Seconds for which leased work is ours. Longer than work takes, pushes with their repeats within a try included; after a crash the
work waits for so long."""


class Leasing:
    """Gives the owner's `take` what is due, between `start` and `stop`. `room` says how much more the owner can hold, `busy`
    how much it works on.

    `wall_ms` gives Unix milliseconds.
    """

    _log = Logger()

    def __init__(
        self,
        store: OutboxStore,
        kind: str,
        metrics: PushMetrics,
        *,
        take: Callable[[Sequence[OutboxEntry]], None],
        room: Callable[[], int],
        busy: Callable[[], int],
        wall_ms: Callable[[], int],
        call_later: Delayer,
        spawn: Spawner,
    ) -> None:
        self._store = store
        self._kind = kind
        self._metrics = metrics
        self._take = take
        self._room = room
        self._busy = busy
        self._wall_ms = wall_ms
        self._call_later = call_later
        self._spawn = spawn
        self._running = False
        self._working = False
        self._full = False  # the owner had no room
        self._stalled = False  # the store was not there, and that was said
        self._due_ms: int | None = None  # what the timer waits for
        self._timer: Timer | None = None
        self._waiting: list[Deferred[None]] = []  # for nothing to be in work any more

    def start(self) -> None:
        """Asks the store what is due. Starting twice is harmless."""
        if not self._running:
            self._running = True
            self._begin()

    def stop(self) -> None:
        """Takes nothing more, and leaves no timer behind. Stopping twice is harmless."""
        self._running = False
        self._disarm()

    def expect(self, due_ms: int) -> None:
        """There is work that is due at this time, Unix milliseconds."""
        if self._running and not self._full and (self._due_ms is None or due_ms < self._due_ms):
            self._arm(due_ms)

    def room_again(self) -> None:
        """The owner can hold more than it could."""
        self._look_quiet()
        if self._full:
            self._full = False
            if self._running:
                self._begin()

    async def quiet(self) -> None:
        """Waits until the owner works on nothing any more, or is stuck."""
        if self._busy() or self._working:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def stuck(self) -> None:
        """The owner works on something that cannot go on now, and nobody is to wait for it."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _look_quiet(self) -> None:
        if self._waiting and not self._busy() and not self._working:
            self.stuck()

    def _disarm(self) -> None:
        self._due_ms = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self, due_ms: int) -> None:
        self._disarm()
        self._due_ms = due_ms
        if not self._working:  # else when the work is done
            wait = max(0.0, (due_ms - self._wall_ms()) / 1000)
            self._timer = self._call_later(min(wait, LONGEST_WAIT), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._begin()

    def _begin(self) -> None:
        if not self._working:
            self._disarm()
            self._working = True
            self._spawn(self._work())

    async def _work(self) -> None:
        """One step; then the timer waits for the next."""
        again_ms: int | None = self._wall_ms() + int(RETRY_PAUSE * 1000)
        try:
            again_ms = await self._step()
            self._stalled = False
        except StoreUnavailable as away:
            self._metrics.fallback_stalled()
            if not self._stalled:
                self._stalled = True
                self._log.warn("work of the kind {kind} waits for the store: {problem}", kind=self._kind, problem=away.detail)
        finally:  # also after a fault of ours, which must not end the taking for good
            self._working = False
            waiting = [moment for moment in (again_ms, self._due_ms) if moment is not None]
            if self._running and waiting and not self._full:
                self._arm(min(waiting))
            self._look_quiet()

    async def _step(self) -> int | None:
        """Takes what is due; gives the time of what is not."""
        limit = min(self._room(), STEP_WORKS)
        if limit <= 0:
            self._full = True
            return None
        now_ms = self._wall_ms()
        self._due_ms = None
        entries = await self._store.outbox_lease(self._kind, limit, now_ms, int(LEASE * 1000))
        if not self._running:
            for entry in entries:  # or they would wait for the end of their leases
                await self._store.outbox_release(entry.token, now_ms)
            return None
        if entries:
            self._take(entries)
        if len(entries) == limit:
            return now_ms
        longest_ms = now_ms + int(LONGEST_WAIT * 1000)
        next_ms = await self._store.outbox_next_ms(self._kind)
        return longest_ms if next_ms is None else min(next_ms, longest_ms)
