"""Who is connected, as the store is told: right once it has answered, whatever the order in which connections came and went.

Theory of operation. For each device there is what is *wanted* (the session that is connected here now, or none) and what is
*stored* (the session that the store was told of last, with its generation). One task per device makes the second equal to the
first, one store call after the other; what changes meanwhile is seen by its next step. So a slow store gets few calls and never
two of one device at once, and an end can never overtake the beginning that it belongs to. Between nodes the generation decides:
the end of a session is ignored when a newer one has begun elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from streampush.errors import StoreUnavailable
from streampush.push.ports import Scheduler, Spawner
from streampush.push.store_ports import PresenceStore
from streampush.push.turns import Turns
from streampush.push.values import Close, Session

LEASE_INTERVALS = 3
"""For so many intervals a node that says nothing counts as alive: one extension may be late, or lost."""


class _Cancellable(Protocol):
    def cancel(self) -> object: ...


OVER_MS: Final = 10**12
"""Milliseconds, as the age of a connection that is gone: whatever another process has was made later. It may have been made since
that was asked, and a device that is told 1006 by mistake stays away for good."""


class _Entry:
    """One device. `changes`: channels that the wanted session follows (True) or not (False) since the store was told."""

    __slots__ = ("changes", "generation", "over", "stored", "wanted", "working")

    def __init__(self) -> None:
        self.wanted: Session | None = None
        self.over: tuple[Session, Close] | None = None  # the last session, whose end is not stored yet
        self.stored: Session | None = None
        self.generation = 0
        self.changes: dict[str, bool] = {}
        self.working = False


class Presence:
    """The sessions of this node's devices, for the store.

    Bounded by the devices that are connected, and those that have left while the store was away. `turns` are those of the
    devices' records: an end writes there how the connection closed. `begun` is told each generation, and
    `overtaken` each session that does not begin because the device has one of a later connection elsewhere. `run` names this
    process, see values.run_name.
    """

    def __init__(
        self,
        store: PresenceStore,
        turns: Turns,
        *,
        run: str,
        wall_ms: Callable[[], int],
        call_soon: Scheduler,
        spawn: Spawner,
        retry_later: Callable[[Callable[[], None]], object],
        begun: Callable[[str, int], None] = lambda device_id, generation: None,
        overtaken: Callable[[str, str], None] = lambda device_id, session_id: None,
    ) -> None:
        self._begun = begun
        self._overtaken = overtaken
        self._store = store
        self._run_name = run
        self._wall_ms = wall_ms
        self._call_soon = call_soon
        self._lease = 0.0
        self._entered = False  # this run lives for the store, and what former ones have left behind is forgotten
        self._turns = turns
        self._spawn = spawn
        self._retry_later = retry_later
        self._entries: dict[str, _Entry] = {}
        self._due: dict[str, _Entry] = {}
        self._working = 0
        self._failed: dict[str, _Entry] = {}
        self._resting: list[Deferred[None]] = []

    # ----------------------------------------------------------------------------------------------- what connections say

    def began(self, session: Session, channels: Collection[str] = ()) -> None:
        """The device is connected by this session, which replaces what it had. Also for a session whose facts have changed."""
        entry = self._entries.get(session.device_id)
        if entry is None:
            entry = self._entries[session.device_id] = _Entry()
        entry.wanted = session
        entry.changes = dict.fromkeys(channels, True)
        self._work(session.device_id, entry)

    def ended(self, device_id: str, session_id: str, close: Close) -> None:
        """The session is over. Ignored if a newer one has begun here."""
        entry = self._entries.get(device_id)
        if entry is None or entry.wanted is None or entry.wanted.session_id != session_id:
            return
        entry.over = entry.wanted, close
        entry.wanted = None
        entry.changes = {}
        self._work(device_id, entry)

    def follows(self, device_id: str, session_id: str, channel: str, follows: bool) -> None:
        """The session follows this channel from now on, or no longer."""
        entry = self._entries.get(device_id)
        if entry is None or entry.wanted is None or entry.wanted.session_id != session_id:
            return
        entry.changes[channel] = follows
        self._work(device_id, entry)

    def lost(self, device_id: str, generation: int, channels: Collection[str]) -> None:
        """The store has lost the device's session of this generation, which follows these channels: it is begun anew. Ignored if
        that is not the present one."""
        entry = self._entries.get(device_id)
        if entry is not None and self.generation(device_id) == generation:
            self._entered = False  # that this run lives may be lost, too
            entry.stored = None
            entry.changes = dict.fromkeys(channels, True)
            self._work(device_id, entry)

    def generation(self, device_id: str) -> int:
        """The generation of the device's session, as far as the store has answered; 0: none."""
        entry = self._entries.get(device_id)
        return 0 if entry is None or entry.stored is None or entry.stored != entry.wanted else entry.generation

    def last_close(self, device_id: str) -> Close | None:
        """How the device's last connection ended, if the store does not know yet."""
        entry = self._entries.get(device_id)
        return entry.over[1] if entry is not None and entry.over is not None else None

    async def settle(self) -> bool:
        """Returns when the store knows everything, or cannot take it now (False)."""
        self._start()
        while self._working > len(self._failed):
            resting: Deferred[None] = Deferred()
            self._resting.append(resting)
            await resting
        return not self._failed

    async def live(self, lease: float) -> None:
        """The node lives: its sessions are present for so many seconds, if this is not said again."""
        self._lease = lease
        try:
            await (self._extend() if self._entered else self._enter())
        except StoreUnavailable:
            return  # it is said again long before the lease is over

    async def renew(self) -> None:
        """Says so again now: the store may have been away for longer than what it was told holds. Raises StoreUnavailable."""
        if self._entered:
            await self._extend()

    # --------------------------------------------------------------------------------------------------- telling the store

    async def _enter(self) -> None:
        """Before the first session begins: the store must know until when it is to believe in it."""
        if self._entered:
            return
        async with self._turns.of(""):
            if not self._entered:
                await self._store.forget_former(self._run_name)
                await self._extend()
                self._entered = True

    async def _extend(self) -> None:
        if self._lease:
            await self._store.extend_run(self._run_name, self._wall_ms() + int(self._lease * 1000))

    def _work(self, device_id: str, entry: _Entry) -> None:
        """At the end of the turn: a device that connects follows many channels in one."""
        if not entry.working:
            entry.working = True
            self._working += 1
            if not self._due:
                self._call_soon(self._start)
            self._due[device_id] = entry

    def _start(self) -> None:
        due, self._due = self._due, {}
        for device_id, entry in due.items():
            self._spawn(self._run(device_id, entry))

    async def _run(self, device_id: str, entry: _Entry) -> None:
        try:
            while await self._step(device_id, entry):
                pass
        except StoreUnavailable:
            if not self._failed:
                self._retry_later(self._retry)
            self._failed[device_id] = entry
            self._wake()
            return
        except BaseException:
            self._rest(device_id, entry)
            raise
        self._rest(device_id, entry)

    def _rest(self, device_id: str, entry: _Entry) -> None:
        entry.working = False
        self._working -= 1
        if entry.wanted is None and self._entries.get(device_id) is entry:
            del self._entries[device_id]
        self._wake()

    def _wake(self) -> None:
        resting, self._resting = self._resting, []
        for deferred in resting:
            deferred.callback(None)

    def _retry(self) -> None:
        failed, self._failed = self._failed, {}
        self._spawn(self._again(failed))

    async def _again(self, failed: dict[str, _Entry]) -> None:
        """One first, to see whether the store is there again; then the others at once."""
        for number, (device_id, entry) in enumerate(failed.items()):
            if number == 0:
                await self._run(device_id, entry)
            elif self._failed:
                self._failed[device_id] = entry
            else:
                self._spawn(self._run(device_id, entry))

    async def _step(self, device_id: str, entry: _Entry) -> bool:
        """One call of the store; False if there is nothing left to tell."""
        wanted = entry.wanted
        if entry.over is not None:
            await self._end(device_id, entry, entry.over)
            return True
        if wanted is not None and entry.stored != wanted:
            await self._begin(entry, wanted)
            return True
        if wanted is not None and entry.changes:
            await self._follow(device_id, entry, wanted)
            return True
        return False

    async def _begin(self, entry: _Entry, session: Session, age_ms: int | None = None) -> None:
        await self._enter()
        if age_ms is None:
            age_ms = max(0, self._wall_ms() - session.connected_at_ms)
        generation = await self._store.begin_session(session, age_ms)
        if not generation:
            self._give_up(entry, session)
            return
        entry.generation = generation
        entry.stored = session
        self._begun(session.device_id, generation)

    def _give_up(self, entry: _Entry, session: Session) -> None:
        """Another process has the device, by a connection that was made later: this one is over, and its end is of no interest."""
        if entry.wanted is not None and entry.wanted.session_id == session.session_id:
            entry.wanted = None
            entry.changes = {}
        if entry.over is not None and entry.over[0].session_id == session.session_id:
            entry.over = None
        self._overtaken(session.device_id, session.session_id)

    async def _end(self, device_id: str, entry: _Entry, over: tuple[Session, Close]) -> None:
        session, close = over
        if entry.stored is None or entry.stored.session_id != session.session_id:
            if entry.wanted is None and not await self._is_elsewhere(device_id):
                await self._begin(entry, session, OVER_MS)  # it came and went while the store was slow: its close is kept
            elif entry.over is over:
                entry.over = None
            return
        async with self._turns.of(device_id):
            await self._store.end_session(device_id, entry.generation, close)
        entry.stored = None
        if entry.over is over:
            entry.over = None

    async def _is_elsewhere(self, device_id: str) -> bool:
        """Whether another process has the device now: a session that is over would be the newer one there, and replace it."""
        found = await self._store.session(device_id)
        return found is not None and found.run != self._run_name

    async def _follow(self, device_id: str, entry: _Entry, session: Session) -> None:
        changes, entry.changes = entry.changes, {}
        try:
            for follows in (True, False):
                channels = [channel for channel, value in changes.items() if value is follows]
                if channels:
                    await self._store.session_follows(device_id, entry.generation, channels, follows=follows)
        except StoreUnavailable:
            if entry.wanted == session:
                entry.changes = changes | entry.changes
            raise


class NodeLease:
    """Lets `presence` say every `interval` seconds that this node lives.

    `call_later` calls a function after so many seconds and gives what can cancel that.
    """

    def __init__(
        self, presence: Presence, interval: float, call_later: Callable[[float, Callable[[], None]], _Cancellable], spawn: Spawner
    ) -> None:
        self._presence = presence
        self._interval = interval
        self._call_later = call_later
        self._spawn = spawn
        self._call: _Cancellable | None = None

    def start(self) -> None:
        """The node lives from now on."""
        self._call = self._call_later(self._interval, self.start)
        self._spawn(self._presence.live(LEASE_INTERVALS * self._interval))

    def stop(self) -> None:
        """Leaves no timer behind. The lease runs out by itself."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
