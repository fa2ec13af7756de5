"""A client and a server that follow docs/protocol.md section 10 to the letter, in any order of events.

Held in every state: what the server counts as acknowledged the application has answered for good, or the server has given up;
nothing that was answered for good is given again; a stored position lies behind nothing else. And from every state all messages
get through.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred

from streampush.client.inbox import Inbox, Window
from streampush.client.positions import MemoryPositions
from streampush.protocol import messages as m
from streampush.protocol.terms import Outcome

FOR_GOOD = (Outcome.DELIVERED, Outcome.PROCESSED, Outcome.REJECTED)


class Feed:
    """The server's side of the channel `c` on one connection, behind the stored cursor."""

    def __init__(self, offset: int, given_up: set[int]) -> None:
        self.given_up = given_up
        self.sent = self.reached = self.cursor = offset
        self.held: set[int] = set()

    def heed(self, ack: m.Ack) -> None:
        assert 0 < ack.offset <= self.sent, f"{ack} beyond what was sent"
        if ack.offset in self.held:
            if ack.outcome is not Outcome.RETRY_LATER:
                self.held.discard(ack.offset)
        elif ack.offset > self.cursor:
            if ack.outcome in (Outcome.RETRY_LATER, Outcome.REJECTED):
                assert self.given_up >= set(range(self.reached + 1, ack.offset)), f"{ack} before the ones in front of it"
            if ack.outcome is Outcome.RETRY_LATER:
                self.held.add(ack.offset)
            self.reached = max(self.reached, ack.offset)
        self.move()

    def give_up(self, offset: int) -> None:
        self.held.discard(offset)
        self.reached = max(self.reached, offset)
        self.move()

    def move(self) -> None:
        self.cursor = max(self.cursor, min([self.reached, *(offset - 1 for offset in self.held)]))


class Way(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryPositions()
        self.inbox = Inbox(self.work, Window(1000, 1 << 20), self.store, lambda event: None, lambda: None)
        self.broken: list[str] = []
        self.working: list[tuple[int, Deferred[Outcome]]] = []
        self.done: set[int] = set()
        self.given_up: set[int] = set()
        self.top = 0
        self.cursor = 0
        self.feed: Feed | None = None
        self.connect()

    async def work(self, message: m.Delivery) -> Outcome:
        if message.offset in self.done:
            self.broken.append(f"{message.offset} is given again")  # an exception would be taken for the application's
        if self.working:
            self.broken.append(f"{message.offset} is given while at another")
        work: Deferred[Outcome] = Deferred()
        self.working.append((message.offset, work))
        return await work

    def _deliver(self, offset: int) -> None:
        assert self.inbox.deliver(m.Delivery("c", offset, f"m{offset}", b"x"))

    # -------------------------------------------------------------------------------------------------------------- events

    @rule(count=st.integers(1, 5))
    def published(self, count: int) -> None:
        self.top += count

    @precondition(lambda self: self.feed and self.feed.sent < self.top)
    @rule()
    def delivered(self) -> None:
        assert self.feed
        self.feed.sent += 1
        self._deliver(self.feed.sent)

    @precondition(lambda self: self.feed and self.feed.sent < self.top)
    @rule()
    def left_out(self) -> None:
        assert self.feed  # expired, or recalled: its place in the log is passed over
        self.feed.sent += 1
        self.given_up.add(self.feed.sent)
        if self.feed.reached == self.feed.sent - 1:
            self.feed.give_up(self.feed.sent)

    @precondition(lambda self: self.feed and self.feed.cursor < self.feed.sent)
    @rule()
    def dead_lettered(self) -> None:
        assert self.feed
        self.given_up.add(self.feed.cursor + 1)
        self.feed.give_up(self.feed.cursor + 1)

    @precondition(lambda self: self.feed and self.feed.cursor < self.feed.sent)
    @rule(data=st.data())
    def delivered_again(self, data: st.DataObject) -> None:
        assert self.feed
        offset = data.draw(st.sampled_from(sorted({self.feed.cursor + 1, *self.feed.held})))
        if offset not in self.given_up:
            self._deliver(offset)

    @precondition(lambda self: self.working)
    @rule(outcome=st.sampled_from([*FOR_GOOD, Outcome.RETRY_LATER, Outcome.RETRY_LATER]))
    def finished(self, outcome: Outcome) -> None:
        offset, work = self.working.pop()
        if outcome in FOR_GOOD:
            self.done.add(offset)
        work.callback(outcome)

    @precondition(lambda self: self.feed)
    @rule()
    def acknowledged(self) -> None:
        assert self.feed
        for ack in self.inbox.take_acks():
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
        offset = self.cursor
        for resume in self.inbox.resume():
            if resume.position.epoch:
                offset = resume.position.offset
        self.cursor = max(self.cursor, offset)
        self.feed = Feed(offset, self.given_up)
        self.inbox.subscribed(m.Subscribed("c", "e", offset, self.top, True, last_message_id=f"m{offset}" if offset else ""))

    # ---------------------------------------------------------------------------------------------------------- invariants

    @invariant()
    def nothing_is_given_that_must_not(self) -> None:
        assert not self.broken

    @invariant()
    def what_is_acknowledged_was_answered_for_good(self) -> None:
        assert self.done | self.given_up >= set(range(1, self.cursor + 1))

    @invariant()
    def a_stored_position_lies_behind_nothing_else(self) -> None:
        for position in self.store.load().values():
            assert self.done | self.given_up >= set(range(1, position.offset + 1))

    def teardown(self) -> None:
        if self.feed is None:
            self.connect()
        for _ in range(4 * self.top + 4):
            while self.working:
                self.finished(Outcome.PROCESSED)
            self.acknowledged()
            assert self.feed
            if self.feed.sent < self.top:
                self.delivered()
            elif self.feed.cursor < self.top:
                offset = self.feed.cursor + 1
                if offset in self.given_up:
                    self.feed.give_up(offset)
                else:
                    self._deliver(offset)
        self.acknowledged()
        assert self.cursor == self.top == len(self.done | self.given_up)
        assert not self.broken


Way.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestWay = Way.TestCase


def test_a_rejection_comes_behind_the_answers_to_those_in_front_of_it() -> None:
    """One of them was given while there was no connection, and is a repeat on the next."""
    way = Way()
    way.published(3)
    way.delivered()
    way.delivered()
    way.finished(Outcome.RETRY_LATER)
    way.cut()
    way.finished(Outcome.DELIVERED)
    way.connect()
    for _ in range(3):
        way.delivered()
    way.finished(Outcome.DELIVERED)
    way.finished(Outcome.REJECTED)
    way.acknowledged()  # asserts the order
    assert way.cursor == 3
