"""Delivery to one connected device: an attachment with a feed for each channel it follows.

Theory of operation. A feed is *live* or *lagging*. A live feed takes what the fan-out offers if it continues what was sent and
the connection has room. Otherwise it lags: it takes no offers, and the attachment's pump reads the log from where it stopped,
a page at a time, as room comes back by acknowledgements (receive window) and by the socket (send buffer). When the log holds
nothing newer than what was offered, the feed is live again. So nothing is queued per connection, and there is neither a gap
nor a repeat: a subscription simply begins as a feed that lags.

Room is what the device has announced: messages and bytes of delivery frames not yet acknowledged. A message larger than the
whole window is sent when nothing else is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.protocol.terms import AppState, LossReason, Outcome
from streampush.push.fanout import FanOut
from streampush.push.ports import Encoder, Link, PushMetrics, Scheduler, Spawner, Store
from streampush.push.values import ChannelCursor, ConnectionInfo, CursorMove, Page, Principal, Subscription

_PLACE_IS_PROVEN = (LossReason.UNSPECIFIED, LossReason.EXPIRED)
"""With these delivery begins where the device was, or where it begins for the first time."""


@dataclass(frozen=True, slots=True)
class DeliverySurroundings:
    """What all attachments of a node share. `page_messages`, `page_bytes`: the most read from the log at a time."""

    store: Store
    fanout: FanOut
    encode: Encoder
    metrics: PushMetrics
    call_soon: Scheduler
    spawn: Spawner
    move_cursor: Callable[[CursorMove], None]
    retry_later: Callable[[Callable[[], None]], object]
    page_messages: int
    page_bytes: int
    wall_ms: Callable[[], int]
    follows: Callable[[str, str, str, bool], None]


class Feed:
    """One channel of one attachment. `sent` and `acknowledged` are offsets."""

    __slots__ = ("acknowledged", "attachment", "backlog_open", "channel", "epoch", "held", "live", "sent", "unacknowledged")

    def __init__(self, attachment: Attachment, subscription: Subscription) -> None:
        self.attachment = attachment
        self.channel = subscription.channel
        self.epoch = subscription.epoch
        self.sent = subscription.offset
        self.acknowledged = subscription.offset
        self.live = False
        self.backlog_open = True  # BacklogEnd is still owed
        self.held = 0  # the first offset that the application wants again; 0: none
        self.unacknowledged: deque[tuple[int, int, int]] = deque()  # (last offset, messages, bytes) of each write

    def offer(self, epoch: str, before: int, last: int, frames: bytes, messages: int) -> bool:
        """See fanout.Follower."""
        if not self.live or (self.sent >= last and self.epoch == epoch):
            return False
        attachment = self.attachment
        size = len(frames)
        if self.sent != before or self.epoch != epoch or not attachment.takes(messages, size):
            attachment.lags(self)
            return False
        self.sent = last
        self.unacknowledged.append((last, messages, size))
        attachment.write(frames, messages, size)
        return True

    def missed(self) -> None:
        """See fanout.Follower."""
        if self.live:
            self.attachment.lags(self)

    def release(self, offset: int) -> tuple[int, int]:
        """Forgets what is acknowledged; gives its messages and bytes. The bytes of a write count until all of it is."""
        messages = size = 0
        unacknowledged = self.unacknowledged
        while unacknowledged and unacknowledged[0][0] <= offset:
            _, count, length = unacknowledged.popleft()
            messages += count
            size += length
        if unacknowledged:
            last, count, length = unacknowledged[0]
            left = last - offset  # at most: some may have expired and not been sent
            if left < count:
                messages += count - left
                unacknowledged[0] = last, left, length
        return messages, size


class Attachment:
    """A connected device. Made by PushService.attach; ends with `detach`."""

    __slots__ = (
        "_around",
        "_lagging",
        "_link",
        "_look_again",
        "_open_bytes",
        "_open_messages",
        "_pumping",
        "_retrying",
        "_window_bytes",
        "_window_messages",
        "attached",
        "feeds",
        "info",
        "principal",
        "round_trip",
        "state",
    )

    def __init__(self, principal: Principal, link: Link, info: ConnectionInfo, around: DeliverySurroundings) -> None:
        self.principal = principal
        self.info = info
        self.state: AppState = info.state
        self.round_trip: float | None = None  # seconds, of the last heartbeat
        self.attached = True
        self.feeds: dict[str, Feed] = {}
        self._link = link
        self._around = around
        self._window_messages = info.window_messages
        self._window_bytes = info.window_bytes
        self._open_messages = 0
        self._open_bytes = 0
        self._lagging: deque[Feed] = deque()
        self._pumping = False
        self._look_again = False
        self._retrying = False

    # -------------------------------------------------------------------------------------------------------- following

    def follow(self, subscription: Subscription) -> None:
        """Delivery on a channel begins behind the subscription's offset. Subscribing again begins anew.

        The place is stored as the device's cursor, unless that is further already: what is published while the device is away
        is then found although it never acknowledged anything. Behind a loss it is not stored: the device may never hear of the
        loss on this connection, and it has to be named again until an acknowledgement shows that it was heard. Does nothing
        when the connection is gone.
        """
        if not self.attached:
            return
        channel, epoch = subscription.channel, subscription.epoch
        self.unfollow(channel)
        feed = Feed(self, subscription)
        self.feeds[channel] = feed
        self._around.fanout.follow(channel, feed, epoch, subscription.top_offset)
        if subscription.loss in _PLACE_IS_PROVEN:
            name, offset, at_ms = self.principal.name, subscription.offset, self._around.wall_ms()
            processed, attempts = subscription.processed, subscription.attempts
            begun = offset - subscription.unsaved
            self._around.move_cursor(CursorMove(name, channel, epoch, offset, processed, attempts, at_ms, begun))
        self._around.follows(self.principal.name, self.info.session_id, channel, True)
        self._lagging.append(feed)
        self.wake()

    def follow_unasked(self, subscription: Subscription) -> None:
        """As `follow`, for a channel that the device did not ask for: it is told first."""
        if self.attached:
            self._link.repositioned(subscription)
            self.follow(subscription)

    def unfollow(self, channel: str) -> bool:
        """Ends delivery on a channel; False if it was not followed."""
        feed = self.feeds.pop(channel, None)
        if feed is None:
            return False
        self._around.fanout.unfollow(channel, feed)
        self._around.follows(self.principal.name, self.info.session_id, channel, False)
        if feed in self._lagging:
            self._lagging.remove(feed)
        feed.live = False
        for _, messages, size in feed.unacknowledged:
            self._open_messages -= messages
            self._open_bytes -= size
        feed.unacknowledged.clear()
        if self._lagging:  # other channels may use the room, and no acknowledgement will tell them
            self.wake()
        return True

    def detach(self) -> None:
        """The connection is gone: nothing more is written, no reference from the fan-out is left."""
        self.attached = False
        self._lagging.clear()
        for channel in list(self.feeds):
            self.unfollow(channel)

    def close(self, code: Code, detail: str) -> None:
        """Closes the device's connection for a reason of the application's."""
        self._link.close(code, detail)

    def cursors(self) -> tuple[ChannelCursor, ...]:
        """How far the device is on each channel it follows."""
        return tuple(
            ChannelCursor(feed.channel, feed.acknowledged, feed.sent, max(feed.sent, self._top(feed)))
            for feed in self.feeds.values()
        )

    def _top(self, feed: Feed) -> int:
        """The newest offset heard of for the feed."""
        return self._around.fanout.top(feed.channel, feed.epoch)

    def _follows(self, feed: Feed) -> bool:
        """Whether the feed may still be written to: calling out, or waiting, may have ended it."""
        return self.feeds.get(feed.channel) is feed

    # -------------------------------------------------------------------------------------------------------------- room

    def takes(self, messages: int, size: int) -> bool:
        """Whether window and send buffer have room for so many messages and bytes now.

        A single message is taken whatever its size when nothing else is open, or it could never be sent.
        """
        if self._open_messages + messages > self._window_messages or not self._link.has_room():
            return False
        return self._open_bytes + size <= self._window_bytes or (messages == 1 and not self._open_messages)

    def write(self, frames: bytes, messages: int, size: int) -> None:
        self._open_messages += messages
        self._open_bytes += size
        try:
            self._link.deliver(frames, messages)
        except Exception:
            # How much of it went out is not known, so nothing may follow it. The device resumes on its next connection.
            self.detach()
            self.close(Code.CONNECTION_TIMED_OUT, "delivery failed")
            raise

    def credit(self, messages: int, size: int) -> None:
        """Replaces the receive window; 0 leaves that value as it is."""
        self._window_messages = messages or self._window_messages
        self._window_bytes = size or self._window_bytes
        self.wake()

    def room_again(self) -> None:
        """The send buffer fell below its mark."""
        self.wake()

    def acknowledge(self, channel: str, offset: int, outcome: Outcome) -> None:
        """The device is done with everything of the channel below `offset`, and with `offset` as the outcome says.

        RETRY_LATER keeps the stored cursor in front of `offset` until the device connects again. Raises Refused:
        NOT_SUBSCRIBED, or POSITION_LOST for an offset that was never sent.
        """
        feed = self.feeds.get(channel)
        if feed is None:
            raise Refused(Code.NOT_SUBSCRIBED, "acknowledgement of a channel that is not followed", channel=channel)
        if offset > feed.sent:
            raise Refused(Code.POSITION_LOST, f"offset {offset} was never sent, the newest is {feed.sent}", channel=channel)
        self._release(feed, offset)
        if outcome is Outcome.RETRY_LATER and offset > feed.acknowledged and not feed.held:
            feed.held = offset
        reached = min(offset, feed.held - 1) if feed.held else offset
        if reached > feed.acknowledged:
            feed.acknowledged = reached
            at_ms = self._around.wall_ms()
            self._around.move_cursor(CursorMove(self.principal.name, channel, feed.epoch, reached, at_ms=at_ms))
        self._around.metrics.acknowledged(outcome.name.lower())
        if self._lagging:
            self.wake()

    def _release(self, feed: Feed, offset: int) -> None:
        messages, size = feed.release(offset)
        self._open_messages -= messages
        self._open_bytes -= size

    # ----------------------------------------------------------------------------------------------------- reading the log

    def lags(self, feed: Feed) -> None:
        """The feed could not take an offer: it reads the log when there is room."""
        feed.live = False
        self._lagging.append(feed)
        self.wake()

    def wake(self) -> None:
        """Lets the pump look again, at the end of this turn."""
        if self._pumping:
            self._look_again = True
        elif self._lagging and self.attached:
            self._pumping = True
            self._around.call_soon(self._start_pump)

    def _start_pump(self) -> None:
        self._around.spawn(self._pump())

    def _retry(self) -> None:
        self._retrying = False
        self.wake()

    async def _pump(self) -> None:
        """Reads a page for each lagging feed in turn while there is room, then gives the reactor its turn."""
        self._look_again = False
        try:
            for _ in range(len(self._lagging)):
                if not self.attached or not self._lagging or not self.takes(1, 0):
                    break
                if await self._read_for(self._lagging.popleft()):
                    self._look_again = True
        except StoreUnavailable:
            self._try_again_later()
        except Exception:
            self._try_again_later()  # a fault of ours must not end delivery for good
            raise
        finally:
            self._pumping = False
        if self._look_again:
            self.wake()

    def _try_again_later(self) -> None:
        self._look_again = False
        if self.attached and not self._retrying:
            self._retrying = True
            self._around.retry_later(self._retry)

    async def _read_for(self, feed: Feed) -> bool:
        """One page for a feed that was taken off the lagging ones, and goes back there unless it went live."""
        try:
            return await self._advance(feed)
        finally:
            if not feed.live and self._follows(feed):
                self._lagging.append(feed)

    async def _advance(self, feed: Feed) -> bool:
        """One page of the log for one feed; whether there may be more room and more to read."""
        around = self._around
        messages = max(1, min(self._window_messages - self._open_messages, around.page_messages))
        size = max(1, min(self._window_bytes - self._open_bytes, around.page_bytes))
        heard = self._top(feed)
        page = await around.store.read(feed.channel, feed.sent, messages, size)
        if not self._follows(feed):
            return False
        if not self._continues(feed, page):
            return True
        if not self._write_page(feed, page):
            return False
        feed.sent = max(feed.sent, page.next_offset)
        if heard > page.head.top_offset:  # a hint of something that is not there
            around.fanout.correct(feed.channel, feed.epoch, heard, page.head.top_offset)
        if feed.sent < max(self._top(feed), page.head.top_offset):
            return True
        feed.live = True
        if feed.backlog_open:
            feed.backlog_open = False
            self._link.backlog_end(feed.channel, feed.sent)
        return False

    def _write_page(self, feed: Feed, page: Page) -> bool:
        """Writes the page's publications, or as many as there is room for; False if some are left or the feed has ended."""
        if not self._follows(feed):
            return False
        encode = self._around.encode
        frames = [encode(publication) for publication in page.publications]
        if not frames:
            return True
        joined = b"".join(frames)
        if self.takes(len(frames), len(joined)):
            self._write_read(feed, page.publications[-1].offset, joined, len(frames))
            return self._follows(feed)
        for publication, frame in zip(page.publications, frames, strict=True):
            if not self._follows(feed) or not self.takes(1, len(frame)):
                return False
            self._write_read(feed, publication.offset, frame, 1)
        return self._follows(feed)

    def _write_read(self, feed: Feed, last: int, frames: bytes, messages: int) -> None:
        feed.sent = last
        feed.unacknowledged.append((last, messages, len(frames)))
        self.write(frames, messages, len(frames))
        self._around.metrics.read_from_log(messages)

    def _continues(self, feed: Feed, page: Page) -> bool:
        """Whether the page goes on where the feed is. If not, the loss is named and the page is to be read anew."""
        head = page.head
        if head.epoch != feed.epoch or head.top_offset < feed.sent:
            reason = LossReason.EPOCH_CHANGED if head.epoch != feed.epoch else LossReason.REWOUND
            self._around.fanout.correct(feed.channel, head.epoch, self._top(feed), head.top_offset)
            self._reposition(feed, page, reason, 0)
            return False
        if head.floor_offset > feed.sent:
            self._reposition(feed, page, LossReason.TRIMMED, head.floor_offset - feed.sent)
        return True

    def _reposition(self, feed: Feed, page: Page, reason: LossReason, lost: int) -> None:
        head = page.head
        if reason is not LossReason.TRIMMED:  # offsets of the old log mean nothing in the new one
            self._release(feed, feed.sent)
            feed.held = 0
            feed.acknowledged = head.floor_offset
        feed.epoch = head.epoch
        feed.sent = head.floor_offset
        feed.backlog_open = True  # the device is told when it has caught up again
        self._around.metrics.positions_lost(reason.name.lower())
        subscription = Subscription(feed.channel, head.epoch, feed.sent, head.top_offset, False, reason, lost, head.floor_id)
        self._link.repositioned(subscription)
