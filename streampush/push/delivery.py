"""Delivery to one connected device: an attachment with a feed for each channel it follows.

Theory of operation. A feed is *live* or *lagging*. A live feed takes what the fan-out offers if it continues what was sent and
the connection has room. Otherwise it lags: it takes no offers, and the attachment's pump reads the log from where it stopped,
a page at a time, as room comes back by acknowledgements (receive window) and by the socket (send buffer). When the log holds
nothing newer than what was offered, the feed is live again. So nothing is queued per connection, and there is neither a gap
nor a repeat: a subscription simply begins as a feed that lags.

Room is what the device has announced: messages and bytes of delivery frames not yet acknowledged. A message larger than the
whole window is sent when nothing else is open.

What is not acknowledged in time is written again (`feed`, `pump`). Deadlines are not timers: the link is told when `tick` is to
be called, once for each `ack_timeout` and not for each write; a deadline that has moved meanwhile is found out then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import AppState, Outcome
from streampush.push.cursors import CursorWriter
from streampush.push.fanout import FanOut
from streampush.push.feed import NEVER, Feed
from streampush.push.heartbeats import Heartbeats
from streampush.push.ports import Encoder, Link, PushMetrics
from streampush.push.pump import Pump
from streampush.push.reading import ReadQueue
from streampush.push.redelivery import Patience
from streampush.push.store_ports import Store
from streampush.push.values import ChannelCursor, ConnectionInfo, FeedStatus, Principal, Subscription, SubscriptionRefused

TICK_GRAIN = 0.1
"""Of `ack_timeout`: how much later than its time a delivery may be repeated, so that many channels are looked at together."""

SERVERS_OWN = frozenset({Code.DRAINING, Code.MAXIMUM_AGE, Code.OVERLOADED})
"""Reasons of the server's own to end a connection: what was under way is not held against the device."""

_NAMES = {outcome: outcome.name.lower() for outcome in Outcome}
"""For the metric."""


@dataclass(frozen=True, slots=True)
class DeliverySurroundings:
    """What all attachments of a node share. `clock` gives monotonic seconds, `wall_ms` Unix milliseconds.

    `written` is told of receipts of topics, see FanOut. `page_messages`, `page_bytes`: the most read from the log at a time.
    `follows` is told, of a device and session, which channel it follows, or no longer.
    """

    store: Store
    fanout: FanOut
    reads: ReadQueue
    cursors: CursorWriter
    encode: Encoder
    metrics: PushMetrics
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    retry_later: Callable[[Callable[[], None]], object]
    written: Callable[[str, str, int, int, int], None]
    patience: Patience
    page_messages: int
    page_bytes: int
    follows: Callable[[str, str, str, bool], None]


class Attachment:
    """A connected device. Made by PushService.attach; ends with `detach`.

    `known` False: the server's own, nobody remembers what it has. `deadline`: when to call `tick`, in monotonic seconds.
    `begun`: the device was welcomed. `durable`: its durable subscriptions, also those that it does not follow now.
    """

    __slots__ = (
        "_open_bytes",
        "_open_messages",
        "_pump",
        "_put_off",
        "_window_bytes",
        "_window_messages",
        "ack_timeout",
        "around",
        "attached",
        "begun",
        "deadline",
        "durable",
        "feeds",
        "heartbeats",
        "info",
        "known",
        "link",
        "patience",
        "principal",
        "state",
    )

    def __init__(
        self, principal: Principal, link: Link, info: ConnectionInfo, around: DeliverySurroundings, *, known: bool = True
    ) -> None:
        self.principal = principal
        self.info = info
        self.state: AppState = info.state
        self.heartbeats = Heartbeats()
        self.attached = True
        self.begun = False
        self.durable: frozenset[str] = frozenset()
        self.known = known
        self._put_off: dict[str, tuple[Subscription | SubscriptionRefused, int]] = {}
        self.feeds: dict[str, Feed] = {}
        self.link = link
        self.around = around
        self.patience = around.patience
        self.ack_timeout = around.patience.ack_timeout if known else NEVER
        self.deadline = NEVER
        self._window_messages = info.window_messages
        self._window_bytes = info.window_bytes
        self._open_messages = 0
        self._open_bytes = 0
        self._pump = Pump(self)

    # -------------------------------------------------------------------------------------------------------- following

    def follow(self, subscription: Subscription) -> None:
        """Delivery on a channel begins behind the subscription's offset, once `begin` was called. Subscribing again begins anew.

        The place is stored as the device's cursor, unless that is further already: what is published while the device is away
        is then found although it never acknowledged anything. Behind a loss it is not stored: the device may never hear of the
        loss on this connection, and it has to be named again until an acknowledgement shows that it was heard. Does nothing
        when the connection is gone.
        """
        if not self.attached:
            return
        channel = subscription.channel
        older = self.feeds.get(channel)
        self.unfollow(channel)
        feed = Feed(self, subscription)
        feed.epoch_changed = older is not None and (older.epoch_changed or older.epoch != feed.epoch)
        self.feeds[channel] = feed
        self.around.fanout.follow(channel, feed, subscription.epoch, subscription.top_offset)
        feed.store_cursor()
        if self.known:
            self.around.follows(self.principal.name, self.info.session_id, channel, True)
        self._pump.lags(feed)

    def begin(self) -> None:
        """The device was welcomed and told what it follows: delivery begins, and it is told what has changed meanwhile."""
        self.begun = True
        self._pump.wake()
        put_off, self._put_off = self._put_off, {}
        for result, at_most in put_off.values():
            if isinstance(result, Subscription):
                self.follow_unasked(result, at_most)
            else:
                self.end_unasked(result)

    def follow_unasked(self, subscription: Subscription, at_most: int) -> None:
        """As `follow`, for a channel that the device did not ask for: it is told first, but not before it was welcomed.

        One that it follows goes on as it is. With `at_most` others it is told that there is no room for this one.
        """
        channel = subscription.channel
        if not self.attached:
            return
        if not self.begun:
            self._put_off[channel] = subscription, at_most
            return
        if subscription.durable:
            self.durable |= {channel}
        feed = self.feeds.get(channel)
        if feed is not None:
            feed.durable = subscription.durable
        elif len(self.feeds) < at_most:
            self.link.repositioned(subscription)
            self.follow(subscription)
        else:
            self.link.repositioned(SubscriptionRefused(channel, Code.QUOTA_EXCEEDED, f"at most {at_most} subscriptions"))

    def end_unasked(self, ended: SubscriptionRefused) -> None:
        """As `unfollow`, and the device is told why; the channel is no longer among the durable ones."""
        if not self.attached:
            return
        if not self.begun:
            self._put_off[ended.channel] = ended, 0
            return
        self.durable -= {ended.channel}
        if self.unfollow(ended.channel):
            self.link.repositioned(ended)

    def unfollow(self, channel: str) -> bool:
        """Ends delivery on a channel; False if it was not followed."""
        feed = self.feeds.pop(channel, None)
        if feed is None:
            return False
        self.around.fanout.unfollow(channel, feed)
        if self.known:
            self.around.follows(self.principal.name, self.info.session_id, channel, False)
        feed.release_all()
        self._pump.drop(feed)
        return True

    def detach(self, code: int = 0) -> None:
        """The connection is gone: nothing more is written, no reference from the fan-out is left.

        What was in front of a channel and not answered counts as delivered in vain, unless the server had reasons of its own
        (`code`) to end the connection.
        """
        self.attached = False
        self.deadline = NEVER
        self._pump.clear()
        for channel, feed in list(self.feeds.items()):
            if code not in SERVERS_OWN:
                feed.interrupted()
            self.unfollow(channel)

    def close(self, code: Code, detail: str) -> None:
        """Closes the device's connection for a reason of the application's."""
        self.link.close(code, detail)

    def cursors(self) -> tuple[ChannelCursor, ...]:
        """How far the device is on each channel it follows."""
        return tuple(ChannelCursor(row.channel, row.acknowledged, row.sent, row.top) for row in self.statuses())

    def statuses(self) -> tuple[FeedStatus, ...]:
        """How delivery goes on each of them."""
        top = self.around.fanout.top
        return tuple(feed.status(top(feed.channel, feed.epoch)) for feed in self.feeds.values())

    def follows(self, feed: Feed) -> bool:
        """Whether the feed may still be written to: calling out, or waiting, may have ended it."""
        return self.feeds.get(feed.channel) is feed

    # -------------------------------------------------------------------------------------------------------------- room

    def takes(self, messages: int, size: int) -> bool:
        """Whether window and send buffer have room for so many messages and bytes now.

        A single message is taken whatever its size when nothing else is open, or it could never be sent.
        """
        if self._open_messages + messages > self._window_messages or not self.link.has_room():
            return False
        return self._open_bytes + size <= self._window_bytes or (messages == 1 and not self._open_messages)

    def has_room(self) -> bool:
        """Whether the send buffer has room, whatever the window."""
        return self.link.has_room()

    def page_room(self) -> tuple[int, int]:
        """The most that one read of the log should give: messages, and bytes of payload."""
        around = self.around
        messages = min(self._window_messages - self._open_messages, around.page_messages)
        return max(1, messages), max(1, min(self._window_bytes - self._open_bytes, around.page_bytes))

    def write(self, frames: bytes, messages: int, size: int) -> None:
        """Writes deliveries, which take room from now on."""
        self._open_messages += messages
        self._open_bytes += size
        self._deliver(frames, messages)

    def repeat(self, frame: bytes) -> None:
        """Writes a delivery again; whoever calls this has seen to its room."""
        self._deliver(frame, 1)

    def _deliver(self, frames: bytes, messages: int) -> None:
        try:
            self.link.deliver(frames, messages)
        except Exception:
            # How much of it went out is not known, so nothing may follow it. The device resumes on its next connection.
            self.detach()
            self.close(Code.CONNECTION_TIMED_OUT, "delivery failed")
            raise

    def take(self, messages: int, size: int) -> None:
        """Takes room of the window."""
        self._open_messages += messages
        self._open_bytes += size

    def freed(self, messages: int, size: int) -> None:
        """Gives room of the window back."""
        self._open_messages -= messages
        self._open_bytes -= size

    def credit(self, messages: int, size: int) -> None:
        """Replaces the receive window; 0 leaves that value as it is."""
        self._window_messages = messages or self._window_messages
        self._window_bytes = size or self._window_bytes
        self._pump.wake()

    def room_again(self) -> None:
        """The send buffer fell below its mark."""
        self._pump.wake()

    def window(self) -> tuple[int, int, int, int]:
        """For people who ask: messages and bytes that are open, and the window in both."""
        return self._open_messages, self._open_bytes, self._window_messages, self._window_bytes

    # --------------------------------------------------------------------------------------------------- acknowledgements

    def acknowledge(self, channel: str, offset: int, outcome: Outcome, epoch: str = "") -> None:
        """The device answers what it was sent: docs/protocol.md section 10.5. `epoch`: the log it speaks of, if it says so.

        Raises Refused: NOT_SUBSCRIBED, or POSITION_LOST for an offset that was never sent.
        """
        feed = self.feeds.get(channel)
        if feed is None:
            raise Refused(Code.NOT_SUBSCRIBED, "acknowledgement of a channel that is not followed", channel=channel)
        metrics = self.around.metrics
        if epoch not in (feed.epoch, feed.former_epoch) if epoch else feed.epoch_changed:
            metrics.acknowledgement_ignored("other_epoch")
            return
        if feed.sent < offset <= feed.answerable:
            metrics.acknowledgement_ignored("older")
            return
        if offset > feed.sent:
            raise Refused(Code.POSITION_LOST, f"offset {offset} was never sent, the newest is {feed.sent}", channel=channel)
        if not feed.answer(offset, outcome):
            metrics.acknowledgement_ignored("older")
            return
        metrics.acknowledged(_NAMES[outcome])
        self.unpark(feed)
        self._pump.wake()

    def lags(self, feed: Feed) -> None:
        """The feed could not take an offer: it reads the log when there is room."""
        self._pump.lags(feed)

    def unpark(self, feed: Feed) -> None:
        """What is held may have become less, or too much."""
        if feed.held and feed.full:
            feed.live = False
        elif not feed.live and not feed.queued:
            self._pump.lags(feed)

    # --------------------------------------------------------------------------------------------------------- deadlines

    def arm(self, deadline: float) -> None:
        """Something is to be done by then, if nothing changes."""
        if deadline < self.deadline:
            self.deadline = deadline
            self.link.wake_by(deadline)

    def tick(self, now: float) -> None:
        """The deadline may have come: what is not answered in time is written again."""
        soonest = NEVER
        for feed in self.feeds.values():
            if not feed.due:
                due = feed.next_due()
                if due <= now:
                    self._pump.due(feed)
                else:
                    soonest = min(soonest, due)
        self.deadline = max(soonest, now + TICK_GRAIN * self.ack_timeout)
        self._pump.wake()
