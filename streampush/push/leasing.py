"""Taking work of one kind from the outbox as it falls due.

What is due is leased, a bounded number at a time and no more than the owner has room for: see `due` for when. The store is asked
every LONGEST_WAIT anyway, for what other processes have added and for leases that have run out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from streampush.push.due import LONGEST_WAIT, DueSteps
from streampush.push.ports import Delayer, PushMetrics, Spawner
from streampush.push.store_ports import OutboxStore
from streampush.push.values import OutboxEntry

STEP_WORKS = 200
"""Leased in one turn of the reactor."""

LEASE = 60.0
"""Seconds for which leased work is ours. Longer than work takes, pushes with their repeats within a try included; after a crash the
work waits for so long."""


class Leasing:
    """Gives the owner's `take` what is due, between `start` and `stop`. `expect` is told when this process has added work. `room`
    says how much more the owner can hold, `busy` how much it works on.

    `wall_ms` gives Unix milliseconds.
    """

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
        self._take = take
        self._room = room
        self._busy = busy
        self._wall_ms = wall_ms
        self._waiting: list[Deferred[None]] = []  # for nothing to be in work any more
        self._steps = DueSteps(
            f"work of the kind {kind}",
            self._step,
            stalled=metrics.fallback_stalled,
            wall_ms=wall_ms,
            call_later=call_later,
            spawn=spawn,
            done=self._look_quiet,
        )
        self.start = self._steps.start
        self.stop = self._steps.stop
        self.expect = self._steps.expect

    def room_again(self) -> None:
        """The owner can hold more than it could."""
        self._look_quiet()
        self._steps.go_on()

    async def quiet(self) -> None:
        """Waits until the owner works on nothing any more, or is stuck."""
        if self._busy() or self._steps.working:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def stuck(self) -> None:
        """The owner works on something that cannot go on now, and nobody is to wait for it."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _look_quiet(self) -> None:
        if self._waiting and not self._busy() and not self._steps.working:
            self.stuck()

    async def _step(self, due_ms: int | None) -> int | None:
        """Takes what is due; gives the time of what is not."""
        limit = min(self._room(), STEP_WORKS)
        if limit <= 0:
            self._steps.hold()
            return None
        now_ms = self._wall_ms()
        entries = await self._store.outbox_lease(self._kind, limit, now_ms, int(LEASE * 1000))
        if not self._steps.running:
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
