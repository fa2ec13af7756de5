"""Messages whose progress somebody watches, and what is new for whom."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streampush.protocol.terms import Milestone
from streampush.push.progress import MessageProgress


class Watcher(Protocol):
    """Somebody who wants to know what becomes of one message."""

    def progressed(self, progress: MessageProgress) -> None:
        """This is what is known now. Comes again if anything may have changed; should not raise."""

    def gone(self) -> None:
        """The message has left the log: nothing more will come."""


class Watch:
    """One message that is watched, by at least one watcher. `offset` 0: where it is in a log is not known, or not yet."""

    __slots__ = ("again", "channel", "due_at", "epoch", "message_id", "offset", "reading", "topic", "watchers")

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.channel = ""
        self.epoch = ""
        self.offset = 0
        self.topic = False
        self.reading = False
        self.again = False  # a hint came while it was read
        self.due_at = 0.0  # of a topic's message: the earliest next read
        self.watchers: dict[Watcher, None] = {}


@dataclass(slots=True)
class Reached:
    """How far a device was heard to be: only what is behind that is news."""

    offset: int = 0
    processed: int = 0


class WatchedLog:
    """The watched messages of one log, by offset."""

    __slots__ = ("by_offset", "offsets", "reached")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.by_offset: dict[int, Watch] = {}
        self.reached: dict[str, Reached] = {}

    def add(self, watch: Watch) -> None:
        if watch.offset not in self.by_offset:
            insort(self.offsets, watch.offset)
        self.by_offset[watch.offset] = watch

    def remove(self, watch: Watch) -> None:
        if self.by_offset.pop(watch.offset, None) is not None:
            del self.offsets[bisect_left(self.offsets, watch.offset)]

    def between(self, first: int, last: int) -> Iterable[Watch]:
        """Those with `first` <= offset <= `last`."""
        start, end = bisect_left(self.offsets, first), bisect_right(self.offsets, last)
        return [self.by_offset[offset] for offset in self.offsets[start:end]]


def news_of(progress: MessageProgress, known: Mapping[str, int], tell: frozenset[Milestone]) -> list[tuple[str, Milestone, int]]:
    """What is new, as (device, milestone, time), in order. `known` has, by device, a bit for each milestone that was told."""
    news: list[tuple[str, Milestone, int]] = []
    for row in progress.devices:
        bits = known.get(row.device_id, 0)
        news += [(row.device_id, stone, at) for stone, at in row.times.items() if stone in tell and not bits >> stone & 1]
    return news
