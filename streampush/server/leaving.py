"""Connections that are sent elsewhere: one after the other, each with a slot of its own, as fast as the others can take them.

Theory of operation. A connection is of use until the moment when another node takes its client. So nobody is told to leave before
its turn: `LEAD` seconds before its slot it gets a GoAway, finishes what is under way, and comes to the other node at its slot. How
fast the slots follow each other and how many there are is asked of the governor anew at each step, so a node that dies, fills up
or is drained meanwhile changes the plan. Connections for which nobody has room stay.

A stop has an end: half of its time is for telling the connections. Where the slots follow each other too slowly for that, they are
told evenly over this time, with slots that lie further ahead: all of them at its end would be more than a busy core can tell in the
time that is left. Without another node the slots are for this one, after its restart, and all are told at once; if another process
serves on its port already, for that one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, Protocol

from twisted.logger import Logger

from streampush.protocol.codes import Code
from streampush.push.ports import Delayer, Timer
from streampush.server.governor import RESTART_PAUSE, Governor

LEAD: Final = 1.0
"""Seconds from GoAway to slot: to finish what is under way, and to close."""

STEP: Final = 0.1
"""Seconds between two steps."""

MAX_TOLD: Final = 100
"""Connections told in one step: some milliseconds, beside which deliveries go on."""

MOVE_TIME: Final = 300.0
"""Seconds that a move may take: what nobody had room for until then stays, for the plan behind it is old."""

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks for connections that have come since a drain has told all others."""

MOVED: Final = "moved to another node"
DRAINED: Final = "this node is being drained"


class Leaver(Protocol):
    """A connection. `server.connection.StreamConnection` is one."""

    @property
    def leaving(self) -> bool:
        """Whether it was told to leave, or has ended."""

    def drain(self, code: Code, detail: str, retry_after_ms: int = 0, close_after: float | None = None) -> None:
        """Asks the peer to leave, within `close_after` seconds, and to come back in `retry_after_ms`."""

    def abort(self) -> None:
        """Cuts the connection."""


class Why(enum.StrEnum):
    """Why connections leave; also the label of the metric."""

    DRAIN = "drain"
    MOVE = "rebalance"
    STOP = "stop"


class LeavingMetrics(Protocol):
    """What is counted."""

    def sent_elsewhere(self, why: str) -> None:
        """A connection was told to leave."""


class Leaving:
    """Who is to leave, and the steps. `connections` gives those of the moment; `clock` monotonic seconds."""

    _log = Logger(namespace="streampush.connections")

    def __init__(
        self,
        connections: Callable[[], Iterable[Leaver]],
        governor: Governor,
        metrics: LeavingMetrics,
        *,
        clock: Callable[[], float],
        call_later: Delayer,
        random: Random,
    ) -> None:
        self._connections = connections
        self._governor = governor
        self._metrics = metrics
        self._clock = clock
        self._call_later = call_later
        self._random = random
        self._why: Why | None = None
        self._detail = ""
        self._queue: deque[Leaver] = deque()
        self._told_evenly = (0, 0.0, 0.0)  # of a stop: how many are to be told, from when on, and in how many seconds
        self._closed_at = 0.0  # of a stop: when what is left will be cut
        self._move_until = 0.0
        self._is_followed = False
        self._call: Timer | None = None

    @property
    def why(self) -> Why | None:
        """What is going on, if anything is."""
        return self._why

    @property
    def left(self) -> int:
        """How many are still to be told."""
        return len(self._queue)

    # ------------------------------------------------------------------------------------------------------------- beginning

    def drain(self) -> None:
        """All are to leave, those too that come meanwhile, until `cease`."""
        self._begin(Why.DRAIN, DRAINED)

    def shrink(self, keep: int) -> None:
        """So many are to stay, and the others to leave, whichever. Ignored during a drain or a stop, when all do."""
        if self._why in (Why.DRAIN, Why.STOP):
            return
        self._move_until = self._clock() + MOVE_TIME
        self._begin(Why.MOVE, MOVED, keep)

    def stop(self, detail: str, seconds: float, *, is_followed: bool = False) -> None:
        """All are to leave, and what is left will be cut in so many seconds. `is_followed`: another process serves on our port."""
        now = self._clock()
        self._is_followed = is_followed
        self._closed_at = now + seconds
        self._begin(Why.STOP, detail, over=seconds / 2 if is_followed or self._governor.takers() else 0.0)

    def cease(self) -> None:
        """Nobody leaves any more but those who were told."""
        self._why = None
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _begin(self, why: Why, detail: str, keep: int = 0, over: float = 0.0) -> None:
        self.cease()
        self._why = why
        self._detail = detail
        self._gather()
        for _ in range(min(keep, len(self._queue))):
            self._queue.pop()
        self._told_evenly = (len(self._queue), self._clock(), over)
        rate = self._governor.rate_elsewhere()
        self._log.info(
            "connections that are to leave ({why}): {connections}, {pace}",
            connections=len(self._queue),
            why=why.value,
            pace=f"{rate:.0f} a second" if rate else "and no other node takes them now",
        )
        self._step()

    def _gather(self) -> None:
        """Those who were not told yet, in random order: no device is always the first."""
        found = [connection for connection in self._connections() if not connection.leaving]
        self._random.shuffle(found)
        self._queue = deque(found)

    # ----------------------------------------------------------------------------------------------------------------- steps

    def _step(self) -> None:
        self._call = None
        now = self._clock()
        self._tell_due(now)
        late = self._late(now)
        if late > 0:
            self._tell_many(now, min(late, MAX_TOLD))
        if self._why is Why.MOVE and now >= self._move_until:
            self._queue.clear()
        if self._queue:
            self._call = self._call_later(0.0 if late > MAX_TOLD else STEP, self._step)
        elif self._why is Why.DRAIN:
            self._call = self._call_later(LOOK_AGAIN, self._look_again)
        else:
            self._why = None

    def _look_again(self) -> None:
        """Who was shaking hands when the drain began is told, too."""
        self._gather()
        self._step()

    def _tell_due(self, now: float) -> None:
        """Those whose slots come within LEAD."""
        governor = self._governor
        here = self._is_followed and not governor.takers()
        room = MAX_TOLD if here else min(governor.room_elsewhere(), MAX_TOLD)
        wait = governor.wait_here if here else governor.wait_elsewhere
        while self._queue and room > 0 and wait(now) <= LEAD:
            room -= self._tell(self._queue.popleft(), now, elsewhere=not here)

    def _late(self, now: float) -> int:
        """How many more must be told by now, if a stop is to tell all in its time."""
        if self._why is not Why.STOP:
            return 0
        number, began, over = self._told_evenly
        left = number * (1.0 - (now - began + STEP) / over) if over else 0.0
        return len(self._queue) - max(0, int(left))

    def _tell_many(self, now: float, number: int) -> None:
        """The next ones of a stop, also if their slots are far ahead."""
        room = self._governor.room_elsewhere()
        while self._queue and number:
            told = self._tell(self._queue.popleft(), now, elsewhere=room > 0)
            number -= told
            room -= told

    def _tell(self, connection: Leaver, now: float, *, elsewhere: bool) -> bool:
        """Whether it had to be told."""
        if connection.leaving:
            return False
        pause = 0.0 if self._is_followed else RESTART_PAUSE
        wait = self._governor.slot_elsewhere(now) if elsewhere else self._governor.slot_here(now, pause)
        close_after = max(0.0, self._closed_at - now) if self._why is Why.STOP else None
        try:
            connection.drain(Code.DRAINING, self._detail, max(1, int(wait * 1000)), close_after)
        except Exception:  # noqa: BLE001 - one connection's fault must not keep the others here; it is logged
            self._log.failure("a connection could not be told to leave, it is cut")
            connection.abort()
        if self._why is not None:
            self._metrics.sent_elsewhere(self._why.value)
        return True
