"""The pump of one attachment: reads the log for feeds that lag, and for what is to be written again.

Theory of operation. The pump has work when a feed lags, or something is due for redelivery, and there is room. Then it asks for
a turn at the node's `ReadQueue`; in its turn it reads one page of one feed, writes what there is room for, and asks again. Feeds
take turns; one with a publication of high priority in front of it goes first. A feed for which there is no room is put back; when
that is so for all of them the pump rests until an acknowledgement, a credit or the socket gives room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from streampush.errors import StoreUnavailable
from streampush.protocol.terms import LossReason
from streampush.push.feed import Feed
from streampush.push.recovery import departed, kept_place
from streampush.push.redelivery import NO_ANSWER, Held
from streampush.push.values import Page, Position, Publication, Subscription, Want

if TYPE_CHECKING:
    from streampush.push.delivery import Attachment

URGENT_RUN = 4
"""Pages in a row for feeds with something urgent, before another one has its turn."""


class Step(Enum):
    """What came of a turn: it may go on, the feed has what there is, or there is no room for it."""

    MORE = "more"
    DONE = "done"
    NO_ROOM = "no room"


class Pump:
    """See above. One for each attachment."""

    __slots__ = ("_attachment", "_due", "_lagging", "_look_again", "_retrying", "_stuck", "_urgent_run", "_waiting")

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._lagging: deque[Feed] = deque()
        self._due: deque[Feed] = deque()
        self._waiting = False  # for a turn, or for the store
        self._look_again = False
        self._retrying = False
        self._stuck = 0  # feeds in a row for which there was no room
        self._urgent_run = 0

    def __len__(self) -> int:
        """Feeds that wait to be read for."""
        return len(self._lagging)

    # ------------------------------------------------------------------------------------------------------------- queues

    def lags(self, feed: Feed) -> None:
        """The feed reads the log from where it is, unless it waits until less is held."""
        feed.live = False
        if not feed.queued and not feed.full:
            feed.queued = True
            self._lagging.append(feed)
        self.wake()

    def due(self, feed: Feed) -> None:
        """Something of the feed is to be written again."""
        if not feed.due:
            feed.due = True
            self._due.append(feed)

    def drop(self, feed: Feed) -> None:
        """The feed has ended."""
        for queue in (self._lagging, self._due):
            if feed in queue:
                queue.remove(feed)
        feed.live = False
        self.wake()  # other channels may use the room, and no acknowledgement will tell them

    def clear(self) -> None:
        """All feeds end."""
        self._lagging.clear()
        self._due.clear()

    # -------------------------------------------------------------------------------------------------------------- turns

    def wake(self) -> None:
        """There may be room, or work: the pump looks again."""
        self._stuck = 0
        self._ask()

    def _ask(self) -> None:
        if self._waiting:
            self._look_again = True
        elif (self._lagging or self._due) and self._attachment.attached and self._attachment.begun:
            self._waiting = True
            self._attachment.around.reads.ask(self)

    async def read_on(self) -> None:
        """See reading.Reader."""
        self._look_again = False
        try:
            step = await self._step()
            self._stuck = self._stuck + 1 if step is Step.NO_ROOM else 0
            if self._stuck < len(self._lagging) + len(self._due):
                self._look_again = True
        except StoreUnavailable:
            self._try_again_later()
        except Exception:
            self._try_again_later()  # a fault of ours must not end delivery for good
            raise
        finally:
            self._waiting = False
        if self._look_again:
            self._ask()

    async def _step(self) -> Step:
        """One page for one feed: of what is due first, unless there is no room for any of that."""
        attachment = self._attachment
        if not attachment.attached or not attachment.has_room():
            self._stuck = len(self._lagging) + len(self._due)
            return Step.NO_ROOM
        if self._stuck < len(self._due):
            return await self._repeat_for(self._due.popleft())
        if not self._lagging or not attachment.takes(1, 0):
            self._stuck = len(self._lagging) + len(self._due)
            return Step.NO_ROOM
        return await self._read_for(self._next_lagging())

    def _next_lagging(self) -> Feed:
        """The one that waits for longest; before it, mostly, one with something urgent in front of it."""
        if self._urgent_run < URGENT_RUN:
            for feed in self._lagging:
                if feed.urgent_offset > feed.sent:
                    self._urgent_run += 1
                    self._lagging.remove(feed)
                    return feed
        self._urgent_run = 0
        return self._lagging.popleft()

    def _try_again_later(self) -> None:
        self._look_again = False
        if self._attachment.attached and not self._retrying:
            self._retrying = True
            self._attachment.around.retry_later(self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self.wake()

    # ------------------------------------------------------------------------------------------------------ the lagging ones

    async def _read_for(self, feed: Feed) -> Step:
        """One page for a feed that was taken off the lagging ones, and goes back there unless it went live."""
        try:
            return Step.DONE if feed.full else await self._advance(feed)
        finally:
            feed.queued = False
            if self._attachment.follows(feed):
                if feed.live:
                    feed.live = not feed.full
                elif not feed.full:
                    feed.queued = True
                    self._lagging.append(feed)

    async def _advance(self, feed: Feed) -> Step:
        attachment = self._attachment
        around = attachment.around
        heard = around.fanout.top(feed.channel, feed.epoch)
        sent = feed.sent
        page = await around.store.read(feed.channel, sent, *attachment.page_room())
        if not attachment.follows(feed):
            return Step.DONE
        if page.head.epoch != feed.epoch and await self._goes_on(feed):
            return Step.MORE
        if not attachment.follows(feed) or not self._continues(feed, page, sent):
            return Step.MORE
        publications = self._without_dead(feed, page)
        if not self._write_page(feed, publications):
            return Step.NO_ROOM
        feed.sent = max(feed.sent, page.next_offset)
        feed.urgent_offset = max(feed.urgent_offset, page.head.urgent_offset)
        if heard > page.head.top_offset:  # a hint of something that is not there
            around.fanout.correct(feed.channel, feed.epoch, heard, page.head.top_offset)
        if feed.sent < max(around.fanout.top(feed.channel, feed.epoch), page.head.top_offset):
            return Step.MORE
        feed.live = True
        if feed.backlog_open:
            feed.backlog_open = False
            attachment.link.backlog_end(feed.channel, feed.sent)
        return Step.DONE

    def _without_dead(self, feed: Feed, page: Page) -> Sequence[Publication]:
        """What of the page is to be written: the first may have been delivered in vain too often on other connections."""
        publications = page.publications
        if not feed.attempts or feed.sent > feed.done or page.next_offset <= feed.done:
            return publications
        if not publications or publications[0].offset != feed.done + 1:
            feed.attempts = 0  # it is there no longer
        elif feed.given_up(publications[0].offset, feed.attempts, NO_ANSWER):
            feed.sent = feed.done
            feed.store_cursor()
            return publications[1:]
        return publications

    def _write_page(self, feed: Feed, publications: Sequence[Publication]) -> bool:
        """Writes them, or as many as there is room for; False if some are left or the feed has ended."""
        attachment = self._attachment
        if not attachment.follows(feed):
            return False
        encode = attachment.around.encode
        frames = [encode(publication) for publication in publications]
        if not frames:
            return True
        joined = b"".join(frames)
        if attachment.takes(len(frames), len(joined)):
            self._write(feed, publications, joined)
            return attachment.follows(feed)
        for publication, frame in zip(publications, frames, strict=True):
            if not attachment.follows(feed) or not attachment.takes(1, len(frame)):
                return False
            self._write(feed, (publication,), frame)
        return attachment.follows(feed)

    def _write(self, feed: Feed, publications: Sequence[Publication], frames: bytes) -> None:
        attachment = self._attachment
        feed.wrote_page(publications, len(frames), attachment.around.clock())
        attachment.write(frames, len(publications), len(frames))
        attachment.around.metrics.read_from_log(len(publications))

    # ---------------------------------------------------------------------------------------------------------- losses

    def _continues(self, feed: Feed, page: Page, sent: int) -> bool:
        """Whether the page goes on where the feed is. If not, the loss is named and the page is to be read anew."""
        if self._lost(feed, page, sent):
            return False
        head = page.head
        if head.floor_offset > feed.sent:
            lost = head.floor_offset - feed.sent + len(feed.held)  # what is held was sent, so it has left the log, too
            for offset in list(feed.held):
                feed.let_go(offset)
            feed.sent = head.floor_offset
            feed.backlog_open = True  # the device is told when it has caught up again
            feed.unheard = True
            self._tell_loss(feed, page, LossReason.TRIMMED, lost)
        return True

    async def _goes_on(self, feed: Feed) -> bool:
        """After a failover of the store, or its start from what it had kept: whether the log is what is left of the feed's. If all
        that was delivered is in it, the feed goes on; else the device is told, and gets what the store knows it not to have."""
        attachment = self._attachment
        channel, epoch, position = feed.channel, feed.epoch, Position(feed.epoch, feed.proven, feed.proven_id)
        (survey,) = await attachment.around.store.survey(attachment.principal.name, [Want(channel, (position.offset,))])
        if not attachment.follows(feed) or feed.epoch != epoch:
            return True  # something else has become of it
        if epoch not in survey.former:
            return False
        head, reason = survey.head, departed(survey, position)
        fanout = attachment.around.fanout
        fanout.correct(channel, head.epoch, fanout.top(channel, head.epoch), head.top_offset)
        if reason:
            self._begin_anew(feed, Subscription(channel, head.epoch, kept_place(survey), head.top_offset, loss=reason))
        else:
            feed.goes_on(head.epoch)
            place = head.epoch, position.offset, head.top_offset
            attachment.link.repositioned(Subscription(channel, *place, recovered=True, message_id=position.message_id))
        return True

    def _begin_anew(self, feed: Feed, found: Subscription) -> None:
        """Delivery begins behind another publication than the last one that was sent, and the device is told why."""
        feed.release_all()  # offsets of the old log mean nothing in the new one
        feed.epoch_changed = feed.epoch_changed or found.epoch != feed.epoch
        feed.begin(found)
        self._attachment.around.metrics.positions_lost(found.loss.name.lower())
        self._attachment.link.repositioned(found)

    def _lost(self, feed: Feed, page: Page, sent: int) -> bool:
        """Whether the log that the feed was reading is gone; then it begins anew at the front of the one that is there.

        `sent`: how far the feed was when the page was asked for. A live one has got further since, by publications that the page
        cannot know of.
        """
        head = page.head
        if head.epoch == feed.epoch and head.top_offset >= sent:
            return False
        fanout = self._attachment.around.fanout
        fanout.correct(feed.channel, head.epoch, fanout.top(feed.channel, feed.epoch), head.top_offset)
        reason = LossReason.EPOCH_CHANGED if head.epoch != feed.epoch else LossReason.REWOUND
        place = head.epoch, head.floor_offset, head.top_offset
        self._begin_anew(feed, Subscription(feed.channel, *place, loss=reason, message_id=head.floor_id))
        return True

    def _lost_what_is_held(self, feed: Feed, page: Page) -> None:
        """What the device wants later has left the log: it is told so, and delivery begins anew at the oldest that is there."""
        floor = page.head.floor_offset
        lost = sum(offset <= floor for offset in feed.held) + max(0, floor - feed.done)
        feed.restart(Subscription(feed.channel, page.head.epoch, floor, page.head.top_offset, loss=LossReason.TRIMMED))
        self._tell_loss(feed, page, LossReason.TRIMMED, lost)
        self.lags(feed)

    def _tell_loss(self, feed: Feed, page: Page, reason: LossReason, lost: int) -> None:
        head = page.head
        attachment = self._attachment
        attachment.around.metrics.positions_lost(reason.name.lower())
        attachment.link.repositioned(
            Subscription(feed.channel, head.epoch, feed.sent, head.top_offset, False, reason, lost, head.floor_id)
        )

    # ------------------------------------------------------------------------------------------------------ redelivery

    async def _repeat_for(self, feed: Feed) -> Step:
        """One publication of a feed that was taken off the due ones, and goes back there while more is due."""
        attachment = self._attachment
        try:
            return await self._repeat(feed, attachment.around.clock())
        finally:
            feed.due = False
            if attachment.follows(feed):
                due = feed.next_due()
                if due <= attachment.around.clock():
                    self.due(feed)
                else:
                    attachment.arm(due)
                attachment.unpark(feed)

    async def _repeat(self, feed: Feed, now: float) -> Step:
        offset = feed.first_due(now)
        if offset is None:
            return Step.DONE
        held = feed.held.get(offset)
        attachment = self._attachment
        if held is not None and not held.out and not attachment.takes(1, held.size):
            return Step.NO_ROOM
        sent = feed.sent
        page = await attachment.around.store.read(feed.channel, offset - 1, 1, 1)
        if not attachment.follows(feed) or feed.first_due(now) != offset or feed.held.get(offset) is not held:
            return Step.MORE  # it was answered meanwhile
        other_log = page.head.epoch != feed.epoch and await self._goes_on(feed)
        if not attachment.follows(feed):
            return Step.DONE
        if other_log or self._lost(feed, page, sent):
            self.lags(feed)
            return Step.MORE
        if held is not None and page.head.floor_offset >= offset:
            self._lost_what_is_held(feed, page)
            return Step.MORE
        if page.head.floor_offset > feed.done:
            feed.unheard = True  # what was not answered has left the log: a loss, if the connection ends now
        publication = page.publications[0] if page.publications else None
        if held is not None:
            return self._repeat_held(feed, offset, held, publication, now)
        found = page.next_offset if publication is None else publication.offset
        if publication is None or found > feed.sent:
            feed.pass_over(min(found, feed.sent))
            return Step.MORE
        return self._repeat_head(feed, publication, now)

    def _repeat_head(self, feed: Feed, publication: Publication, now: float) -> Step:
        """It was written, and not answered in time. Its room in the window is still taken."""
        offset = publication.offset
        if offset > feed.done + 1:
            written = feed.unacknowledged[0][0] < offset
            feed.pass_over(offset - 1)
            if written:  # another one was in front, and is no longer to be delivered: this one's time begins
                return Step.MORE
        attempts = feed.attempts + 1
        if not feed.given_up(offset, attempts, NO_ANSWER):
            frame = self._attachment.around.encode(publication)
            feed.attempts, feed.since = attempts, now
            self._again(feed, frame, "timeout")
        feed.store_cursor()
        return Step.MORE

    def _repeat_held(self, feed: Feed, offset: int, held: Held, publication: Publication | None, now: float) -> Step:
        """It is wanted again, and takes room in the window anew."""
        attachment = self._attachment
        if publication is None or publication.offset != offset:
            feed.let_go(offset)
        elif not held.out or not feed.given_up(offset, held.attempts + 1, NO_ANSWER):
            frame = attachment.around.encode(publication)
            reason = "timeout" if held.out else "retry_later"
            if held.out:
                held.attempts += 1
            elif not attachment.takes(1, len(frame)):
                held.size = len(frame)
                return Step.NO_ROOM
            else:
                held.size, held.out = len(frame), True
                attachment.take(1, held.size)
            held.due = now + attachment.patience.after(held.attempts + 1)
            self._again(feed, frame, reason)
        feed.store_cursor()
        return Step.MORE

    def _again(self, feed: Feed, frame: bytes, reason: str) -> None:
        feed.redeliveries += 1
        self._attachment.around.metrics.redelivered(reason)
        self._attachment.repeat(frame)
