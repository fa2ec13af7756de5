"""What has arrived and is not yet processed: a queue for each channel, in order, without repeats, within the receive window.

Theory of operation. A channel's queue holds deliveries and *marks*: the answers of the server that say where delivery goes on
(`Subscribed`), and that the backlog is out (`BacklogEnd`). One worker for each channel takes them in order, so a mark takes
effect when everything that came before it is processed, and the application meets messages and losses in the order of the log.

A message that the application cannot take now is acknowledged as RETRY_LATER, which frees its room on the server, and is given
to the application again here, later and later; the channel waits, because its order is promised.

When the connection is lost the queues are emptied, for the server will send it all again. Only what the application is
working on goes on, and its repeat is recognised by the offset.

docs/protocol.md sections 10 (flow) and 11 (recovery).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from streampush.client.errors import Reject
from streampush.client.events import BacklogEnded, ClientEvent, Fault, PositionLost, SubscriptionLost
from streampush.client.positions import PositionStore
from streampush.protocol.messages import Ack, BacklogEnd, Delivery, Position, Resume, Subscribed
from streampush.protocol.terms import LossReason, Outcome

OnMessage: TypeAlias = Callable[[Delivery], Awaitable[Outcome | None]]

RETRY_INITIAL = 1.0
RETRY_MAX = 60.0
"""Seconds until the application is given a message again that it could not take; doubled from the first to the second."""

MAX_MARKS = 64
"""Marks that may wait in one channel's queue: stops a server that sends nothing else."""

_log = Logger()
_GOES_BACK = (LossReason.EPOCH_CHANGED, LossReason.REWOUND, LossReason.ID_MISMATCH)
_CUMULATIVE = (Outcome.DELIVERED, Outcome.PROCESSED)


@dataclass(frozen=True, slots=True)
class Window:
    """Deliveries that the client takes before it has acknowledged them: their number, and their payloads' bytes."""

    messages: int = 256
    bytes: int = 1024 * 1024


@dataclass(slots=True)
class _Item:
    """A delivery in the queue or in work. `held`: it still takes room of the window."""

    delivery: Delivery
    epoch: str
    held: bool = True


@dataclass(frozen=True, slots=True)
class _Repositioned:
    """A mark: delivery goes on behind `answer.offset`; `back`: offsets up to there mean something else from now on."""

    answer: Subscribed
    back: bool


@dataclass(slots=True, eq=False)
class _Channel:
    name: str
    position: Position  # processed
    epoch: str = ""  # of the log that the server delivers from
    seen: int = 0  # highest offset taken: at or below it is a repeat
    sent: int = 0  # highest offset that the server may be answered about
    pending_back: int = 0  # marks that go back, still in the queue: no acknowledgement until they are through
    backlog_ended: bool = False
    current: _Item | None = None
    queue: deque[_Item | _Repositioned | BacklogEnd] = field(default_factory=deque)
    acks: list[Ack] = field(default_factory=list)
    worker: Deferred[None] | None = None
    working: bool = False

    @property
    def idle(self) -> bool:
        return not self.queue and self.current is None


class Inbox:
    """Between the connection and the application. `wake` is called when acknowledgements are ready outside of a read."""

    def __init__(
        self,
        clock: IReactorTime,
        on_message: OnMessage,
        window: Window,
        store: PositionStore,
        emit: Callable[[ClientEvent], None],
        wake: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._on_message = on_message
        self._window = window
        self._store = store
        self._emit = emit
        self._wake = wake
        self._held_messages = 0
        self._held_bytes = 0
        self._channels: dict[str, _Channel] = {}
        self._to_acknowledge: dict[_Channel, None] = {}  # ordered
        for name, position in store.load().items():
            self._channels[name] = _Channel(name, position, position.epoch, position.offset)

    # ------------------------------------------------------------------------------------------------------------ questions

    @property
    def idle(self) -> bool:
        """Whether the application is done with everything that has arrived."""
        return all(channel.idle for channel in self._channels.values())

    @property
    def collected(self) -> bool:
        """Whether the backlog of every channel has arrived and is processed."""
        return self.idle and all(channel.backlog_ended for channel in self._channels.values())

    def position(self, name: str) -> Position | None:
        """The last processed position on the channel, None if it is not followed or not known yet."""
        channel = self._channels.get(name)
        return channel.position if channel is not None and channel.position.epoch else None

    def resume(self) -> tuple[Resume, ...]:
        """What Hello asks to take up again."""
        return tuple(Resume(one.name, one.position) for one in self._channels.values() if one.position.epoch)

    # --------------------------------------------------------------------------------------------------------- from the wire

    def subscribed(self, answer: Subscribed, *, exact: bool = False) -> bool:
        """Where delivery on a channel goes on. `exact`: the application asked for that place, also if it lies behind.

        False if the server sends more of this than can be meant.
        """
        if answer.code:
            if self._channels.pop(answer.channel, None) is not None:
                self._emit(SubscriptionLost(answer.channel, answer.code, answer.detail))
            return True
        channel = self._channels.setdefault(answer.channel, _Channel(answer.channel, Position()))
        other_log = bool(channel.epoch) and channel.epoch != answer.epoch
        back = other_log or answer.loss in _GOES_BACK or (exact and answer.offset < channel.seen)
        if back:
            self._forget_held(channel)
            channel.pending_back += 1
            channel.seen = answer.offset
        channel.seen = max(channel.seen, answer.offset)
        channel.sent = answer.offset
        channel.epoch = answer.epoch
        channel.backlog_ended = False
        channel.acks.clear()
        return self._mark(channel, _Repositioned(answer, back))

    def backlog_end(self, message: BacklogEnd) -> bool:
        """The backlog is out. False if the server sends more of this than can be meant."""
        channel = self._channels.get(message.channel)
        return channel is None or self._mark(channel, message)

    def deliver(self, delivery: Delivery) -> bool:
        """A message. False if it does not fit the window that was announced."""
        channel = self._channels.get(delivery.channel)
        if channel is None:
            return True  # unsubscribed while it was under way
        channel.sent = max(channel.sent, delivery.offset)
        if delivery.offset <= channel.seen:
            self._acknowledge_repeat(channel)
            return True
        size = len(delivery.payload)
        if self._held_messages >= self._window.messages:
            return False
        if self._held_messages and self._held_bytes + size > self._window.bytes:
            return False
        self._held_messages += 1
        self._held_bytes += size
        channel.seen = delivery.offset
        channel.queue.append(_Item(delivery, channel.epoch))
        self._start(channel)
        return True

    def disconnected(self) -> None:
        """The connection is gone: what nobody works on is dropped, the server has it."""
        self._held_messages = self._held_bytes = 0
        self._to_acknowledge.clear()
        for channel in self._channels.values():
            channel.queue.clear()
            channel.acks.clear()
            channel.pending_back = channel.sent = 0
            channel.backlog_ended = False
            current = channel.current
            if current is not None:
                current.held = False
            channel.seen = current.delivery.offset if current is not None else channel.position.offset
            channel.epoch = current.epoch if current is not None else channel.position.epoch

    def take_acks(self) -> list[Ack]:
        """Acknowledgements to send now."""
        acks: list[Ack] = []
        for channel in self._to_acknowledge:
            acks += channel.acks
            channel.acks.clear()
        self._to_acknowledge.clear()
        return acks

    # --------------------------------------------------------------------------------------------------- from the application

    def forget(self, name: str) -> None:
        """The channel is no longer followed; what has arrived of it is dropped."""
        channel = self._channels.pop(name, None)
        if channel is None:
            return
        self._forget_held(channel)
        self._to_acknowledge.pop(channel, None)
        channel.queue.clear()
        try:
            self._store.forget(name)
        except Exception as error:  # noqa: BLE001 - the application's code
            self._emit(Fault(0, f"the position store raised {type(error).__name__}"))

    def stop(self) -> None:
        """Cancels the application's work and drops the rest."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            channel.queue.clear()
            if channel.worker is not None:
                channel.worker.cancel()

    # --------------------------------------------------------------------------------------------------------------- the work

    def _mark(self, channel: _Channel, mark: _Repositioned | BacklogEnd) -> bool:
        if len(channel.queue) >= self._window.messages + MAX_MARKS:
            return False
        channel.queue.append(mark)
        self._start(channel)
        return True

    def _start(self, channel: _Channel) -> None:
        if channel.working:
            return
        channel.working = True
        worker = Deferred.fromCoroutine(self._work(channel))
        channel.worker = worker
        worker.addErrback(lambda failure: _log.failure("the worker of a channel failed", failure))

    async def _work(self, channel: _Channel) -> None:
        try:
            while channel.queue:
                entry = channel.queue.popleft()
                if isinstance(entry, _Repositioned):
                    self._reposition(channel, entry)
                elif isinstance(entry, BacklogEnd):
                    channel.backlog_ended = True
                    self._emit(BacklogEnded(channel.name))
                else:
                    await self._process(channel, entry)
                self._wake()
        except CancelledError:
            channel.queue.clear()  # by stop()
        finally:
            channel.working = False
            channel.current = None

    async def _process(self, channel: _Channel, item: _Item) -> None:
        channel.current = item
        delay = RETRY_INITIAL
        outcome = await self._ask(item.delivery)
        while outcome is Outcome.RETRY_LATER and self._follows(channel):
            self._answer(channel, item, outcome)
            self._wake()
            await self._pause(delay)
            delay = min(delay * 2, RETRY_MAX)
            outcome = await self._ask(item.delivery) if self._follows(channel) else outcome
        channel.current = None
        if self._follows(channel):
            delivery = item.delivery
            self._move(channel, Position(item.epoch, delivery.offset, delivery.message_id))
            self._answer(channel, item, outcome)

    async def _ask(self, delivery: Delivery) -> Outcome:
        """Gives the message to the application."""
        try:
            return await self._on_message(delivery) or Outcome.PROCESSED
        except Reject:
            return Outcome.REJECTED
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the application's code; its text may quote the payload
            self._emit(Fault(0, f"on_message raised {type(error).__name__}"))
            return Outcome.RETRY_LATER

    async def _pause(self, delay: float) -> None:
        over: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(delay, over.callback, None)
        await over

    def _follows(self, channel: _Channel) -> bool:
        return self._channels.get(channel.name) is channel

    def _answer(self, channel: _Channel, item: _Item, outcome: Outcome) -> None:
        """Queues the acknowledgement, unless this connection's server would not understand it."""
        self._release(item)
        offset = item.delivery.offset
        if channel.pending_back or offset > channel.sent:
            return  # of a log that is gone, or not delivered on this connection yet: its repeat will be acknowledged
        self._queue_ack(channel, offset, outcome)

    def _acknowledge_repeat(self, channel: _Channel) -> None:
        """The server does not know yet that this is processed: it tells what it may be told."""
        offset = min(channel.position.offset, channel.sent)
        if offset and not channel.pending_back and channel.position.epoch == channel.epoch:
            self._queue_ack(channel, offset, Outcome.PROCESSED)

    def _queue_ack(self, channel: _Channel, offset: int, outcome: Outcome) -> None:
        acks = channel.acks
        if acks and acks[-1].outcome is outcome and outcome in _CUMULATIVE:
            acks.pop()  # the new one says it too
        acks.append(Ack(channel.name, offset, outcome))
        self._to_acknowledge[channel] = None

    def _reposition(self, channel: _Channel, mark: _Repositioned) -> None:
        answer, old = mark.answer, channel.position
        if mark.back:
            channel.pending_back -= 1
        if mark.back or not old.epoch or answer.offset > old.offset:
            self._move(channel, Position(answer.epoch, answer.offset, answer.last_message_id))
        if answer.loss is not LossReason.UNSPECIFIED:
            self._emit(PositionLost(channel.name, answer.loss, answer.lost_at_most))
        elif old.epoch and old.offset and old.epoch != answer.epoch:
            self._emit(PositionLost(channel.name, LossReason.EPOCH_CHANGED, answer.lost_at_most))

    def _move(self, channel: _Channel, position: Position) -> None:
        channel.position = position
        try:
            self._store.save(channel.name, position)
        except Exception as error:  # noqa: BLE001 - the application's code
            self._emit(Fault(0, f"the position store raised {type(error).__name__}"))

    def _release(self, item: _Item) -> None:
        if item.held:
            item.held = False
            self._held_messages -= 1
            self._held_bytes -= len(item.delivery.payload)

    def _forget_held(self, channel: _Channel) -> None:
        """The server counts the channel's open deliveries no longer."""
        for entry in channel.queue:
            if isinstance(entry, _Item):
                self._release(entry)
        if channel.current is not None:
            self._release(channel.current)
