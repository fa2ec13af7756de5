"""Publications that leave their log by a limit before devices that follow it for good have taken them: the operator is told.

A device that comes back is told what it has lost (`recovery`), which may be weeks later, or never. Here it is noticed when it
happens. The store remembers which channels have dropped what could be read; some of them are looked at every few seconds, and
their followers' cursors are compared with what is gone. It is a hint: with very many such channels, or followers, not all are
looked at, and what is counted is the least that was lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from streampush.push.channels import Kind, kind_of
from streampush.push.cursors import CursorWriter
from streampush.push.ports import Delayer, PushMetrics, Spawner
from streampush.push.rounds import Rounds
from streampush.push.store_ports import Store
from streampush.push.values import Head, Reach

INTERVAL = 10.0
"""Seconds between two looks."""

CHANNELS = 100
"""That one look is at: with each goes a handful of questions to the store, which has other work."""

BATCH = 200
"""Followers that are looked at in one step."""

MAX_FOLLOWERS = 2_000
"""Of one channel in one look."""

LINE_INTERVAL = 60.0
"""Seconds between two lines in the log; what happens meanwhile is in the next one."""


@dataclass(slots=True)
class _Losses:
    """Since the last line. `publications` are counted for each follower; `channel` is the one with the most of them."""

    publications: int = 0
    channels: int = 0
    channel: str = ""
    most: int = 0
    followers: int = 0

    def add(self, channel: str, publications: int, followers: int) -> None:
        self.publications += publications
        self.channels += 1
        if publications > self.most:
            self.channel, self.most, self.followers = channel, publications, followers


class LeftBehind:
    """Looks between `start` and `stop`. `clock` gives monotonic seconds."""

    _log = Logger()

    def __init__(
        self,
        store: Store,
        cursors: CursorWriter,
        metrics: PushMetrics,
        *,
        clock: Callable[[], float],
        call_later: Delayer,
        spawn: Spawner,
    ) -> None:
        self._store = store
        self._cursors = cursors
        self._metrics = metrics
        self._clock = clock
        self._rounds = Rounds(INTERVAL, self._look, call_later=call_later, spawn=spawn)
        self._losses = _Losses()
        self._next_line = 0.0

    def start(self) -> None:
        """Begins to look. Starting twice is harmless."""
        self._rounds.start()

    def stop(self) -> None:
        """Ends it; a look that is under way is the last one."""
        self._rounds.stop()

    async def _look(self) -> None:
        try:
            for channel, floor in await self._store.take_trimmed(CHANNELS):
                await self._look_at(channel, floor)  # where the store is away, what was taken is not looked at
        finally:
            self._tell()

    async def _look_at(self, channel: str, floor: int) -> None:
        """The channel has dropped what was behind this floor."""
        head = await self._store.peek(channel)
        if head is None:
            return
        publications = followers = 0
        async for reaches in self._followers(channel):
            for reach in reaches:
                place = self._place(reach, channel, head)
                if place is not None and place < head.floor_offset:
                    publications += head.floor_offset - max(place, floor)
                    followers += 1
        if publications > 0:
            self._metrics.left_behind(publications)
            self._losses.add(channel, publications, followers)

    async def _followers(self, channel: str) -> AsyncIterator[Sequence[Reach]]:
        """Those who get what is published while they are away."""
        kind, name = kind_of(channel)
        if kind is Kind.TOPIC:
            after = ""
            for _ in range(MAX_FOLLOWERS // BATCH):
                device_ids = await self._store.subscribers(channel, after, BATCH)
                yield await self._store.reach(channel, device_ids)
                if len(device_ids) < BATCH:
                    return
                after = device_ids[-1]
        elif kind is Kind.USER:
            devices = await self._store.devices_of_user(name, BATCH)
            yield await self._store.reach(channel, [device.device_id for device in devices])
        else:
            yield await self._store.reach(channel, [name])

    def _place(self, reach: Reach, channel: str, head: Head) -> int | None:
        """How far the device is in this log; None: what is in it now is not kept for it."""
        places = (reach.cursor, self._cursors.pending(reach.device_id, channel))
        offsets = [place.offset for place in places if place is not None and place.epoch == head.epoch]
        if offsets:
            return max(offsets)
        return 0 if reach.cursor is None and kind_of(channel)[0] is Kind.DEVICE else None

    def _tell(self) -> None:
        now, losses = self._clock(), self._losses
        if not losses.publications or now < self._next_line:
            return
        self._next_line = now + LINE_INTERVAL
        self._losses = _Losses()
        self._log.warn(
            "messages have left their logs by a limit before devices had taken them: {publications} in all, channels: {channels};"
            " most on {channel}: {most}, devices behind there: {followers}; see store.history_messages, _bytes and _age",
            most=losses.most,
            channel=losses.channel,
            followers=losses.followers,
            publications=losses.publications,
            channels=losses.channels,
        )
