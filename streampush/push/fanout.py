"""Fan-out: a publication is encoded once and handed to every follower of its channel on this node.

Theory of operation. What is appended during one turn of the reactor is collected per *channel*; at the end of the turn each
channel's new frames are joined once and the same bytes object is offered to every follower. That costs nothing when messages
come singly and makes a queue of messages cheap; coalescing per connection was measured to cost a third on single messages.

A notification is a hint: the log is the truth. A follower takes an offer only if it continues what it has; otherwise it reads
the log (`delivery`), so a lost, repeated or reordered notification does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streampush.push.ports import Encoder, PushMetrics, Scheduler
from streampush.push.values import Publication


class Follower(Protocol):
    """Somebody who follows one channel."""

    def offer(self, before: int, last: int, frames: bytes, messages: int) -> bool:
        """Publications with `before` < offset <= `last`, as frames. True: written. False: it has them or will read the log."""


class _Channel:
    __slots__ = ("followers", "pending", "since", "top")

    def __init__(self, top: int) -> None:
        self.followers: dict[Follower, None] = {}
        self.pending: list[Publication] = []
        self.since = 0.0
        self.top = top


class FanOut:
    """Who on this node follows which channel, and what they have not been offered yet."""

    def __init__(self, encode: Encoder, call_soon: Scheduler, clock: Callable[[], float], metrics: PushMetrics) -> None:
        self._encode = encode
        self._call_soon = call_soon
        self._clock = clock
        self._metrics = metrics
        self._channels: dict[str, _Channel] = {}
        self._due: list[_Channel] = []

    def follow(self, channel: str, follower: Follower, top: int) -> None:
        """From now on the follower is offered what is appended. `top`: the newest offset that the caller knows of."""
        entry = self._channels.get(channel)
        if entry is None:
            entry = self._channels[channel] = _Channel(top)
        entry.top = max(entry.top, top)
        entry.followers[follower] = None

    def unfollow(self, channel: str, follower: Follower) -> None:
        """The follower is offered nothing more. Unfollowing twice is harmless."""
        entry = self._channels.get(channel)
        if entry is not None:
            entry.followers.pop(follower, None)
            if not entry.followers:
                del self._channels[channel]

    def top(self, channel: str) -> int:
        """The newest offset heard of; 0 for a channel that nobody here follows."""
        entry = self._channels.get(channel)
        return 0 if entry is None else entry.top

    def rebase(self, channel: str, top: int) -> None:
        """The log was begun anew or rewound: its newest offset is `top`, higher ones were never heard of."""
        entry = self._channels.get(channel)
        if entry is not None:
            entry.top = top

    def followers(self, channel: str) -> int:
        """How many connections of this node follow the channel."""
        entry = self._channels.get(channel)
        return 0 if entry is None else len(entry.followers)

    def appended(self, publication: Publication, accepted_at: float) -> int:
        """A publication is in the log; it is offered at the end of the turn. Gives the number of followers."""
        entry = self._channels.get(publication.channel)
        if entry is None:
            return 0
        if not entry.pending:
            entry.since = accepted_at
            if not self._due:
                self._call_soon(self.flush)
            self._due.append(entry)
        entry.pending.append(publication)
        entry.top = max(entry.top, publication.offset)
        return len(entry.followers)

    def flush(self) -> None:
        """Offers what was appended since the last flush."""
        due, self._due = self._due, []
        for entry in due:
            pending, entry.pending = entry.pending, []
            pending.sort(key=_offset)  # appends may finish out of order
            start = 0
            for end in range(1, len(pending) + 1):
                if end == len(pending) or pending[end].offset != pending[end - 1].offset + 1:
                    self._offer(entry, pending[start:end])
                    start = end

    def _offer(self, entry: _Channel, run: list[Publication]) -> None:
        """Offers a run of publications without a hole."""
        encode = self._encode
        frames = encode(run[0]) if len(run) == 1 else b"".join([encode(publication) for publication in run])
        before = run[0].offset - 1
        last = run[-1].offset
        messages = len(run)
        written = 0
        for follower in list(entry.followers):
            if follower.offer(before, last, frames, messages):
                written += 1
        if written:
            self._metrics.fanned_out(written * messages, messages, self._clock() - entry.since)


def _offset(publication: Publication) -> int:
    return publication.offset
