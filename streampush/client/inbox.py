"""What has arrived and is not yet processed: a queue for each channel, in order, without repeats, within the receive window.

Theory of operation. A channel's queue holds deliveries and *marks*: the answers of the server that say where delivery goes on
(`Subscribed`), and that the backlog is out (`BacklogEnd`). One worker for each channel takes them in order, so a mark takes
effect when everything that came before it is processed, and the application meets messages and losses in the order of the log.

A message that the application cannot take now is acknowledged as RETRY_LATER, and the channel goes on; when the server delivers
it again, the application gets it again. What may be acknowledged when, and where to resume, is the business of `Channel`.

When the connection is lost the queues are emptied, for the server will send it all again. Only what the application is
working on goes on, and its repeat is recognised by the offset. In another log than before, what the application has answered is
recognised by its id: it gets the same answer in its turn, and the application does not see it.

docs/protocol.md sections 10 (flow) and 11 (recovery).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from streampush.client.channel import MAX_LATER, Channel, Item, Repositioned, Taken
from streampush.client.errors import Reject
from streampush.client.events import BacklogEnded, ClientEvent, Fault, PositionLost, Recalled, SubscriptionLost
from streampush.client.positions import PositionStore
from streampush.protocol.messages import Ack, BacklogEnd, Delivery, Position, Resume, Subscribe, Subscribed
from streampush.protocol.terms import LossReason, Outcome, Start

OnMessage: TypeAlias = Callable[[Delivery], Awaitable[Outcome | None]]

MAX_MARKS = 64
"""Marks that may wait in one channel's queue: stops a server that sends nothing else."""

OVERLAP = 4
"""Windows that may be taken at a time: the server no longer counts what it has given up, or what has expired or was taken back,
while the application may still be at it. More than so many is a server that does not keep to the window."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Window:
    """Deliveries that the server sends before they are acknowledged: their number, and their payloads' bytes. See OVERLAP."""

    messages: int = 256
    bytes: int = 1024 * 1024


class Inbox:
    """Between the connection and the application. `wake` is called when acknowledgements are ready outside of a read."""

    def __init__(
        self,
        on_message: OnMessage,
        window: Window,
        store: PositionStore,
        emit: Callable[[ClientEvent], None],
        wake: Callable[[], None],
    ) -> None:
        self._on_message = on_message
        self._window = window
        self._store = store
        self._emit = emit
        self._wake = wake
        self._held_messages = 0
        self._held_bytes = 0
        self._channels: dict[str, Channel] = {}
        self._workers: dict[Channel, Deferred[None] | None] = {}
        self._to_acknowledge: dict[Channel, None] = {}  # ordered
        for name, position in store.load().items():
            self._channels[name] = Channel(name, position, position, epoch=position.epoch, seen=position.offset)

    # ------------------------------------------------------------------------------------------------------------ questions

    @property
    def idle(self) -> bool:
        """Whether the application is done with everything that has arrived."""
        return all(channel.idle for channel in self._channels.values())

    @property
    def collected(self) -> bool:
        """Whether the backlog of every channel has arrived and is processed."""
        return self.idle and all(channel.backlog_ended for channel in self._channels.values())

    def request(self, name: str, start: Start, position: Position | None, *, durable: bool) -> Subscribe:
        """The request that follows a channel: from `position`, at `start`, or from where the application is."""
        channel = self._channels.get(name)
        if position is None and start is Start.UNSPECIFIED and channel is not None and not channel.later:
            position = channel.position if channel.position.epoch else None
        return Subscribe(name, position, start, durable)

    def durable(self, name: str) -> bool:
        """Whether the server has said that the subscription outlives the connection."""
        channel = self._channels.get(name)
        return channel is not None and channel.durable

    def resume(self) -> tuple[Resume, ...]:
        """What Hello asks to take up again."""
        return tuple(channel.resume for channel in self._channels.values() if channel.position.epoch)

    # --------------------------------------------------------------------------------------------------------- from the wire

    def subscribed(self, answer: Subscribed, *, exact: bool = False) -> bool:
        """Where delivery on a channel goes on. `exact`: the application asked for that place, also if it lies behind.

        False if the server sends more of this than can be meant.
        """
        if answer.code:
            if self._drop(answer.channel):
                self._emit(SubscriptionLost(answer.channel, answer.code, answer.detail))
            return True
        channel = self._channels.setdefault(answer.channel, Channel(answer.channel, Position()))
        mark = channel.begin(answer, exact=exact)
        if mark.back:
            self._forget_held(channel)
        if channel.owes:
            self._to_acknowledge[channel] = None
        return self._mark(channel, mark)

    def backlog_end(self, message: BacklogEnd) -> bool:
        """The backlog is out. False if the server sends more of this than can be meant."""
        channel = self._channels.get(message.channel)
        return channel is None or self._mark(channel, message)

    def deliver(self, delivery: Delivery) -> bool:
        """A message. False if it is more than the window that was announced can explain."""
        channel = self._channels.get(delivery.channel)
        if channel is None:
            return True  # unsubscribed while it was under way
        taken = channel.take(delivery)
        if taken is Taken.REPEAT:
            self._to_acknowledge[channel] = None
            return True
        if taken is Taken.NEW and not self._room(channel, len(delivery.payload)):
            return False
        channel.queue.append(Item(delivery, channel.epoch, held=taken is Taken.NEW))
        self._start(channel)
        return True

    def _room(self, channel: Channel, size: int) -> bool:
        """Takes room for a delivery; False if there is none."""
        if self._held_messages >= OVERLAP * self._window.messages or len(channel.later) >= MAX_LATER:
            return False
        if self._held_messages and self._held_bytes + size > OVERLAP * self._window.bytes:
            return False
        self._held_messages += 1
        self._held_bytes += size
        return True

    def disconnected(self) -> None:
        """The connection is gone: what nobody works on is dropped, the server has it."""
        self._held_messages = self._held_bytes = 0
        self._to_acknowledge.clear()
        for channel in self._channels.values():
            channel.disconnected()

    def take_acks(self) -> list[Ack]:
        """Acknowledgements to send now."""
        acks: list[Ack] = []
        for channel in self._to_acknowledge:
            acks += channel.take_acks()
        self._to_acknowledge.clear()
        return acks

    # --------------------------------------------------------------------------------------------------- from the application

    def forget(self, name: str) -> None:
        """The channel is no longer followed; what has arrived of it is dropped."""
        if not self._drop(name):
            return
        try:
            self._store.forget(name)
        except Exception as error:  # noqa: BLE001 - the application's code
            self._emit(Fault(0, f"the position store raised {type(error).__name__}"))

    def _drop(self, name: str) -> bool:
        """Nothing that has arrived of the channel is given to the application any more, or takes room; False if there is none."""
        channel = self._channels.pop(name, None)
        if channel is None:
            return False
        self._forget_held(channel)
        self._to_acknowledge.pop(channel, None)
        channel.queue.clear()  # else its worker would go on beside that of a channel followed anew
        return True

    def done(self, message: Delivery) -> None:
        """The application is done with what it had answered with DELIVERED, up to the message."""
        channel = self._channels.get(message.channel)
        if channel is not None:
            channel.done(message)
            self._to_acknowledge[channel] = None
            self._wake()

    def stop(self) -> None:
        """Cancels the application's work and drops the rest."""
        for channel in self._channels.values():
            channel.queue.clear()
        self._channels.clear()
        for worker in list(self._workers.values()):
            if worker is not None:
                worker.cancel()

    # --------------------------------------------------------------------------------------------------------------- the work

    def _mark(self, channel: Channel, mark: Repositioned | BacklogEnd) -> bool:
        if len(channel.queue) >= self._window.messages + MAX_MARKS:
            return False
        channel.queue.append(mark)
        self._start(channel)
        return True

    def _start(self, channel: Channel) -> None:
        if channel in self._workers:
            return
        self._workers[channel] = None  # it is at work before there is a Deferred of it
        worker = Deferred.fromCoroutine(self._work(channel))
        if channel in self._workers:
            self._workers[channel] = worker
        worker.addErrback(lambda failure: _log.failure("the worker of a channel failed", failure))

    async def _work(self, channel: Channel) -> None:
        try:
            while channel.queue:
                entry = channel.queue.popleft()
                if isinstance(entry, Repositioned):
                    self._reposition(channel, entry)
                elif isinstance(entry, BacklogEnd):
                    channel.caught_up()
                    self._emit(BacklogEnded(channel.name))
                else:
                    await self._process(channel, entry)
                self._wake()
        except CancelledError:
            channel.queue.clear()  # by stop()
        finally:
            channel.current = None
            del self._workers[channel]

    async def _process(self, channel: Channel, item: Item) -> None:
        channel.current = item
        outcome = channel.answered.outcome(item.delivery.message_id) or await self._ask(item.delivery)
        if self._channels.get(channel.name) is not channel:
            return  # followed no longer
        self._release(item)
        if channel.finished(item, outcome):
            self._save(channel)
        self._to_acknowledge[channel] = None

    async def _ask(self, delivery: Delivery) -> Outcome:
        """Gives the message to the application."""
        if delivery.recalls:
            self._emit(Recalled(delivery.channel, delivery.recalls, delivery.offset))
            return Outcome.PROCESSED
        try:
            return await self._on_message(delivery) or Outcome.PROCESSED
        except Reject:
            return Outcome.REJECTED
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the application's code; its text may quote the payload
            self._emit(Fault(0, f"on_message raised {type(error).__name__}"))
            return Outcome.RETRY_LATER

    def _reposition(self, channel: Channel, mark: Repositioned) -> None:
        answer, old = mark.answer, channel.reached
        if channel.moved(mark):
            self._save(channel)
        if answer.loss is not LossReason.UNSPECIFIED:
            self._emit(PositionLost(channel.name, answer.loss, answer.lost_at_most))
        elif old.epoch and old.offset and old.epoch != answer.epoch and not mark.proven:
            self._emit(PositionLost(channel.name, LossReason.EPOCH_CHANGED, answer.lost_at_most))

    def _save(self, channel: Channel) -> None:
        try:
            self._store.save(channel.name, channel.position)
        except Exception as error:  # noqa: BLE001 - the application's code
            self._emit(Fault(0, f"the position store raised {type(error).__name__}"))

    def _release(self, item: Item) -> None:
        if item.held:
            item.held = False
            self._held_messages -= 1
            self._held_bytes -= len(item.delivery.payload)

    def _forget_held(self, channel: Channel) -> None:
        """The server counts the channel's open deliveries no longer."""
        for entry in channel.queue:
            if isinstance(entry, Item):
                self._release(entry)
        if channel.current is not None:
            self._release(channel.current)
