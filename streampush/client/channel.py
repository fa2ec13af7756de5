"""One channel as the client sees it: what was taken, what may be acknowledged, from where to resume. No IO, no clock.

Theory of operation. `seen` is the highest offset taken, `reached` the highest that the application is through with; between the
two lies what waits or is in work. `later` holds the offsets that the application wants again: answered with RETRY_LATER, and
not taken otherwise since. While there are any, `position`, from which the application would resume after a restart, stays in
front of the first of them.

An acknowledgement is cumulative, so nothing is acknowledged beyond what waits, is in work, or was wanted again on an earlier
connection. Only what was answered with RETRY_LATER on this connection (`held`) does not stand in the way: the server knows.

Offsets tell a repeat as long as the log is the same. In another log, or one that was put back, everything behind the place that
was proven comes as new, and what the application has of it is known by its id: `answered`.

docs/protocol.md sections 10.4 (repeats), 10.5 (acknowledging), 11.1 (positions) and 11.6 (repeats that offsets do not tell).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from streampush.client.answered import Answered
from streampush.protocol.messages import Ack, BacklogEnd, Delivery, Position, Resume, Subscribed
from streampush.protocol.terms import LossReason, Outcome

MAX_LATER = 10_000
"""Messages of a channel that the application wants again: as many as a server may be configured to hold for a device."""

_GOES_BACK = (LossReason.EPOCH_CHANGED, LossReason.REWOUND, LossReason.ID_MISMATCH)
_CUMULATIVE = (Outcome.DELIVERED, Outcome.PROCESSED)


class Taken(Enum):
    """What a delivery is to the application."""

    NEW = "new"
    AGAIN = "again"  # it wanted this one later
    REPEAT = "repeat"  # it has this one, or is at it


@dataclass(slots=True)
class Item:
    """A delivery that waits or is in work. `held`: it takes room of the window.

    `undone`: the server's log was put back to an older state meanwhile, and has another message at this offset.
    """

    delivery: Delivery
    epoch: str
    held: bool
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Repositioned:
    """A mark: delivery goes on behind `answer.offset`.

    `back`: offsets behind there mean something else from now on. `proven`: up to there the log is the same, and nothing is lost.
    `exact`: the application asked for that place. `processed`: how far it was, as it had said by then, in the log before.
    """

    answer: Subscribed
    back: bool
    proven: bool = False
    exact: bool = False
    processed: int = 0


@dataclass(slots=True, eq=False)
class Channel:
    """State of one channel. `queue` is the inbox's: items and marks in the order of their arrival."""

    name: str
    position: Position  # to resume from: everything up to it is done
    reached: Position = field(default_factory=Position)  # done too, but for what is in `later`
    durable: bool = False
    epoch: str = ""  # of the log that the server delivers from
    seen: int = 0
    sent: int = 0  # highest offset that the server may be answered about
    proven: int = 0  # the position of the greeting
    processed: int = 0  # highest offset answered as PROCESSED
    later: dict[int, str] = field(default_factory=dict)  # offset to message id
    held: set[int] = field(default_factory=set)  # of `later`: the server of this connection knows
    again: set[int] = field(default_factory=set)  # of `later`: delivered again, waits or is in work
    answered: Answered = field(default_factory=Answered)
    pending_back: int = 0  # marks that go back, still in the queue: no acknowledgement until they are through
    before_back: dict[int, str] = field(default_factory=dict)  # `later` in the log that the first of these marks ends
    named: bool = False  # a Subscribed has come on this connection
    new_epoch: bool = False  # and a later one named another epoch: acknowledgements must say which they mean
    backlog_ended: bool = False
    current: Item | None = None
    queue: deque[Item | Repositioned | BacklogEnd] = field(default_factory=deque)
    acks: list[Ack] = field(default_factory=list)
    merges: bool = False  # the last of `acks` may be replaced by a later one of the same outcome
    owes: bool = False  # repeats have come: the server is to be told how far we are

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is in work."""
        return not self.queue and self.current is None

    @property
    def resume(self) -> Resume:
        """What Hello asks to take up again: behind the position, which is in front of what was put off. It is proven by its id, so
        a log that was put back to an older state is noticed."""
        return Resume(self.name, self.position)

    # --------------------------------------------------------------------------------------------------------- from the wire

    def take(self, delivery: Delivery) -> Taken:
        """What the delivery is, and remembers that it came."""
        offset, first = delivery.offset, delivery.offset > self.sent
        if first:
            if self.later:  # deliveries come in order: what was left out now is gone for good
                self._drop([other for other in self.later if self.sent < other < offset])
            self.sent = offset
        if offset > self.seen:
            self.seen = offset
            if delivery.recalls and self.later:
                self._drop([other for other, message_id in self.later.items() if message_id == delivery.recalls])
            return Taken.NEW
        if self._other(delivery, first=first):
            self._drop([offset])
            return Taken.NEW
        if offset in self.later and offset not in self.again:
            self.again.add(offset)
            return Taken.AGAIN
        self.owes = True
        return Taken.REPEAT

    def _other(self, delivery: Delivery, *, first: bool) -> bool:
        """Whether another message was at this offset before: the log was put back to an older state. The position of our greeting
        was proven, and all in front of it; what is behind is known by its id when it comes again. `first`: on this connection."""
        offset, message_id, current, reached = delivery.offset, delivery.message_id, self.current, self.reached
        if current is not None and current.epoch == self.epoch and current.delivery.offset == offset:
            current.undone = current.delivery.message_id != message_id
            known = not current.undone
        elif first and offset > self.proven:
            known = self.later.get(offset) == message_id or self.answered.outcome(message_id) is not None
        else:
            here = offset == reached.offset and reached.epoch == self.epoch
            known = not here or reached.last_message_id in ("", message_id)
        return not known and not self._waits(delivery)

    def _waits(self, delivery: Delivery) -> bool:
        """Whether it is in the queue: it has come before."""
        return any(isinstance(entry, Item) and entry.delivery.message_id == delivery.message_id for entry in self.queue)

    def begin(self, answer: Subscribed, *, exact: bool) -> Repositioned:
        """Delivery goes on where the answer says. `exact`: the application asked for that place, also if it lies behind."""
        proven = not self.named and self._proven(answer)
        if not self.named:
            if proven and self.position == self.reached and self.position.epoch == self.epoch:
                self._rename(answer.epoch)
            answer = self._doubted(answer)
        elif answer.epoch != self.epoch and answer.recovered and answer.offset >= self.sent:
            return self._goes_on(answer)
        other_log = bool(self.epoch) and self.epoch != answer.epoch
        back = other_log or answer.loss in _GOES_BACK or (exact and answer.offset < self.seen)
        mark = Repositioned(answer, back, proven, exact, self.processed)
        if back:
            self._go_back(answer.offset, proven=proven)
        else:  # the server is done with what lies in front, by whatever way
            self._drop([offset for offset in self.later if offset <= answer.offset])
        self.held.clear()
        self.new_epoch = self.new_epoch or (self.named and other_log)
        self.named = True
        self.durable = answer.durable
        self.seen = max(self.seen, answer.offset)
        self.sent = answer.offset
        self.proven = self.position.offset
        self.epoch = answer.epoch
        self.backlog_ended = False
        self.acks.clear()
        self.owes = self.processed > 0  # what was said on the last connection may not have arrived
        return mark

    def _go_back(self, offset: int, *, proven: bool) -> None:
        """What lies behind the offset is judged anew, when the queue has come to the mark."""
        if not self.pending_back:
            self.before_back = dict(self.later)
        self.pending_back += 1
        self.seen = offset
        self.processed = min(self.processed, offset) if proven else 0
        self._drop(list(self.later))

    def _goes_on(self, answer: Subscribed) -> Repositioned:
        """The log has another epoch from now on, and the same publications up to where we are: docs/protocol.md section 11.5."""
        self._rename(answer.epoch)
        self.new_epoch = True
        self.owes = self.processed > 0
        return Repositioned(answer, back=False)

    def _proven(self, answer: Subscribed) -> bool:
        """Whether our position of a former epoch was proven: nothing is lost. Where something was put off we have taken more than
        that; whether the log has the same there, the ids tell."""
        own = self.position
        whole = answer.recovered or answer.loss is LossReason.EXPIRED  # what expired lies behind it
        same = (answer.offset, answer.last_message_id) == (own.offset, own.last_message_id)
        return whole and same and own.epoch not in ("", answer.epoch) and (bool(own.last_message_id) or not own.offset)

    def _rename(self, epoch: str) -> None:
        """What was of the epoch before is of this one."""
        former, self.epoch = self.epoch, epoch
        if self.reached.epoch == former:
            self.reached = replace(self.reached, epoch=epoch)
        if self.position.epoch == former:
            self.position = replace(self.position, epoch=epoch)
        for number, entry in enumerate(self.queue):
            if isinstance(entry, Repositioned) and entry.answer.epoch == former:
                self.queue[number] = replace(entry, answer=replace(entry.answer, epoch=epoch))
        for item in (*self.queue, self.current):
            if isinstance(item, Item) and item.epoch == former:
                item.epoch = epoch

    def _doubted(self, answer: Subscribed) -> Subscribed:
        """The server may have had no position to prove: what we know ourselves must fit."""
        if answer.epoch == self.epoch and answer.loss not in _GOES_BACK:
            if answer.top_offset < self.seen:
                return replace(answer, loss=LossReason.REWOUND, recovered=False, lost_at_most=0)
            for known in (self.position, self.reached):
                ids = {known.last_message_id, answer.last_message_id} - {""}
                if answer.offset == known.offset and len(ids) > 1:
                    return replace(answer, loss=LossReason.ID_MISMATCH, recovered=False, lost_at_most=0)
        return answer

    def disconnected(self) -> None:
        """The connection is gone: what nobody works on is dropped, the server has it."""
        self.queue.clear()
        self.acks.clear()
        self.held.clear()
        if self.pending_back:  # nobody has come to the mark: the next greeting says it anew
            self.later, self.before_back = self.before_back, {}
        self.pending_back = self.sent = 0
        self.named = self.new_epoch = self.backlog_ended = self.owes = False
        current = self.current
        if current is not None:
            current.held = False
        if current is None or current.undone:
            self.again.clear()
            self.seen, self.epoch = self.reached.offset, self.reached.epoch
        else:
            self.again &= {current.delivery.offset}
            offset = current.delivery.offset
            self.seen = max(self.reached.offset, offset) if current.epoch == self.reached.epoch else offset
            self.epoch = current.epoch

    # --------------------------------------------------------------------------------------------------- from the application

    def finished(self, item: Item, outcome: Outcome) -> bool:
        """The application is through with the item for now; whether the position moved."""
        self.current = None
        delivery = item.delivery
        offset = delivery.offset
        later = self.before_back if self.pending_back else self.later
        if outcome is not Outcome.RETRY_LATER:
            self.answered.note(delivery.message_id, 0 if item.undone else offset, outcome)
        if item.undone:
            return False
        self.again.discard(offset)
        if outcome is Outcome.RETRY_LATER:
            later[offset] = delivery.message_id
        else:
            later.pop(offset, None)
        if item.epoch != self.reached.epoch or offset >= self.reached.offset:
            self.reached = Position(item.epoch, offset, delivery.message_id)
        if not self.pending_back and offset <= self.sent:  # else its repeat will be acknowledged
            self._answer(offset, outcome)
        if outcome is Outcome.PROCESSED and not self.pending_back:
            self.processed = max(self.processed, offset)
        return self._settle()

    def done(self, message: Delivery) -> None:
        """The application is done with what it had answered with DELIVERED, up to the message."""
        offset = self.answered.processed(message.message_id, message.offset)
        if not self.pending_back and self.processed < offset <= self.reached.offset:
            self.processed = offset
            self.owes = True

    def moved(self, mark: Repositioned) -> bool:
        """The mark is reached; whether the position moved."""
        answer = mark.answer
        if mark.back:
            self.pending_back -= 1
            self.before_back.clear()
            self.answered.other_log(mark.processed)
        if mark.exact:
            self.answered.forget()
        if mark.back or not self.reached.epoch or answer.offset > self.reached.offset:
            self.reached = Position(answer.epoch, answer.offset, answer.last_message_id)
        if mark.back:
            self.position = self.reached
            return True
        return self._settle()

    def caught_up(self) -> None:
        """The backlog is out, and all of it is done."""
        self.backlog_ended = True
        self.answered.caught_up()

    def take_acks(self) -> list[Ack]:
        """What is to be acknowledged now."""
        acks, self.acks = self.acks, []
        if self.owes and not self.pending_back and self.reached.epoch == self.epoch:
            self.owes = False
            acks += [ack for ack in self._catch_up(self.reached.offset) if ack not in acks]
        return acks

    # -------------------------------------------------------------------------------------------------------------- inside

    def _drop(self, offsets: list[int]) -> None:
        """These will not come again."""
        for offset in offsets:
            self.later.pop(offset, None)
            self.held.discard(offset)
            self.again.discard(offset)

    def _settle(self) -> bool:
        if self.later or self.pending_back:  # a mark that goes back says where the position is
            return False
        if self.sent >= self.reached.offset:  # else some of it comes again, and is known by its id
            self.answered.settle()
        if self.position == self.reached:
            return False
        self.position = self.reached
        return True

    def _answer(self, offset: int, outcome: Outcome) -> None:
        """Queues the acknowledgement, if the server may hear it now; else the repeat will be acknowledged."""
        if offset in self.held:
            self.acks.append(self._ack(offset, outcome))
            self.merges = False  # only an acknowledgement of exactly this offset counts
            if outcome is not Outcome.RETRY_LATER:
                self.held.discard(offset)
            return
        if all(other >= offset for other in self._unanswered()):
            if self.acks and self.merges and self.acks[-1].outcome is outcome:
                self.acks.pop()  # the new one says it too
            elif self.owes and outcome not in _CUMULATIVE and self.reached.epoch == self.epoch:
                self.owes = False  # it says nothing of those in front of it: they come first
                self.acks += [ack for ack in self._catch_up(offset - 1) if ack not in self.acks]
            self.acks.append(self._ack(offset, outcome))
            self.merges = outcome in _CUMULATIVE
            if outcome is Outcome.RETRY_LATER:
                self.held.add(offset)
        if self.reached.offset > offset:
            self.owes = True  # repeats that had to wait for this one

    def _unanswered(self) -> Iterator[int]:
        """Offsets that no cumulative acknowledgement may pass; the smallest one is among them."""
        if self.current is not None and self.current.delivery.offset not in self.held:
            yield self.current.delivery.offset
        for entry in self.queue:
            if isinstance(entry, Item) and entry.delivery.offset not in self.held:
                yield entry.delivery.offset
                if not self.again:
                    break  # the rest is behind it
        for offset in self.later:
            if offset <= self.sent and offset not in self.held:
                yield offset

    def _catch_up(self, up_to: int) -> Iterator[Ack]:
        """Tells the server how far we are, where it seems not to know."""
        reach = min([up_to, self.sent, *(offset - 1 for offset in self._unanswered())])
        for outcome, offset in ((Outcome.PROCESSED, min(self.processed, reach)), (Outcome.DELIVERED, reach)):
            while offset in self.held:
                offset -= 1  # naming it would answer it
            if offset > 0 and (outcome is Outcome.PROCESSED or offset > self.processed):
                yield self._ack(offset, outcome)

    def _ack(self, offset: int, outcome: Outcome) -> Ack:
        return Ack(self.name, offset, outcome, self.epoch if self.new_epoch else "")
