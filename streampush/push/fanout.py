"""Fan-out: a publication is encoded once and handed to every follower of its channel on this node.

Theory of operation. What is appended during one turn of the reactor is collected per *channel*; at the end of the turn each
channel's new frames are joined and the same bytes object is offered to every follower. That costs nothing when messages come
singly and makes a queue of messages cheap; coalescing per connection was measured to cost a third on single messages.

A notification is a hint: the log is the truth. A follower takes an offer only if it continues what it has; otherwise it reads
the log (`delivery`), so a lost, repeated or reordered notification, or one of another epoch, does no harm.

A failure in one follower or channel is raised to whoever runs the turn, and does not reach the others: the channel's followers
read the log, the other channels are offered theirs in a turn of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from streampush.push.ports import Encoder, PushMetrics, Scheduler
from streampush.push.values import Appended, Publication

RUN_MESSAGES = 64
RUN_BYTES = 64 * 1024
"""The most that is offered as one piece, but for a single larger message: followers with a small window can still take some."""


class Follower(Protocol):
    """Somebody who follows one channel."""

    def offer(self, epoch: str, before: int, last: int, frames: bytes, messages: int) -> bool:
        """Publications with `before` < offset <= `last`, as frames. True: written. False: it has them or will read the log."""

    def missed(self) -> None:
        """An offer may not have come: what the follower has is to be compared with the log."""


class _Channel:
    __slots__ = ("epoch", "followers", "pending", "since", "top")

    def __init__(self, epoch: str, top: int) -> None:
        self.followers: dict[Follower, None] = {}
        self.pending: list[Publication] = []
        self.since = 0.0
        self.epoch = epoch
        self.top = top


class FanOut:
    """Who on this node follows which channel, and what they have not been offered yet. `heard` is told of every publication."""

    def __init__(
        self,
        encode: Encoder,
        call_soon: Scheduler,
        clock: Callable[[], float],
        metrics: PushMetrics,
        heard: Callable[[Appended], None] = lambda appended: None,
    ) -> None:
        self._encode = encode
        self._heard = heard
        self._call_soon = call_soon
        self._clock = clock
        self._metrics = metrics
        self._channels: dict[str, _Channel] = {}
        self._due: list[_Channel] = []

    def follow(self, channel: str, follower: Follower, epoch: str, top: int) -> None:
        """From now on the follower is offered what is appended. `epoch`, `top`: of the log, as far as the caller knows."""
        entry = self._channels.get(channel)
        if entry is None:
            entry = self._channels[channel] = _Channel(epoch, top)
        elif entry.epoch == epoch:
            entry.top = max(entry.top, top)
        entry.followers[follower] = None

    def unfollow(self, channel: str, follower: Follower) -> None:
        """The follower is offered nothing more. Unfollowing twice is harmless."""
        entry = self._channels.get(channel)
        if entry is not None:
            entry.followers.pop(follower, None)
            if not entry.followers:
                del self._channels[channel]

    def top(self, channel: str, epoch: str) -> int:
        """The newest offset heard of in this epoch; 0 if nobody here follows the channel or another epoch was heard of."""
        entry = self._channels.get(channel)
        return entry.top if entry is not None and entry.epoch == epoch else 0

    def correct(self, channel: str, epoch: str, heard: int, top: int) -> None:
        """The log ends at `top`: the higher offset that was heard of is forgotten, unless a newer one was heard since."""
        entry = self._channels.get(channel)
        if entry is not None and entry.epoch == epoch and entry.top == heard:
            entry.top = top

    def followers(self, channel: str) -> int:
        """How many connections of this node follow the channel."""
        entry = self._channels.get(channel)
        return 0 if entry is None else len(entry.followers)

    def appended(self, appended: Appended, accepted_at: float) -> int:
        """A publication is in the log; it is offered at the end of the turn. Gives the number of followers."""
        self._heard(appended)
        publication = appended.publication
        entry = self._channels.get(publication.channel)
        if entry is None:
            return 0
        if not entry.pending:
            entry.since = accepted_at
            if not self._due:
                self._call_soon(self.flush)
            self._due.append(entry)
        if entry.epoch != appended.epoch:  # the log was begun anew; what waits is of the old one
            entry.epoch, entry.top = appended.epoch, 0
            entry.pending.clear()
        entry.pending.append(publication)
        entry.since = min(entry.since, accepted_at)
        entry.top = max(entry.top, publication.offset)
        return len(entry.followers)

    def flush(self) -> None:
        """Offers what was appended since the last flush."""
        due, self._due = self._due, []
        due.reverse()
        try:
            while due:
                self._flush_channel(due.pop())
        finally:
            if due:  # one channel failed
                due.reverse()
                self._due = due + self._due
                self._call_soon(self.flush)

    def _flush_channel(self, entry: _Channel) -> None:
        epoch, pending, entry.pending = entry.epoch, entry.pending, []
        if not entry.followers:
            return
        pending.sort(key=_offset)  # appends may finish out of order
        try:
            for run in _runs(pending):
                for first, last, frames, messages in self._pieces(run):
                    self._offer(entry, epoch, first - 1, last, frames, messages)
        except Exception:
            for follower in list(entry.followers):
                follower.missed()
            raise

    def _pieces(self, run: list[Publication]) -> Iterator[tuple[int, int, bytes, int]]:
        """A run without a hole in pieces of bounded size: first and last offset, joined frames, number of messages."""
        encode = self._encode
        if len(run) == 1:  # nearly always
            yield run[0].offset, run[0].offset, encode(run[0]), 1
            return
        first, size = run[0].offset, 0
        frames: list[bytes] = []
        for publication in run:
            frame = encode(publication)
            if frames and (len(frames) >= RUN_MESSAGES or size + len(frame) > RUN_BYTES):
                yield first, publication.offset - 1, b"".join(frames), len(frames)
                first, size, frames = publication.offset, 0, []
            frames.append(frame)
            size += len(frame)
        yield first, run[-1].offset, b"".join(frames), len(frames)

    def _offer(self, entry: _Channel, epoch: str, before: int, last: int, frames: bytes, messages: int) -> None:
        written = 0
        for follower in list(entry.followers):
            if follower.offer(epoch, before, last, frames, messages):
                written += 1
        if written:
            self._metrics.fanned_out(written * messages, messages, self._clock() - entry.since)


def _offset(publication: Publication) -> int:
    return publication.offset


def _runs(pending: list[Publication]) -> Iterator[list[Publication]]:
    """Publications in order of offset, cut where one is missing or repeated."""
    start = 0
    for end in range(1, len(pending) + 1):
        if end == len(pending) or pending[end].offset != pending[end - 1].offset + 1:
            yield pending[start:end]
            start = end
