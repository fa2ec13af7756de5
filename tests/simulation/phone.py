"""A device: the real reference client in a process that may die, its application, and what both must and must not see.

The application's memory is durable and so are its stored positions; a process that dies loses neither. What it has processed is
recorded in the same moment as its position is saved, so a message that it was given again is one too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from streampush.client import ClientError, MemoryPositions, Outcome, Position, Reject, Start, StreamClient, Window
from streampush.client.channel import Item
from streampush.client.connection import StreamConnection
from streampush.client.events import ClientEvent, Connected, PositionLost, Recalled, Stopped, SubscriptionLost
from streampush.protocol import messages as m
from streampush.protocol.terms import LossReason
from streampush.push.channels import own_channels
from streampush.push.values import Principal
from tests.simulation.clock import ProcessClock
from tests.simulation.network import Link, Network
from tests.simulation.truth import Entry, Truth
from tests.simulation.world import World

REQUEST_TIMEOUT = 4.0
RESUBSCRIBE = 1.0
"""Seconds until an application asks again for a channel that it was refused."""

GOES_BACK = (LossReason.EPOCH_CHANGED, LossReason.REWOUND, LossReason.ID_MISMATCH)
"""With these the log begins anew for the device: what it had may come again."""

MAX_PUT_OFF = 2
"""Times that an application asks for one message again."""


@dataclass(slots=True)
class Follow:
    """A channel that the device follows: behind `begun` it is owed everything, but for what was named as lost up to `lost`."""

    epoch: str
    begun: int
    lost: int = 0
    handed: int = 0  # highest offset given to the application
    done: dict[str, int] = field(default_factory=dict)  # message ids that may not come again, and their offsets
    doubtful: bool = False  # the application has forgotten its positions: what the server says of the place counts


@dataclass(slots=True)
class Habits:
    """How an application treats messages: shares of them, and seconds."""

    slow: float = 0.3
    slowness: float = 0.5
    put_off: float = 0.05
    reject: float = 0.03
    poison: float = 0.0


class Wire:
    """What arrives on one connection, checked frame by frame."""

    def __init__(self, phone: Phone, link: Link) -> None:
        self.link = link
        self.greeted = False
        self.times: dict[str, Counter[str]] = {}  # how often messages came again since a Subscribed, by channel and id
        self.asked: dict[str, m.Position | None] = {}
        self.last: dict[str, tuple[str, int]] = {}
        self._phone = phone
        self._world = phone.world

    def subscribed(self, answer: m.Subscribed) -> None:
        """The device is told where it is on a channel."""
        if answer.code:
            return
        phone = self._phone
        channel, epoch, offset = answer.channel, answer.epoch, answer.offset
        asked = self.asked.pop(channel, None)
        self.last[channel] = epoch, offset
        self.times.pop(channel, None)
        if channel in phone.leaving:
            return  # it crosses the Unsubscribe
        follow = phone.follows.get(channel)
        if channel in phone.anew:
            phone.begins_anew(channel)
        if answer.loss:
            self._lost(answer, follow)
        elif answer.recovered:
            self._recovered(answer, follow, asked)
        elif follow is None or follow.doubtful or (phone.truth.disasters and not (asked and asked.epoch)):
            if follow is not None and follow.epoch == epoch and channel == phone.device_channel:
                self._must_have("I1", answer, follow)
            phone.follows[channel] = Follow(epoch, offset)
        if channel in phone.follows:
            phone.follows[channel].doubtful = False

    def _recovered(self, answer: m.Subscribed, follow: Follow | None, asked: m.Position | None) -> None:
        channel, epoch, offset = answer.channel, answer.epoch, answer.offset
        log = self.link.server.view.get((channel, epoch), {})
        if asked is not None and asked.epoch:
            entry = log.get(offset)
            held = entry.message_id if entry is not None else ""
            if (asked.epoch, asked.offset, asked.last_message_id if offset else "") != (epoch, offset, held):
                self._world.broken("I4", f"{self._phone.name} {channel}: {asked} is recovered as {answer}, there is {entry}")
        by_cursor = asked is None or not asked.epoch  # and a cursor may be of a log that the device has never heard of
        # or a backup has lost it, and as the device has forgotten its positions it begins anew at the newest, by a greeting that it
        # does not get: then the next one finds the place of that; but for its own channel, which begins at the oldest
        begun_unheard = follow is not None and follow.doubtful and channel != self._phone.device_channel
        if follow is None or (by_cursor and self._phone.truth.disasters and (begun_unheard or follow.epoch != epoch)):
            self._phone.follows[channel] = Follow(epoch, offset)
        elif follow.epoch == epoch:
            self._must_have("I4", answer, follow)
        else:
            self._world.broken("I4", f"{self._phone.name} {channel}: {follow.epoch} is recovered as {answer}")

    def _must_have(self, rule: str, answer: m.Subscribed, follow: Follow) -> None:
        """The application has everything up to the place that the server says."""
        phone, truth = self._phone, self._phone.truth
        log = self.link.server.view.get((answer.channel, answer.epoch), {})
        for number in range(max(follow.begun, follow.lost) + 1, answer.offset + 1):
            entry = log.get(number)
            if entry is not None and entry.message_id not in phone.got and not truth.excused(entry, phone.name, self.link.server):
                self._world.broken(rule, f"{phone.name} has no {entry}, and delivery goes on: {answer}")

    def _lost(self, answer: m.Subscribed, follow: Follow | None) -> None:
        phone = self._phone
        channel = answer.channel
        if answer.recovered:
            self._world.broken("I4", f"recovered, and lost: {answer}")
        if answer.loss in GOES_BACK:
            if not phone.truth.disasters:
                self._world.broken("I4", f"nothing was lost, and yet {phone.name} hears {answer}")
            begun = follow.begun if follow is not None and follow.epoch == answer.epoch else 0
            phone.follows[channel] = Follow(answer.epoch, max(begun, answer.offset))
        elif answer.loss is LossReason.TRIMMED:
            if answer.offset > phone.floor(channel):
                self._world.broken("I4", f"{phone.name}: {answer}, and the log begins at {phone.floor(channel)}")
            if follow is None:
                phone.follows[channel] = Follow(answer.epoch, answer.offset)
            else:
                self._count_lost(answer, follow)
                follow.lost = max(follow.lost, answer.offset)

    def _count_lost(self, answer: m.Subscribed, follow: Follow) -> None:
        phone, truth = self._phone, self._phone.truth
        log = self.link.server.view.get((answer.channel, answer.epoch), {})
        behind = (log.get(number) for number in range(max(follow.begun, follow.lost) + 1, answer.offset + 1))
        missing = [
            entry.offset
            for entry in behind
            if entry is not None and entry.message_id not in phone.got and not truth.excused(entry, phone.name, self.link.server)
        ]
        arrived = phone.unprocessed(answer.channel)
        if truth.disasters:
            return  # what the device had may be of a course of events that was undone: nobody can count that
        if len(missing) - arrived > answer.lost_at_most:
            self._world.broken("I4", f"{phone.name}: {answer}, and {missing} are missing")

    def delivered(self, delivery: m.Delivery) -> None:
        channel, offset = delivery.channel, delivery.offset
        if channel not in self.last:
            self._world.broken("I3", f"{self._phone.name} gets {channel} {offset} before it was told where it is")
        epoch, last = self.last[channel]
        log = self.link.server.view.get((channel, epoch), {})
        entry = log.get(offset)
        if entry is None or (entry.message_id, entry.payload, entry.recalls) != (
            delivery.message_id,
            delivery.payload,
            delivery.recalls,
        ):
            self._world.broken("I3", f"{self._phone.name} gets {delivery}, and the log has {entry}")
        if offset <= last:
            self._again(entry)
            return
        self._pass(channel, epoch, last, offset - 1)
        self.last[channel] = epoch, offset

    def _again(self, entry: Entry) -> None:
        """A redelivery: only of what is not done with for long, and only so often."""
        self._world.seen["redelivery"] += 1
        counts = self.times.setdefault(entry.channel, Counter())
        counts[entry.message_id] += 1
        times = 1 + counts[entry.message_id]
        if times > self.link.server.config.delivery.max_attempts:
            self._world.broken("redelivery", f"{self._phone.name} gets {entry} for the {times}th time")

    def backlog_end(self, end: m.BacklogEnd) -> None:
        epoch, last = self.last[end.channel]
        self._pass(end.channel, epoch, last, end.offset)
        self.last[end.channel] = epoch, max(last, end.offset)

    def _pass(self, channel: str, epoch: str, last: int, up_to: int) -> None:
        """What lies in between is not coming any more."""
        log = self.link.server.view.get((channel, epoch), {})
        for number in range(last + 1, up_to + 1):
            if not self._phone.truth.excused(log[number], self._phone.name, self.link.server):
                self._world.broken("I4", f"{self._phone.name} {channel}: {log[number]} is passed over behind {last}")
            self._phone.left_out.add((channel, log[number].message_id))


class TappedClient(StreamClient):
    """The reference client; everything that arrives is shown to the phone first."""

    phone: Phone

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        received = self._line.received

        def tapped(connection: StreamConnection, request_id: int, message: m.Message) -> None:
            self.phone.received(connection, message)
            received(connection, request_id, message)
            self.phone.check_window()

        self._line.received = tapped  # type: ignore[method-assign]  # there is no other place between the two

    def _hello(self) -> m.Hello:
        hello = super()._hello()
        self.phone.says_hello(hello)
        return hello


class Phone:
    """One device. `topics` are those that its application wants to follow."""

    def __init__(self, world: World, network: Network, truth: Truth, principal: Principal, window: Window, habits: Habits) -> None:
        self.world = world
        self.network = network
        self.truth = truth
        self.principal = principal
        self.name = principal.name
        self.device_channel = own_channels(principal)[0]
        self.window = window
        self.habits = habits
        self.calm = False
        self.topics: dict[str, Start] = {}
        self.durable: set[str] = set()  # those of them that the server is asked to keep
        self.follows: dict[str, Follow] = {}
        self.got: set[str] = set()  # message ids that the application has processed, in all its lives
        self._done_with: set[tuple[str, str]] = (
            set()
        )  # channel and message id, answered for good in this life: never to be given again
        self.client: TappedClient | None = None
        self.stopped = False  # the client has given up by itself
        self.wire: Wire | None = None
        self.floor: Callable[[str], int] = lambda channel: 0
        self._clock = ProcessClock(world.clock)
        self._positions = MemoryPositions()
        self._in_hand: dict[str, str] = {}  # message ids by channel
        self._put_off: dict[str, int] = {}
        self._put_off_at: set[tuple[str, int]] = set()  # channel and offset of the same
        self.left_out: set[tuple[str, str]] = set()  # channel and message id, passed over by a server that need not send it then
        self._poison: set[str] = set()  # what the application can never take
        self._asking: set[str] = set()
        self.leaving: set[str] = set()  # topics that the server has been told to end, and has not answered
        self.anew: set[str] = set()  # channels that it has asked for from a certain place on, whatever it has of them
        self._refused: set[str] = set()  # channels that the client has given up and the application wants
        self._abandoned: list[object] = []  # clients of dead processes: collected in the middle of their work they would go on

    # -------------------------------------------------------------------------------------------------- life of the process

    @property
    def running(self) -> bool:
        return self.client is not None and not self.stopped

    @property
    def online(self) -> bool:
        """Greeted on a connection that works."""
        return self.wire is not None and self.wire.link.alive and self.wire.greeted

    def start(self) -> None:
        world = self.world
        self._clock = ProcessClock(world.clock)
        self._in_hand.clear()
        self._done_with.clear()
        self._asking.clear()
        self.leaving.clear()
        self.stopped = False
        self.client = TappedClient(
            self._clock,  # type: ignore[arg-type]  # what the client needs of IReactorTime
            [("server", 7443)],
            self.network.security(self.principal),
            on_message=self._take,
            window=self.window,
            positions=self._positions,
            on_event=self._happened,
            random=Random(world.random.getrandbits(32)),
            request_timeout=REQUEST_TIMEOUT,
        )
        self.client.phone = self
        self.client.start()
        world.trace(self.name, "starts")

    def kill(self, *, silently: bool, forgetting: bool = False) -> None:
        """The process dies; the server is not told if `silently`. `forgetting`: the positions are gone as well."""
        self.world.trace(self.name, "dies", "silently" if silently else "", "and forgets" if forgetting else "")
        self._clock.alive = False
        self._forget_what_is_behind_a_put_off()
        self._abandoned.append(self.client)
        self.client = None
        self.wire = None
        for link in self.network.of(self.principal):
            if silently:
                link.die()
            else:
                link.reset_by_client()
            link.client.forget()
        if forgetting:
            self._positions = MemoryPositions()
            for follow in self.follows.values():
                follow.done.clear()
                follow.handed = 0
                follow.doubtful = True

    def _forget_what_is_behind_a_put_off(self) -> None:
        """A stored position stays in front of what the application wants later: a new process gets all behind it again."""
        inbox = self.client._inbox if self.client is not None else None
        for name, channel in inbox._channels.items() if inbox is not None else ():
            follow = self.follows.get(name)
            if follow is not None and channel.position != channel.reached:
                follow.handed = channel.position.offset
                follow.done = {key: offset for key, offset in follow.done.items() if offset <= follow.handed}

    def leave(self) -> Deferred[None]:
        """Stops for good; fires when the connection is gone."""
        assert self.client is not None
        return Deferred.fromCoroutine(self.client.stop())

    def left(self) -> list[str]:
        """What is still scheduled."""
        return self._clock.pending()

    def _forget_answers(self, channel: str) -> None:
        """The client has no memory of the channel any more."""
        self._done_with = {answered for answered in self._done_with if answered[0] != channel}

    # ------------------------------------------------------------------------------------------------------ seen on the wire

    def begins_anew(self, channel: str) -> None:
        """The application has asked for the channel from a certain place on: what it has, or works on, may come again."""
        self._in_hand.pop(channel, None)
        self._forget_answers(channel)
        follow = self.follows.get(channel)
        if follow is not None:
            follow.handed = 0
            follow.done.clear()

    def says_hello(self, hello: m.Hello) -> None:
        link = self.network.of(self.principal)[-1]
        for channel in self.anew:  # what was asked for without an answer, the client asks for now
            self.begins_anew(channel)
        self.anew.clear()
        self.wire = Wire(self, link)
        self.wire.asked = {resume.channel: resume.position for resume in hello.resume}

    def received(self, connection: StreamConnection, message: m.Message) -> None:
        wire = self.wire
        if wire is None or connection.transport is not wire.link.client:
            return
        if isinstance(message, m.Delivery):
            wire.delivered(message)
        elif isinstance(message, m.Welcome):
            wire.greeted = True
            for answer in message.subscribed:
                wire.subscribed(answer)
        elif isinstance(message, m.Subscribed):
            wire.subscribed(message)
        elif isinstance(message, m.BacklogEnd):
            wire.backlog_end(message)

    # ------------------------------------------------------------------------------------------------------- the application

    def follow(self, topic: str, start: Start, *, durable: bool) -> None:
        """The application wants a topic, until `unfollow`."""
        self.topics[topic] = start
        if durable:
            self.durable.add(topic)
        self._catch_up()

    def ended(self, topic: str) -> None:
        """A backend ends what the server keeps of the topic, also the cursor: what the device has no position of may be skipped."""
        follow = self.follows.get(topic)
        if topic not in self.topics:
            self.follows.pop(topic, None)  # nobody wants it any more, whether the device hears of that or not
        elif follow is not None:
            follow.doubtful = True

    def unfollow(self, topic: str) -> None:
        """It wants the topic no longer."""
        if self.client is None or self.client.welcome is None or topic not in self.topics or topic in self._asking:
            return  # without a connection nobody is told, and a greeting under way would take the topic up again
        self.world.trace(self.name, "unfollows", topic)
        del self.topics[topic]
        self.durable.discard(topic)
        self.follows.pop(topic, None)
        self._in_hand.pop(topic, None)
        self._forget_answers(topic)
        self.leaving.add(topic)
        leaving = Deferred.fromCoroutine(self.client.unsubscribe(topic)).addErrback(lambda failure: failure.trap(ClientError))
        leaving.addBoth(lambda _: self.leaving.discard(topic))

    def _catch_up(self) -> None:
        """Asks for the topics that it has no place on yet."""
        if self.client is not None and self.client.welcome is not None:
            known = self._positions.load()
            for topic, start in self.topics.items():
                if topic in self._refused:
                    self._resubscribe(topic)
                elif topic not in known and topic not in self._asking:
                    self._ask(topic, start, None)

    def _ask(self, channel: str, start: Start, position: Position | None) -> None:
        assert self.client is not None
        self._asking.add(channel)
        exact = position is not None or start is not Start.UNSPECIFIED
        (self.anew.add if exact else self.anew.discard)(channel)
        if self.wire is not None:
            self.wire.asked[channel] = position if exact else self._positions.load().get(channel)
        self.world.trace(self.name, "subscribes", channel, start.name, position)
        durable = channel in self.durable
        asked = Deferred.fromCoroutine(self.client.subscribe(channel, start=start, position=position, durable=durable))
        asked.addCallbacks(self._answered, self._unanswered, callbackArgs=(channel,), errbackArgs=(channel,))

    def _answered(self, answer: m.Subscribed, channel: str) -> None:
        self.world.seen["durable subscription"] += answer.durable
        self.anew.discard(channel)
        self._refused.discard(channel)
        self._asking.discard(channel)

    def _unanswered(self, failure: Any, channel: str) -> None:
        failure.trap(ClientError)
        self._asking.discard(channel)
        self._clock.callLater(RESUBSCRIBE, self._resubscribe, channel)

    def _resubscribe(self, channel: str) -> None:
        """Takes up a channel that it was refused, where it was."""
        if channel not in self._refused:
            self._catch_up()
            return
        if channel in self._asking or self.client is None or self.client.welcome is None:
            return
        if channel in self.topics or channel in own_channels(self.principal):
            self._ask(channel, self.topics.get(channel, Start.UNSPECIFIED), self._positions.load().get(channel))

    def _happened(self, event: ClientEvent) -> None:
        if self.world.tracing:
            self.world.trace(self.name, event)
        if isinstance(event, PositionLost):
            self.world.seen[f"lost: {event.reason.name.lower()}"] += 1
        if isinstance(event, Connected):
            self._refused -= set(own_channels(self.principal))  # these are followed by themselves
            self._clock.callLater(0.0, self._catch_up)
        elif isinstance(event, PositionLost) and event.reason in GOES_BACK:
            follow = self.follows.get(event.channel)
            if follow is not None:
                follow.done.clear()
                follow.handed = 0
        elif isinstance(event, Recalled):
            self.world.seen["recall heard"] += 1
            self._recalled(event)
        elif isinstance(event, SubscriptionLost):
            self._refused.add(event.channel)
            self._in_hand.pop(event.channel, None)
            self._forget_answers(event.channel)
            if event.channel not in self.topics:
                self.follows.pop(event.channel, None)  # a backend wanted it, and wants it no longer
            self._clock.callLater(RESUBSCRIBE, self._resubscribe, event.channel)
        elif isinstance(event, Stopped):
            self.stopped = True

    def _recalled(self, event: Recalled) -> None:
        """A notice has come; it is done with."""
        follow = self.follows.get(event.channel)
        message = self.truth.place(event.message_id)
        if message is not None and not message.recalled and event.message_id not in self.truth.undone_recalls:
            self.world.broken("recall", f"{self.name} hears {event}, and nobody has recalled it")
        log = self.truth.view.get((event.channel, follow.epoch), {}) if follow is not None else {}
        notice = log.get(event.offset)
        if notice is not None and notice.recalls == event.message_id:
            self.got.add(notice.message_id)

    async def _take(self, message: m.Delivery) -> Outcome | None:
        """See client.OnMessage."""
        follow = self._handed(message)
        habits, random = self.habits, self.world.random
        choice = random.random()
        choice = 0.5 if self.calm else choice
        message_id = message.message_id
        if message_id in self._poison or choice > 1.0 - habits.poison:
            self._poison.add(message_id)
            return self._later(message)
        if choice < habits.put_off and self._put_off.get(message_id, 0) < MAX_PUT_OFF:
            return self._later(message)
        if choice > 1.0 - habits.slow and not self.calm:
            over: Deferred[None] = Deferred(lambda _: None)
            self._clock.callLater(random.uniform(0.0, habits.slowness), _fire, over)
            await over
        known = self._in_hand.get(message.channel) == message_id  # else the channel was lost meanwhile, and with it its place
        if known:
            del self._in_hand[message.channel]
        self.got.add(message_id)
        if known:
            self._done_with.add((message.channel, message_id))
        if follow is not None and known:
            follow.done[message_id] = message.offset
        if habits.put_off <= choice < habits.put_off + habits.reject:
            self.world.seen["rejected"] += 1
            raise Reject
        return None

    def _later(self, message: m.Delivery) -> Outcome:
        """Not now."""
        self.world.seen["put off"] += 1
        self._put_off[message.message_id] = self._put_off.get(message.message_id, 0) + 1
        self._put_off_at.add((message.channel, message.offset))
        self._in_hand.pop(message.channel, None)
        return Outcome.RETRY_LATER

    def _handed(self, message: m.Delivery) -> Follow | None:
        channel, world = message.channel, self.world
        if world.tracing:
            world.trace(self.name, "is given", channel, message.offset, message.message_id, message.payload[:12])
        if channel in self._in_hand:
            world.broken("I3", f"{self.name} is given {channel} {message.offset} while it works on another")
        self._in_hand[channel] = message.message_id
        if (channel, message.message_id) in self._done_with:  # in whatever log: docs/protocol.md section 11.6
            world.broken("I2", f"{self.name} is given {channel} {message.offset} {message.message_id}, which it has answered")
        follow = self.follows.get(channel)
        if follow is None:
            return None  # it was unfollowed while this was under way
        known = follow.done.get(message.message_id)
        if known == message.offset or (known and not self.truth.disasters):  # what is undone may go out anew
            world.broken("I2", f"{self.name} is given {channel} {message.offset} {message.message_id} again")
        undone = self.truth.disasters and (channel, message.offset) in self._put_off_at  # another message is there now
        # and what was left out may be due again: by a clock that was set back, or as nobody remembers that it was given up
        late = message.message_id in self._put_off or (channel, message.message_id) in self.left_out
        if message.offset < follow.handed and not late and not undone:
            world.broken("I3", f"{self.name} is given {channel} {message.offset} behind {follow.handed}")
        follow.handed = max(follow.handed, message.offset)
        return follow

    # --------------------------------------------------------------------------------------------------------------- owed

    def unprocessed(self, channel: str) -> int:
        """How many messages have arrived that the application is not done with."""
        inbox = self.client._inbox if self.client is not None else None
        state = inbox._channels.get(channel) if inbox is not None else None
        return 0 if state is None else len(state.queue) + (state.current is not None)

    def check_window(self) -> None:
        """What waits or is in work is within the window, but for what the server counts no longer."""
        inbox = self.client._inbox if self.client is not None else None
        if inbox is None or inbox._held_messages <= self.window.messages:
            return
        items = [
            item for channel in inbox._channels.values() for item in (*channel.queue, channel.current) if isinstance(item, Item)
        ]
        held = [item.delivery for item in items if item.held]
        counted = [delivery for delivery in held if self._is_due(delivery)]
        if len(counted) > self.window.messages:
            self.world.broken("I5", f"{self.name} has {len(counted)} messages in a window of {self.window.messages}")

    def _is_due(self, delivery: m.Delivery) -> bool:
        """Whether it is still to be delivered, so that it takes room as long as it is not acknowledged."""
        entry = self.truth.place(delivery.message_id)
        if entry is None or entry.offset <= self.floor(delivery.channel):
            return False
        return not self.truth.excused(entry, self.name, self.network.server)

    def owed(self) -> list[Entry]:
        """What the application should have and does not."""
        missing: list[Entry] = []
        for channel, follow in self.follows.items():
            log = self.truth.view.get((channel, follow.epoch), {})
            missing += [
                entry
                for offset, entry in log.items()
                if offset > max(follow.begun, follow.lost)
                and entry.message_id not in self.got
                and not self.truth.excused(entry, self.name)
            ]
        return missing


def _fire(deferred: Deferred[None]) -> None:
    if not deferred.called:
        deferred.callback(None)
