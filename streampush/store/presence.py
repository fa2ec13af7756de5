"""Who is connected, in the memory of this process: connections do not survive it, so presence need not either.

Both stores of one process answer push.store_ports.PresenceStore from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from itertools import chain, count

from streampush.push.values import ChannelPresence, Close, Session, node_of

DOUBT_MS = 1000
"""Milliseconds by which it is not sure which of two connections was made later."""


class _Present:
    """A device's newest session, and what it follows."""

    __slots__ = ("channels", "generation", "made_ms", "session")

    def __init__(self, session: Session, generation: int, made_ms: int) -> None:
        self.session = session
        self.made_ms = made_ms
        self.generation = generation
        self.channels: set[str] = set()


class PresenceTable:
    """Sessions by device, user, run and channel. `wall_ms` gives Unix milliseconds.

    Bounded by the connections, and by what each of them may follow.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._generations = count(1)
        self._devices: dict[str, _Present] = {}
        self._users: dict[str, set[str]] = {}
        self._runs: dict[str, set[str]] = {}  # device ids
        self._leases: dict[str, int] = {}  # run: until when it lives
        self._channels: dict[str, dict[str, set[str]]] = {}  # channel: run: device ids

    def begin(self, session: Session, age_ms: int) -> int:
        """See push.store_ports.PresenceStore.begin_session."""
        made_ms = self._wall_ms() - age_ms
        if age_ms > DOUBT_MS and self._made_later(session, made_ms):
            return 0
        self._remove(session.device_id)
        present = _Present(session, next(self._generations), made_ms)
        self._devices[session.device_id] = present
        self._runs.setdefault(session.run, set()).add(session.device_id)
        if session.user_id:
            self._users.setdefault(session.user_id, set()).add(session.device_id)
        return present.generation

    def end(self, device_id: str, generation: int) -> bool:
        """Ends that session; False if it is not the device's present one."""
        if self._newest(device_id, generation) is None:
            return False
        self._remove(device_id)
        return True

    def follows(self, device_id: str, generation: int, channels: Sequence[str], *, follows: bool) -> None:
        """See push.store_ports.PresenceStore.session_follows."""
        present = self._newest(device_id, generation)
        if present is None:
            return
        for channel in channels:
            if follows:
                present.channels.add(channel)
                runs = self._channels.setdefault(channel, {})
                runs.setdefault(present.session.run, set()).add(device_id)
            elif channel in present.channels:
                present.channels.discard(channel)
                self._leave(channel, present.session.run, device_id)

    def extend_run(self, run: str, until_ms: int) -> None:
        """See push.store_ports.PresenceStore.extend_run."""
        self._leases[run] = until_ms

    def forget_run(self, run: str) -> None:
        """See push.store_ports.PresenceStore.forget_run."""
        self._leases.pop(run, None)
        for device_id in list(self._runs.get(run, ())):
            self._remove(device_id)

    def forget_former(self, run: str) -> None:
        """See push.store_ports.PresenceStore.forget_former. This process has the store for itself: no former run can be there."""
        for other in list(self._leases):
            if other != run and node_of(other) == node_of(run):
                self.forget_run(other)

    def session(self, device_id: str) -> Session | None:
        """See push.store_ports.PresenceStore.session."""
        present = self._devices.get(device_id)
        return present.session if present is not None and self._lives(present.session.run) else None

    def newer(self, sessions: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """See push.store_ports.PresenceStore.newer_sessions."""
        newest = [(device_id, self._generation(device_id), generation) for device_id, generation in sessions]
        return [(name, here if here > asked else 0) for name, here, asked in newest if here != asked]

    def run(self, device_id: str) -> str:
        """Of the node where the device is connected, empty: it is away."""
        session = self.session(device_id)
        return "" if session is None else session.run

    def user_sessions(self, user_id: str, limit: int) -> tuple[Session, ...]:
        """See push.store_ports.PresenceStore.user_sessions."""
        sessions = (self.session(device_id) for device_id in self._users.get(user_id, ()))
        return tuple(nsmallest(limit, (one for one in sessions if one is not None), key=lambda one: one.device_id))

    def channel(self, channel: str, limit: int) -> ChannelPresence:
        """See push.store_ports.PresenceStore.channel_presence."""
        here = [devices for run, devices in self._channels.get(channel, {}).items() if self._lives(run)]
        names: Iterable[str] = chain.from_iterable(here)
        return ChannelPresence(channel, sum(map(len, here)), tuple(nsmallest(limit, names)))

    def _made_later(self, session: Session, made_ms: int) -> bool:
        """Whether another run has the device, by a connection that was made later than this."""
        older = self._devices.get(session.device_id)
        if older is None or older.session.run == session.run or not self._lives(older.session.run):
            return False
        return older.made_ms > made_ms + DOUBT_MS

    def _newest(self, device_id: str, generation: int) -> _Present | None:
        present = self._devices.get(device_id)
        return present if present is not None and present.generation == generation else None

    def _generation(self, device_id: str) -> int:
        present = self._devices.get(device_id)
        return 0 if present is None else present.generation

    def _lives(self, run: str) -> bool:
        until_ms = self._leases.get(run)
        return until_ms is None or until_ms > self._wall_ms()

    def _remove(self, device_id: str) -> None:
        present = self._devices.pop(device_id, None)
        if present is None:
            return
        session = present.session
        _discard(self._runs, session.run, device_id)
        if session.user_id:
            _discard(self._users, session.user_id, device_id)
        for channel in present.channels:
            self._leave(channel, session.run, device_id)

    def _leave(self, channel: str, run: str, device_id: str) -> None:
        runs = self._channels[channel]
        _discard(runs, run, device_id)
        if not runs:
            del self._channels[channel]


class OneProcessPresence(ABC):
    """push.store_ports.PresenceStore, for the store of one process to inherit. `wall_ms` gives Unix milliseconds."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._presence = PresenceTable(wall_ms)

    @abstractmethod
    async def _keep_close(self, device_id: str, close: Close) -> None:
        """Keeps in the record of the device, if there is one, how its last connection ended."""

    async def begin_session(self, session: Session, age_ms: int = 0) -> int:
        return self._presence.begin(session, age_ms)

    async def end_session(self, device_id: str, generation: int, close: Close) -> bool:
        if not self._presence.end(device_id, generation):
            return False
        await self._keep_close(device_id, close)
        return True

    async def session_follows(self, device_id: str, generation: int, channels: Sequence[str], *, follows: bool) -> None:
        self._presence.follows(device_id, generation, channels, follows=follows)

    async def extend_run(self, run: str, until_ms: int) -> None:
        self._presence.extend_run(run, until_ms)

    async def forget_run(self, run: str) -> None:
        self._presence.forget_run(run)

    async def forget_former(self, run: str) -> None:
        self._presence.forget_former(run)

    async def session(self, device_id: str) -> Session | None:
        return self._presence.session(device_id)

    async def newer_sessions(self, sessions: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        return self._presence.newer(sessions)

    async def user_sessions(self, user_id: str, limit: int) -> Sequence[Session]:
        return self._presence.user_sessions(user_id, limit)

    async def channel_presence(self, channel: str, limit: int) -> ChannelPresence:
        return self._presence.channel(channel, limit)


def _discard(sets: dict[str, set[str]], key: str, member: str) -> None:
    """Takes the member out of a set, and an empty set out of the sets."""
    members = sets[key]
    members.discard(member)
    if not members:
        del sets[key]
