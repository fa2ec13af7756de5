"""Receipts on a publisher's connection: what becomes of the messages that it published with `want_receipt`.

For the newest messages of the connection, within bounds, what the service tells is compared with what went out already, so a
receipt is sent once, and one for which there was no room goes out when there is. docs/protocol.md section 10.7.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Protocol

from streampush.errors import Refused
from streampush.protocol import messages as m
from streampush.protocol.terms import Milestone
from streampush.push.progress import MessageProgress
from streampush.push.receipts import Receipts
from streampush.push.values import Published
from streampush.push.watching import Watch, news_of
from streampush.server.ports import ServerMetrics

TOLD_WHEN_SCHEDULED = frozenset(Milestone) - {Milestone.UNSPECIFIED, Milestone.ACCEPTED}
TOLD = TOLD_WHEN_SCHEDULED - {Milestone.STORED}
"""That a message was accepted, and stored if it was not scheduled, says PublishOk."""

MAX_ROWS = 100_000
"""Pairs of message and device that are remembered for one connection: some 20 MiB, for messages to users of many devices."""

RUN = 64
"""Receipts written before the send buffer is looked at again."""


class Outlet(Protocol):
    """The way to the publisher. server.connection.StreamConnection is one."""

    def has_room(self) -> bool:
        """Whether the send buffer is below its mark; when it is again, `PublisherReceipts.room_again` is called."""

    def send_all(self, messages: Sequence[m.Message]) -> None:
        """Sends messages with id 0. May end the connection, and then close the receipts."""


class _Message:
    """One message of the publisher's. See push.watching.Watcher."""

    __slots__ = ("known", "owner", "watch")

    def __init__(self, owner: PublisherReceipts) -> None:
        self.owner = owner
        self.watch: Watch | None = None
        self.known: dict[str, int] = {}

    def progressed(self, progress: MessageProgress) -> None:
        self.owner.tell(self, progress)

    def gone(self) -> None:
        self.owner.forget(self)


class PublisherReceipts:
    """One connection's receipts. `max_messages`: the newest of its messages that are followed."""

    __slots__ = ("_late", "_max_messages", "_messages", "_metrics", "_outlet", "_receipts", "_rows")

    def __init__(self, outlet: Outlet, receipts: Receipts, metrics: ServerMetrics, max_messages: int) -> None:
        self._outlet = outlet
        self._receipts = receipts
        self._metrics = metrics
        self._max_messages = max_messages
        self._messages: OrderedDict[_Message, None] = OrderedDict()
        self._late: dict[_Message, None] = {}  # there was no room for what they have to tell
        self._rows = 0

    def published(self, published: Published, expires_at_ms: int) -> None:
        """The publisher wants to know what becomes of this message. `expires_at_ms` need not be exact."""
        message = _Message(self)
        try:
            message.watch = self._receipts.watch_published(published, expires_at_ms, message)
        except Refused:  # too many are watched on this node
            self._metrics.receipts_dropped(1)
            return
        self._messages[message] = None
        if published.duplicate or published.superseded:  # something may have happened already
            self._receipts.look(message.watch)
        self._bound()

    def _bound(self) -> None:
        while len(self._messages) > self._max_messages or self._rows > MAX_ROWS:
            oldest = next(iter(self._messages))
            self.forget(oldest)
            self._metrics.receipts_dropped(1)

    def tell(self, message: _Message, progress: MessageProgress) -> None:
        """Sends what is new, as far as there is room."""
        before = len(message.known)
        whole = self._send(message, progress)
        if message not in self._messages:  # sending has ended the connection
            return
        self._rows += len(message.known) - before
        if not whole:
            self._late[message] = None
        elif progress.ending:
            self.forget(message)
        self._bound()

    def _send(self, message: _Message, progress: MessageProgress) -> bool:
        """Whether everything was sent."""
        record = progress.record
        news = news_of(progress, message.known, TOLD_WHEN_SCHEDULED if record.deliver_at_ms else TOLD)
        for start in range(0, len(news), RUN):
            if message not in self._messages or not self._outlet.has_room():
                return False
            told: Counter[str] = Counter()
            receipts = []
            for device_id, milestone, at_ms in news[start : start + RUN]:
                receipts.append(m.Receipt(record.message_id, record.channel, record.offset, device_id, milestone, at_ms))
                message.known[device_id] = message.known.get(device_id, 0) | 1 << milestone
                told[milestone.name.lower()] += 1
            self._outlet.send_all(receipts)
            for name, number in told.items():
                self._metrics.receipts_told(name, number)
        return True

    def room_again(self) -> None:
        """The send buffer fell below its mark: what could not be told is looked at again."""
        late, self._late = self._late, {}
        for message in late:
            if message.watch is not None:
                self._receipts.look(message.watch)

    def forget(self, message: _Message) -> None:
        """Nothing more is told of the message."""
        if message in self._messages:
            del self._messages[message]
            self._late.pop(message, None)
            self._rows -= len(message.known)
            if message.watch is not None:
                self._receipts.unwatch(message.watch, message)

    def close(self) -> None:
        """The connection is gone. Closing twice is harmless."""
        for message in list(self._messages):
            self.forget(message)
