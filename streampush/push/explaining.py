"""Gathers the facts that `explain` puts into words: a bounded number of questions to the store, whoever the device is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from streampush.push.backlog import Backlog, ChannelBacklog
from streampush.push.connections import Connected, Connections
from streampush.push.explain import (
    MAX_LETTERS,
    MAX_NAMED,
    ChannelFacts,
    ConnectionFacts,
    Explanation,
    Facts,
    explain,
)
from streampush.push.limits import Level
from streampush.push.near_names import MAX_NEAR, NearNames
from streampush.push.presence import Presence
from streampush.push.store_ports import Store
from streampush.push.values import DeviceRecord

MAX_CHANNELS = 100
"""Channels of which the facts are shown, those with something to say first; the others are only counted."""


class Explainer:
    """`rate` looks at a device's request rate. `run` is this process, see values.run_name."""

    def __init__(
        self,
        store: Store,
        backlog: Backlog,
        connections: Connections,
        presence: Presence,
        *,
        rate: Callable[[str], Awaitable[Level]],
        run: str,
        wall_ms: Callable[[], int],
        max_attempts: int,
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._connections = connections
        self._near_names = NearNames(store, connections)
        self._presence = presence
        self._rate = rate
        self._run = run
        self._wall_ms = wall_ms
        self._max_attempts = max_attempts

    async def explain(self, device_id: str) -> Explanation:
        """Why the device is silent, also for one that is not known. Raises Refused(STORE_UNAVAILABLE)."""
        record = await self._store.device(device_id)
        if record is None:
            return explain(await self._stranger(device_id))
        return explain(await self._facts(record))

    async def _stranger(self, device_id: str) -> Facts:
        near = await self._near_names.of(device_id)
        of_user = await self._store.devices_of_user(device_id, MAX_NEAR)
        user_devices = tuple(record.device_id for record in of_user)
        return Facts(device_id, self._wall_ms(), known=False, near=near, user_devices=user_devices)

    async def _facts(self, record: DeviceRecord) -> Facts:
        device_id = record.device_id
        session = await self._store.session(device_id)
        letters = await self._store.dead_letters(device_id, 0, MAX_LETTERS)
        waiting = await self._backlog.channels(device_id)
        connected = self._connections.get(device_id)
        rows = sorted((self._channel(row, connected) for row in waiting), key=_interest)
        shown = await self._with_times(device_id, rows[:MAX_CHANNELS])
        close = self._presence.last_close(device_id) or record.last_close
        left_ms = close.at_ms if close is not None else 0
        return Facts(
            device_id,
            self._wall_ms(),
            known=True,
            user_id=record.user_id,
            first_seen_ms=record.first_seen_ms,
            last_seen_ms=max(record.last_seen_ms, left_ms) if connected is None else self._wall_ms(),
            push_token=record.push_token is not None,
            connection=self._connection(connected),
            other_node=session.node if session is not None and connected is None and session.run != self._run else "",
            last_close=close,
            channels=tuple(shown),
            more_channels=len(rows) - len(shown),
            dead_letters=len(letters),
            max_attempts=self._max_attempts,
            rate=await self._rate(device_id),
        )

    def _connection(self, connected: Connected | None) -> ConnectionFacts | None:
        if connected is None:
            return None
        attachment = connected.attachment
        info, beats = attachment.info, attachment.heartbeats
        open_messages, open_bytes, window_messages, window_bytes = attachment.window()
        return ConnectionFacts(
            info.session_id,
            info.address,
            connected.connected_at_ms,
            info.app,
            info.app_version,
            attachment.state,
            window_messages,
            window_bytes,
            open_messages,
            open_bytes,
            attachment.has_room(),
            beats.round_trips,
            beats.misses,
            beats.jitters,
            self._presence.generation(attachment.principal.name),
        )

    def _channel(self, backlog: ChannelBacklog, connected: Connected | None) -> ChannelFacts:
        facts = ChannelFacts(
            backlog.channel,
            backlog.acknowledged,
            backlog.top,
            backlog.waiting,
            backlog.lost,
            backlog.restarted,
            backlog.durable,
        )
        feed = None if connected is None else connected.attachment.feeds.get(backlog.channel)
        if feed is None:
            return facts
        status = feed.status(backlog.top)
        return replace(
            facts,
            sent=status.sent,
            unacknowledged=status.unacknowledged,
            held=status.held,
            attempts=status.attempts,
            redeliveries=status.redeliveries,
            stuck_for=status.unanswered_for or None,
            next_try=status.next_attempt_in,
        )

    async def _with_times(self, device_id: str, rows: list[ChannelFacts]) -> list[ChannelFacts]:
        """When the oldest publication that waits was published, for the channels that get a sentence."""
        named = [row.channel for row in rows if row.waiting][:MAX_NAMED]
        found = []
        for row in rows:
            if row.channel in named:
                page = await self._backlog.entries(device_id, row.channel, 0, 1)
                row = replace(row, oldest_waiting_ms=page.entries[0].published_at_ms if page.entries else 0)
            found.append(row)
        return found


def _interest(row: ChannelFacts) -> tuple[bool, str]:
    """Channels with something to say come first."""
    return not (row.lost or row.restarted or row.held or row.attempts or row.waiting), row.channel
