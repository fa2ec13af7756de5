"""A client and a server whose store fails over, or is put back, at any moment: docs/protocol.md sections 10 and 11.

The server is the feed of test_channel.py over a log whose end may be lost and written anew. Held in every state: nothing that was
answered for good is given again, in whatever log it comes; what the server counts as acknowledged was answered for good, and so was
all in front of a stored position; no loss is told that the server did not name. And from every state all messages of the log get
through.
"""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred

from streampush.client.events import ClientEvent, PositionLost
from streampush.client.inbox import Inbox, Window
from streampush.client.positions import MemoryPositions
from streampush.protocol import messages as m
from streampush.protocol.terms import LossReason, Outcome
from tests.client.test_channel import FOR_GOOD, Feed


class Failing(RuleBasedStateMachine):
    """The server has one channel, `c`."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryPositions()
        self.inbox = Inbox(self.work, Window(1000, 1 << 20), self.store, self.hear, lambda: None)
        self.working: list[tuple[str, Deferred[Outcome]]] = []
        self.done: set[str] = set()
        self.broken: list[str] = []
        self.losses = 0  # that the server has named, and the client has not told
        self.given: set[str] = set()
        self.ids = count(1)
        self.epoch = "e0"
        self.logs: dict[str, list[str]] = {"e0": []}  # by epoch: ids, as they were when it ended
        self.cursor = 0
        self.feed: Feed | None = None
        self.epochs: list[str] = []  # that acknowledgements may name, on this connection
        self.connect()

    @property
    def log(self) -> list[str]:
        return self.logs[self.epoch]

    async def work(self, message: m.Delivery) -> Outcome:
        if message.message_id in self.done:
            self.broken.append(f"{message.message_id} is given again")  # an exception would be taken for the application's
        if self.working:
            self.broken.append(f"{message.message_id} is given while at another")
        self.given.add(message.message_id)
        work: Deferred[Outcome] = Deferred()
        self.working.append((message.message_id, work))
        return await work

    def hear(self, event: ClientEvent) -> None:
        if isinstance(event, PositionLost):
            self.losses -= 1
            if self.losses < 0 and self.given.issubset(self.log):
                self.broken.append(f"{event}, and the server has named none")

    def _deliver(self, offset: int) -> None:
        assert self.inbox.deliver(m.Delivery("c", offset, self.log[offset - 1], b"x"))

    def _tell(self, offset: int, loss: LossReason) -> None:
        """Delivery goes on behind the offset."""
        known = self.log[offset - 1] if offset and not loss else ""
        self.losses += bool(loss)
        answer = m.Subscribed("c", self.epoch, offset, len(self.log), not loss, loss, last_message_id=known)
        assert self.inbox.subscribed(answer)

    def _departed(self, offset: int, message_id: str) -> LossReason:
        """Whether the log has it."""
        if offset > len(self.log):
            return LossReason.REWOUND
        if offset and self.log[offset - 1] != message_id:
            return LossReason.ID_MISMATCH
        return LossReason.UNSPECIFIED

    # -------------------------------------------------------------------------------------------------------------- events

    @rule(number=st.integers(1, 4))
    def published(self, number: int) -> None:
        self.log.extend(f"m{next(self.ids)}" for _ in range(number))

    @precondition(lambda self: self.feed and self.feed.sent < len(self.log))
    @rule()
    def delivered(self) -> None:
        assert self.feed
        self.feed.sent += 1
        self._deliver(self.feed.sent)

    @precondition(lambda self: self.feed and self.feed.cursor < self.feed.sent)
    @rule(data=st.data())
    def delivered_again(self, data: st.DataObject) -> None:
        assert self.feed
        self._deliver(data.draw(st.sampled_from(sorted({self.feed.cursor + 1, *self.feed.held}))))

    @precondition(lambda self: self.working)
    @rule(outcome=st.sampled_from([*FOR_GOOD, Outcome.RETRY_LATER, Outcome.RETRY_LATER]))
    def finished(self, outcome: Outcome) -> None:
        message_id, work = self.working.pop()
        if outcome in FOR_GOOD:
            self.done.add(message_id)
        work.callback(outcome)

    @precondition(lambda self: self.feed)
    @rule()
    def acknowledged(self) -> None:
        assert self.feed
        for ack in self.inbox.take_acks():
            if ack.epoch in self.epochs:  # else it is of a log that is gone
                self.feed.heed(ack)
        self.cursor = self.feed.cursor

    @precondition(lambda self: self.feed)
    @rule()
    def cut(self) -> None:
        self.feed = None
        self.inbox.disconnected()

    @precondition(lambda self: not self.feed)
    @rule()
    def connect(self) -> None:
        offset, loss = self.cursor, LossReason.UNSPECIFIED
        for resume in self.inbox.resume():
            position = resume.position
            loss = self._departed(position.offset, position.last_message_id)
            if not loss:
                offset = position.offset
            elif position.epoch == self.epoch:
                offset = 0
        self.cursor = max(self.cursor, offset)
        self.feed = Feed(offset, set())
        self.epochs = ["", self.epoch]
        self._tell(offset, loss)

    @rule(data=st.data(), written=st.integers(0, 3))
    def failed_over(self, data: st.DataObject, written: int) -> None:
        """To a replica that lacks the last ones, and gets others; who is connected is told."""
        self._lose_the_end(data, f"e{len(self.logs)}", written)
        if self.feed is None:
            return
        self.feed.cursor = self.cursor
        loss = self._departed(self.feed.sent, self.last_sent)
        if loss:
            self.feed = Feed(self.cursor, set())
            self.epochs = [self.epoch]
        else:
            self.epochs.append(self.epoch)
        self._tell(self.feed.sent, loss)

    @precondition(lambda self: not self.feed)
    @rule(data=st.data(), written=st.integers(0, 3))
    def put_back(self, data: st.DataObject, written: int) -> None:
        """To a backup, in which the epoch is the same."""
        self._lose_the_end(data, self.epoch, written)

    def _lose_the_end(self, data: st.DataObject, epoch: str, written: int) -> None:
        kept = data.draw(st.integers(0, len(self.log)))
        sent = self.feed.sent if self.feed else 0
        self.last_sent = self.log[sent - 1] if sent else ""
        self.cursor = data.draw(st.integers(0, min(kept, self.cursor)))
        self.logs[epoch] = self.log[:kept]
        self.epoch = epoch
        self.published(written)

    # ---------------------------------------------------------------------------------------------------------- invariants

    @invariant()
    def nothing_is_given_or_told_that_must_not(self) -> None:
        assert not self.broken

    @invariant()
    def what_is_acknowledged_was_answered_for_good(self) -> None:
        assert self.done.issuperset(self.log[: self.cursor])

    @invariant()
    def all_in_front_of_a_stored_position_was_answered_for_good(self) -> None:
        for position in self.store.load().values():
            log = self.logs[position.epoch]
            if not self._departed_from(log, position):
                assert self.done.issuperset(log[: position.offset])

    @staticmethod
    def _departed_from(log: list[str], position: m.Position) -> bool:
        """Whether the backup does not have it, which the client does not know yet."""
        return position.offset > len(log) or bool(position.offset and log[position.offset - 1] != position.last_message_id)

    def teardown(self) -> None:
        if self.feed is None:
            self.connect()
        for _ in range(6 * len(self.log) + 6):
            while self.working:
                self.finished(Outcome.PROCESSED)
            self.acknowledged()
            assert self.feed
            if self.feed.sent < len(self.log):
                self.delivered()
            elif self.feed.cursor < len(self.log):
                self._deliver(self.feed.cursor + 1)
        self.acknowledged()
        assert self.cursor == len(self.log)
        assert self.done.issuperset(self.log)
        assert not self.broken


Failing.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestFailing = Failing.TestCase
