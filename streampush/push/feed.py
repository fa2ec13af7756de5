"""A feed: one channel of one attachment, and what its device has answered.

Theory of operation. Everything up to `done` is dealt with, but for what is *held*: publications that the device wants later.
The *head of line* is the publication behind `done`, if it is written; when it is not answered in time it is written again
(`pump`), and `attempts` counts how often it was delivered in vain. More than zero, they belong to the publication at `done` + 1
exactly. The stored cursor stands in front of the first that is held, else at `done`; it is told to the store when it changes.

docs/protocol.md sections 10.4 and 10.5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streampush.protocol.terms import LossReason, Milestone, Outcome
from streampush.push.channels import Kind, kind_of
from streampush.push.fanout import Piece
from streampush.push.redelivery import RETRY_LATER, Held
from streampush.push.values import CursorMove, FeedStatus, Mark, Publication, Subscription, Undeliverable

if TYPE_CHECKING:
    from streampush.push.delivery import Attachment

NEVER = float("inf")

_PLACE_IS_PROVEN = (LossReason.UNSPECIFIED, LossReason.EXPIRED)
"""With these delivery begins where the device was, or where it begins for the first time."""


class Feed:
    """One channel of one attachment. `sent`, `done` and `processed` are offsets; times are monotonic seconds.

    `live`: takes offers. `queued`: in the pump's queue, or being read for. Neither: it waits until less is held.
    """

    __slots__ = (
        "answerable",
        "attachment",
        "attempts",
        "backlog_open",
        "channel",
        "done",
        "due",
        "durable",
        "epoch",
        "epoch_changed",
        "former_epoch",
        "gone",
        "held",
        "jumped",
        "keeps_receipts",
        "live",
        "processed",
        "proven",
        "proven_id",
        "queued",
        "redeliveries",
        "sent",
        "since",
        "stored",
        "unacknowledged",
        "unheard",
        "urgent_offset",
    )

    def __init__(self, attachment: Attachment, subscription: Subscription) -> None:
        self.attachment = attachment
        self.channel = subscription.channel
        self.keeps_receipts = attachment.known and kind_of(subscription.channel)[0] is not Kind.TOPIC
        self.live = False
        self.queued = False
        self.durable = subscription.durable
        self.due = False  # the pump knows that something is to be written again
        self.since = 0.0  # the head of line waits since then
        self.redeliveries = 0
        self.answerable = 0  # up to here answers may be under way that came too late: delivery has begun anew in front of them
        self.epoch_changed = False  # on this connection: an acknowledgement must name it
        self.urgent_offset = subscription.urgent_offset
        self.unacknowledged: deque[tuple[int, int, int, int]] = deque()  # of each write: first and last offset, messages, bytes
        self.begin(subscription)

    def begin(self, subscription: Subscription) -> None:
        """Delivery begins behind the subscription's offset; what was before is of no interest any more."""
        self.epoch = subscription.epoch
        self.former_epoch = ""  # that this one goes on from: acknowledgements may still name it
        self.sent = self.done = self.proven = subscription.offset
        self.proven_id = subscription.message_id  # of the publication at `proven`, the last one that was sent or told
        self.jumped = subscription.offset - subscription.unsaved  # up to here the cursor moves without a receipt
        self.processed = subscription.processed
        self.attempts = subscription.attempts
        self.held: dict[int, Held] = {}  # in order of offset
        self.gone: deque[tuple[int, int]] = deque()  # left the log behind what is held: first and last offset, no receipts
        self.backlog_open = True  # BacklogEnd is owed
        self.stored = (-1, 0, 0)  # offset, processed and attempts as the store was told
        self.unheard = subscription.loss not in _PLACE_IS_PROVEN  # a loss was told, and nothing was answered since

    def restart(self, subscription: Subscription) -> None:
        """Delivery begins anew in the same log, in front of what was sent."""
        self.release_all()
        answerable, processed = max(self.answerable, self.sent), self.processed
        self.begin(subscription)
        self.answerable, self.processed = answerable, min(processed, self.done)

    def goes_on(self, epoch: str) -> None:
        """The log has another epoch from now on, and all that was sent is in it: what is behind `proven` is to be read again."""
        self.former_epoch, self.epoch = self.epoch, epoch
        self.sent = self.proven
        self.done = min(self.done, self.sent)
        self.processed = min(self.processed, self.done)
        self.stored = (-1, 0, 0)
        self.store_cursor()

    # -------------------------------------------------------------------------------------------------- from the fan-out

    def offer(self, piece: Piece) -> bool:
        """See fanout.Follower."""
        if not self.live:
            if piece.urgent:
                self.urgent_offset = max(self.urgent_offset, piece.urgent)
            return False
        if self.sent >= piece.last and self.epoch == piece.epoch:
            return False
        attachment = self.attachment
        size = len(piece.frames)
        if self.sent != piece.before or self.epoch != piece.epoch or not attachment.takes(piece.messages, size):
            self.urgent_offset = max(self.urgent_offset, piece.urgent)
            attachment.lags(self)
            return False
        self.wrote(piece.before + 1, piece.last, piece.messages, size, piece.at)
        self.proven, self.proven_id = piece.last, piece.last_id
        if self.keeps_receipts:
            self._mark(Milestone.WRITTEN, piece.before + 1, piece.last)
        attachment.write(piece.frames, piece.messages, size)
        return True

    def missed(self) -> None:
        """See fanout.Follower."""
        if self.live:
            self.attachment.lags(self)

    # ------------------------------------------------------------------------------------------------------- what is open

    def wrote(self, first: int, last: int, messages: int, size: int, now: float) -> None:
        """Publications go out now."""
        attachment = self.attachment
        if not self.unacknowledged:
            self.since = now
            if now + attachment.ack_timeout < attachment.deadline:
                attachment.arm(now + attachment.patience.after(self.attempts + 1))
        self.sent = last
        self.unacknowledged.append((first, last, messages, size))

    def wrote_page(self, publications: Sequence[Publication], size: int, now: float) -> None:
        """As `wrote`, with the receipts: of a topic's message for one more connection, of others for this device."""
        self.wrote(publications[0].offset, publications[-1].offset, len(publications), size, now)
        self.proven, self.proven_id = publications[-1].offset, publications[-1].message_id
        if not self.keeps_receipts:
            wanted = [publication.offset for publication in publications if publication.want_receipt]
            if wanted and self.attachment.known:
                self.attachment.around.written(self.channel, self.epoch, wanted[0], wanted[-1], 1)
            return
        first = last = publications[0].offset
        for publication in publications[1:]:
            if publication.offset > last + 1:  # what was left out was not written
                self._mark(Milestone.WRITTEN, first, last)
                first = publication.offset
            last = publication.offset
        self._mark(Milestone.WRITTEN, first, last)

    def _mark(self, milestone: Milestone, first: int, last: int) -> None:
        around = self.attachment.around
        name = self.attachment.principal.name
        around.cursors.mark(Mark(name, self.channel, self.epoch, first, last, milestone, around.wall_ms()))

    def release(self, offset: int) -> None:
        """Gives the room of everything up to `offset` back. The bytes of a write count until all of it is released."""
        messages = size = 0
        unacknowledged = self.unacknowledged
        while unacknowledged and unacknowledged[0][1] <= offset:
            _, _, count, length = unacknowledged.popleft()
            messages += count
            size += length
        if unacknowledged:
            first, last, count, length = unacknowledged[0]
            left = last - offset  # at most: some may have been left out
            if left < count:
                messages += count - left
                count = left
            unacknowledged[0] = max(first, offset + 1), last, count, length
        self.attachment.freed(messages, size)

    def release_all(self) -> None:
        """The feed ends, or its log is gone: nothing of it is open any more."""
        self.release(self.sent)
        for held in self.held.values():
            self._returned(held)

    def _returned(self, held: Held) -> None:
        if held.out:
            held.out = False
            self.attachment.freed(1, held.size)

    @property
    def full(self) -> bool:
        """So much is held that nothing new is delivered."""
        return len(self.held) >= self.attachment.patience.max_held

    # ------------------------------------------------------------------------------------------------------------ answers

    def answer(self, offset: int, outcome: Outcome) -> bool:
        """What the device says of a publication that was sent; False if that changes nothing."""
        if outcome is Outcome.RETRY_LATER:
            changed = self._retry_later(offset)
        else:
            changed = self._settle(offset, outcome)
        if changed:
            self.unheard = False
            self.store_cursor()
        return changed

    def has_answered(self, offset: int) -> bool:
        """Whether the device is done with a publication, for better or worse. What it wants later it is not done with."""
        return offset <= self.done and offset not in self.held

    def _settle(self, offset: int, outcome: Outcome) -> bool:
        changed = False
        held = self.held.pop(offset, None)
        if held is not None:
            self._returned(held)
            if outcome is Outcome.DELIVERED:
                self.processed = min(self.processed, offset - 1)  # those behind were done first
            changed = True
        if offset > self.done:
            self.reach(offset)
            changed = True
        if outcome is Outcome.PROCESSED and offset > self.processed:
            self.processed = offset
            changed = True
        elif outcome is Outcome.REJECTED and (changed or offset > self.processed):
            if self.attachment.known:
                self._mark(Milestone.REJECTED, offset, offset)
            changed = True
        return changed

    def reach(self, offset: int) -> None:
        """Everything up to `offset` is dealt with, or no longer there: the next one is the head of line."""
        self.release(offset)
        self.done = offset
        self.attempts = 0
        self.since = self.attachment.around.clock()

    def _retry_later(self, offset: int) -> bool:
        held = self.held.get(offset)
        if held is not None:
            if not held.out:
                return False
            self._returned(held)
            held.attempts += 1
        elif offset > self.done:
            attempts = self.attempts if offset == self.done + 1 else 0
            self.reach(offset)
            held = self.held[offset] = Held(attempts + 1, NEVER)
        else:
            return False
        if not self.given_up(offset, held.attempts, RETRY_LATER):
            held.due = self.attachment.around.clock() + self.attachment.patience.after(held.attempts)
            self.attachment.arm(held.due)
        return True

    def given_up(self, offset: int, attempts: int, reason: str) -> bool:
        """Makes a dead letter of what was delivered in vain too often, and lets the channel go on; False if it was not."""
        attachment = self.attachment
        if attempts < attachment.patience.max_attempts:
            return False
        held = self.held.pop(offset, None)
        if held is not None:
            self._returned(held)
        if offset > self.done:
            self.reach(offset)
        around, name = attachment.around, attachment.principal.name
        around.cursors.undeliverable(Undeliverable(name, self.channel, self.epoch, offset, attempts, reason, around.wall_ms()))
        around.metrics.dead_lettered("retry_later" if reason is RETRY_LATER else "timeout")
        return True

    # --------------------------------------------------------------------------------------------------------- the cursor

    def place(self) -> tuple[int, int, int]:
        """Where the stored cursor belongs: offset, processed, attempts."""
        if not self.held:
            return self.done, min(self.processed, self.done), self.attempts
        first = next(iter(self.held))
        return first - 1, min(self.processed, first - 1), self.held[first].attempts

    def store_cursor(self) -> None:
        """Tells the store, if the cursor is not where it knows it. Behind a loss it stays until the device answers: a device that
        has not heard of the loss must be told again."""
        place = self.place()
        if place != self.stored and self.attachment.known and not self.unheard:
            self.stored = place
            offset, processed, attempts = place
            while self.gone and self.gone[0][0] <= offset:
                first, last = self.gone.popleft()
                self._move(first - 1, min(processed, first - 1), 0)
                self.jumped = last
            self._move(offset, processed, attempts)

    def _move(self, offset: int, processed: int, attempts: int) -> None:
        around, name = self.attachment.around, self.attachment.principal.name
        around.cursors.move(CursorMove(name, self.channel, self.epoch, offset, processed, attempts, around.wall_ms(), self.jumped))
        self.jumped = 0

    def _is_gone(self, first: int, last: int) -> None:
        """These have left the log, and the cursor passes them without a receipt; but those that are held in front keep theirs."""
        if not self.held or next(iter(self.held)) > last:
            self.jumped = max(self.jumped, last)
        elif self.gone and (self.gone[-1][1] + 1 >= first or len(self.gone) >= self.attachment.patience.max_held):
            self.gone[-1] = self.gone[-1][0], max(self.gone[-1][1], last)
        else:
            self.gone.append((first, last))

    def pass_over(self, offset: int) -> None:
        """What is behind `done` up to `offset` is no longer in the log: the stored cursor need not remember it."""
        first = self.done + 1
        self.reach(offset)
        self._is_gone(first, offset)

    # ------------------------------------------------------------------------------------------------ time, and the end

    def first_due(self, now: float) -> int | None:
        """The offset that is to be written again first; for the head of line, the one behind `done`."""
        if self.unacknowledged and self.since + self.attachment.patience.after(self.attempts + 1) <= now:
            return self.done + 1
        return next((offset for offset, held in self.held.items() if held.due <= now), None)

    def next_due(self) -> float:
        """When something is to be written again, if nothing is answered before."""
        due = NEVER
        if self.unacknowledged:
            due = self.since + self.attachment.patience.after(self.attempts + 1)
        for held in self.held.values():
            due = min(due, held.due)
        return due

    def let_go(self, offset: int) -> None:
        """What was held is no longer in the log."""
        self._returned(self.held.pop(offset))
        self._is_gone(offset, offset)

    def interrupted(self) -> None:
        """The connection is gone: what was in front and not answered was delivered in vain."""
        if self.held:
            held = next(iter(self.held.values()))
            held.attempts += held.out
        elif self.unacknowledged:
            first = self.unacknowledged[0][0]
            if first > self.done + 1:
                self.pass_over(first - 1)  # left out when the log was read
            self.attempts += 1
        self.store_cursor()

    def status(self, top: int) -> FeedStatus:
        """For people who ask. `top`: the newest offset heard of."""
        offset, _, attempts = self.place()
        due, now = self.next_due(), self.attachment.around.clock()
        under_way = sum(write[2] for write in self.unacknowledged) + sum(held.out for held in self.held.values())
        return FeedStatus(
            self.channel,
            offset,
            self.sent,
            max(self.sent, top),
            under_way,
            attempts,
            len(self.held),
            self.redeliveries,
            self.live,
            self.durable,
            now - self.since if self.unacknowledged else 0.0,
            None if due == NEVER else max(0.0, due - now),
        )
