"""Fan-out: a publication is encoded once and handed to every follower of its channel on this node.

Theory of operation. What is appended during one turn of the reactor is collected per *channel*; at the end of the turn each
channel's new frames are joined and the same bytes object is offered to every follower. That costs nothing when messages come
singly and makes a queue of messages cheap; coalescing per connection was measured to cost a third on single messages.

A notification is a hint: the log is the truth. A follower takes an offer only if it continues what it has; otherwise it reads
the log (`delivery`), so a lost, repeated or reordered notification, or one of another epoch, does no harm.

Priority: at the end of a turn the channels with a publication of high priority come first, those with nothing but low ones last.
Within a channel the order is that of the log.

A failure in one follower or channel is raised to whoever runs the turn, and does not reach the others: the channel's followers
read the log, the other channels are offered theirs in a turn of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from streampush.protocol.terms import Priority
from streampush.push.channels import Kind, kind_of
from streampush.push.ports import Encoder, PushMetrics, Scheduler
from streampush.push.values import Appended, Publication

RUN_MESSAGES = 64
RUN_BYTES = 64 * 1024
"""The most that is offered as one piece, but for a single larger message: followers with a small window can still take some."""


@dataclass(slots=True)
class Piece:
    """Publications with `before` < offset <= `last`, none missing, as frames; `at`: monotonic seconds of the offer.

    `urgent`: offset of the newest of high priority, 0: none. `receipts`: the publisher of one of them wants a receipt. `last_id`:
    the message id of the last one.
    """

    epoch: str
    before: int
    last: int
    frames: bytes
    messages: int
    at: float = 0.0
    urgent: int = 0
    receipts: bool = False
    last_id: str = ""


class Follower(Protocol):
    """Somebody who follows one channel."""

    def offer(self, piece: Piece) -> bool:
        """True: written. False: it has them, or will read the log."""

    def missed(self) -> None:
        """An offer may not have come: what the follower has is to be compared with the log."""


class _Channel:
    __slots__ = ("epoch", "followers", "name", "pending", "rank", "since", "top", "topic")

    def __init__(self, name: str, epoch: str, top: int) -> None:
        self.name = name
        self.topic = kind_of(name)[0] is Kind.TOPIC  # its receipts are counts, and the others' are kept by the feeds
        self.rank = Priority.UNSPECIFIED  # the highest priority of what waits
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
        written: Callable[[str, str, int, int, int], None],
        heard: Callable[[Appended], None] = lambda appended: None,
        interest: Callable[[str, bool], None] = lambda channel, follows: None,
    ) -> None:
        """`written` is told of a topic's channel, epoch, first and last offset with receipts, and number of connections;
        `interest` when somebody begins to follow a channel that nobody followed, and when nobody does any more."""
        self._interest = interest
        self._written = written
        self._uneven = False  # something of another than normal priority is due
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
            entry = self._channels[channel] = _Channel(channel, epoch, top)
            self._interest(channel, True)
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
                self._interest(channel, False)

    def top(self, channel: str, epoch: str) -> int:
        """The newest offset heard of in this epoch; 0 if nobody here follows the channel or another epoch was heard of."""
        entry = self._channels.get(channel)
        return entry.top if entry is not None and entry.epoch == epoch else 0

    def correct(self, channel: str, epoch: str, heard: int, top: int) -> None:
        """The log ends at `top`: the higher offset that was heard of is forgotten, unless a newer one was heard since."""
        entry = self._channels.get(channel)
        if entry is not None and entry.epoch == epoch and entry.top == heard:
            entry.top = top

    def seen(self, channel: str, epoch: str, top: int) -> None:
        """The log has this epoch and ends at `top`, or did a moment ago: followers who have less read it."""
        entry = self._channels.get(channel)
        if entry is None or (entry.epoch == epoch and top <= entry.top):
            return
        if entry.epoch != epoch:  # what waits is of a log that is gone
            entry.epoch = epoch
            entry.pending.clear()
        entry.top = top
        for follower in list(entry.followers):
            follower.missed()

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
        if publication.priority is not Priority.NORMAL:
            self._uneven = True
        if publication.priority > entry.rank:
            entry.rank = publication.priority
        entry.since = min(entry.since, accepted_at)
        entry.top = max(entry.top, publication.offset)
        return len(entry.followers)

    def flush(self) -> None:
        """Offers what was appended since the last flush."""
        due, self._due = self._due, []
        if self._uneven:
            self._uneven = False
            due.sort(key=_rank, reverse=True)
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
        entry.rank = Priority.UNSPECIFIED
        if not entry.followers:
            return
        pending.sort(key=_offset)  # appends may finish out of order
        try:
            for run in _runs(pending):
                for piece in self._pieces(epoch, run):
                    self._offer(entry, piece)
        except Exception:
            for follower in list(entry.followers):
                follower.missed()
            raise

    def _pieces(self, epoch: str, run: list[Publication]) -> Iterator[Piece]:
        """A run without a hole, in pieces of bounded size."""
        encode = self._encode
        if len(run) == 1:  # nearly always
            yield _piece(epoch, run, encode(run[0]))
            return
        start = size = 0
        frames: list[bytes] = []
        for number, publication in enumerate(run):
            frame = encode(publication)
            if frames and (len(frames) >= RUN_MESSAGES or size + len(frame) > RUN_BYTES):
                yield _piece(epoch, run[start:number], b"".join(frames))
                start, size, frames = number, 0, []
            frames.append(frame)
            size += len(frame)
        yield _piece(epoch, run[start:], b"".join(frames))

    def _offer(self, entry: _Channel, piece: Piece) -> None:
        written = 0
        piece.at = self._clock()
        for follower in list(entry.followers):
            if follower.offer(piece):
                written += 1
        if written:
            messages = piece.messages
            self._metrics.fanned_out(written * messages, messages, self._clock() - entry.since)
            if piece.receipts and entry.topic:
                self._written(entry.name, piece.epoch, piece.before + 1, piece.last, written)


def _piece(epoch: str, publications: list[Publication], frames: bytes) -> Piece:
    first, last = publications[0], publications[-1]
    piece = Piece(epoch, first.offset - 1, last.offset, frames, len(publications), last_id=last.message_id)
    for publication in publications:
        if publication.priority is Priority.HIGH:
            piece.urgent = publication.offset
        if publication.want_receipt:
            piece.receipts = True
    return piece


def _rank(entry: _Channel) -> int:
    """UNSPECIFIED counts as NORMAL."""
    return entry.rank or Priority.NORMAL


def _offset(publication: Publication) -> int:
    return publication.offset


def _runs(pending: list[Publication]) -> Iterator[list[Publication]]:
    """Publications in order of offset, cut where one is missing or repeated."""
    start = 0
    for end in range(1, len(pending) + 1):
        if end == len(pending) or pending[end].offset != pending[end - 1].offset + 1:
            yield pending[start:end]
            start = end
