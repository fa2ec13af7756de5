"""Who is connected, in Redis: the sessions of all nodes.

Every session has a generation from one counter, so that of two sessions of a device all nodes agree which is the newer. A run of
a node that says nothing any more is away with all its sessions when its lease ends. A former run of a node that starts is over if
nobody listens to its orders (`bus`): a process that was killed has no connection to Redis. One that is there and was taken for
dead, because it has just lost that connection, begins its sessions anew when it is back. What a session, or a run, leaves behind
is taken away in steps of a millisecond or two, between which Redis does the work of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nsmallest
from itertools import chain
from typing import Any

from streampush.push.values import ChannelPresence, Close, Session
from streampush.store.redis.devices import MORE, packed_close
from streampush.store.redis.scripts import Scripts

CHANNELS_AT_ONCE = 400
"""Channels that one script takes a session into or out of: a millisecond or two."""


class RedisPresence:
    """push.store_ports.PresenceStore."""

    _scripts: Scripts
    _wall_ms: Callable[[], int]

    async def begin_session(self, session: Session, age_ms: int = 0) -> int:
        facts = (session.session_id, session.address, session.app, session.app_version, session.connected_at_ms)
        begun = (session.device_id, session.run, session.user_id, facts, self._wall_ms(), age_ms)
        while (generation := await self._scripts.run("begin_session", *begun)) == MORE:
            pass  # others have their turn
        return int(generation)

    async def end_session(self, device_id: str, generation: int, close: Close) -> bool:
        while (ended := await self._scripts.run("end_session", device_id, generation, packed_close(close))) == MORE:
            pass  # others have their turn
        return bool(ended)

    async def session_follows(self, device_id: str, generation: int, channels: Sequence[str], *, follows: bool) -> None:
        for first in range(0, len(channels), CHANNELS_AT_ONCE):
            some = tuple(channels[first : first + CHANNELS_AT_ONCE])
            await self._scripts.run("session_follows", device_id, generation, follows, some)

    async def extend_run(self, run: str, until_ms: int) -> None:
        await self._scripts.run("extend_run", run, until_ms)

    async def forget_run(self, run: str) -> None:
        await self._forget(run)

    async def forget_former(self, run: str) -> None:
        for former in await self._scripts.run("former_runs", run):
            await self._forget(former)

    async def _forget(self, run: str | bytes) -> None:
        last = 0
        while last := int(await self._scripts.run("forget_run", run, last)):
            pass  # others have their turn

    async def session(self, device_id: str) -> Session | None:
        found = await self._scripts.run("session", device_id, self._wall_ms())
        return _session(device_id, *found) if found else None

    async def newer_sessions(self, sessions: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        found = await self._scripts.run("newer_sessions", list(sessions))
        return [(device_id.decode(), generation) for device_id, generation in found]

    async def user_sessions(self, user_id: str, limit: int) -> Sequence[Session]:
        sessions: list[Session] = []
        after = b""
        while len(sessions) < limit:
            found, after = await self._scripts.run("user_sessions", user_id, after, limit - len(sessions), self._wall_ms())
            sessions += [_session(device_id.decode(), *rest) for device_id, *rest in found]
            if not after:
                break
        return sessions

    async def channel_presence(self, channel: str, limit: int) -> ChannelPresence:
        count, of_runs = await self._scripts.run("channel_presence", channel, limit, self._wall_ms())
        names = nsmallest(limit, chain.from_iterable(of_runs))
        return ChannelPresence(channel, count, tuple(name.decode() for name in names))


def _session(device_id: str, run: bytes, user: bytes, facts: Sequence[Any]) -> Session:
    session_id, address, app, app_version, connected_at_ms = facts
    return Session(
        device_id,
        session_id.decode(),
        run.decode(),
        user.decode(),
        address.decode(),
        app.decode(),
        app_version.decode(),
        connected_at_ms,
    )
