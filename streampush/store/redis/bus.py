"""The way from and to other nodes, over Redis: one connection that subscribes to what is followed here; see push.bus.

Theory of operation. Scripts that append PUBLISH what is new on a name of its channel, so a publication goes only to nodes where
somebody follows it. Those that note what became of a message PUBLISH on a name of that message, without a word: who watches it
reads it again. Subscribing takes a moment, and the connection may be lost: whenever a subscription begins, the channel's log is
compared with what is known of it here, or the message is read. The process has a name of its own, too, for orders, and for an
echo that it sends itself every few seconds: a connection that is there and carries nothing is found by that, and another one is
made.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any, Protocol

import msgpack
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.backoff import doubled
from streampush.errors import StoreUnavailable
from streampush.protocol.terms import Durability
from streampush.push.bus import Hearing, Order, OrderKind
from streampush.store.redis import entries
from streampush.store.redis.connecting import Connector, RedisSubscriber, Unreachable
from streampush.store.redis.link import FIRST_PAUSE, LONGEST_PAUSE, RedisLink
from streampush.store.redis.scripts import Scripts

ECHO_INTERVAL = 2.0
"""Seconds between two echoes."""

ECHOES_MISSED = 3
"""In a row, before the connection counts as dead."""

SILENT = "what this node sends itself does not come back"
"""Why a connection ends that is there and carries nothing."""

LOOK_PAUSE = 0.5
"""Seconds before logs that could not be looked at, because Redis was away for the store, are looked at again."""

CHUNK = 500
"""Names of one SUBSCRIBE, and channels of one look at the logs."""


class BusMetrics(Protocol):
    """What is counted of the bus."""

    def bus_heard(self, kind: str, size: int) -> None:
        """A message of so many bytes came: "publication", "hint", "receipt", "order" or "echo"."""

    def bus_lost(self, kind: str) -> None:
        """The connection was lost ("connection") or carried nothing ("silent"), or could not be made ("refused")."""

    def bus_sent(self, kind: str) -> None:
        """An order ("order") or an echo ("echo") was sent; or was not, as Redis was away ("lost")."""


class RedisBus:
    """See push.bus.Bus. Between `start` and `stop` it tells `hearing` what it hears.

    `link` is that of the store, for what is sent; `run` is this process, see values.run_name; `token` a word that only it has.
    """

    shared = True
    _log = Logger(namespace="streampush.store")

    def __init__(
        self,
        clock: Any,
        connector: Connector,
        link: RedisLink,
        scripts: Scripts,
        metrics: BusMetrics,
        uniform: Callable[[], float],
        *,
        run: str,
        token: str,
        durability: Callable[[], Durability],
        echo_interval: float = ECHO_INTERVAL,
    ) -> None:
        self._clock = clock
        self._connector = connector
        self._link = link
        self._scripts = scripts
        self._metrics = metrics
        self._uniform = uniform
        self._token = token
        self._durability = durability
        self._echo_interval = echo_interval
        self._wakes = f"{scripts.prefix}wake:".encode()
        self._watches = f"{scripts.prefix}msg:".encode()
        self._orders = f"{scripts.prefix}node:"
        self._own = f"{self._orders}{run}".encode()
        self._hearing: Hearing | None = None
        self._wanted: set[bytes] = set()
        self._changes: dict[bytes, bool] = {}
        self._confirmed: dict[str, None] = {}  # channels whose logs are to be looked at
        self._flushing: IDelayedCall | None = None
        self._subscriber: RedisSubscriber | None = None
        self._attempt: Deferred[None] | None = None
        self._again: IDelayedCall | None = None
        self._echo: IDelayedCall | None = None
        self._unheard = 0  # echoes that Redis has published since the last one that came back
        self._tries = 0
        self._reason = "no connection for what other nodes say has been made yet"
        self._told = ""

    # ------------------------------------------------------------------------------------------------------ start and stop

    def start(self, hearing: Hearing) -> None:
        """Begins to listen."""
        self._hearing = hearing
        self._echo = self._clock.callLater(self._echo_interval, self._send_echo)
        self._connect()

    async def stop(self) -> None:
        """Hears nothing any more, and leaves no timer behind."""
        self._hearing = None
        for call in (self._again, self._echo, self._flushing):
            if call is not None:
                call.cancel()
        self._again = self._echo = self._flushing = None
        if self._attempt is not None:
            self._attempt.cancel()
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            await subscriber.close()

    def look_again(self) -> None:
        """Another Redis answers the store from now on, or the same one after a while: it may have forgotten something, and what was
        appended meanwhile need not have been published here. A connection that is kept does not say that it missed it: Redis that
        was a replica for a moment leaves its subscribers alone."""
        if self._hearing is None:
            return
        self._hearing.back()
        if self._subscriber is not None:
            for name in tuple(self._wanted):
                self._answered(name)

    def reason(self, now: float) -> str:
        """A check for observe.health: why nothing is heard of other nodes."""
        if self._reason:
            return f"other nodes are not heard: {self._reason}"
        return f"other nodes are not heard: {SILENT}" if self._unheard >= ECHOES_MISSED else ""

    # ---------------------------------------------------------------------------------------------- see push.bus.Bus

    def interest(self, channel: str, follows: bool) -> None:
        """See push.bus.Bus."""
        self._want(self._wakes + channel.encode(), follows)

    def watch(self, message_id: str, watched: bool) -> None:
        """See push.bus.Bus."""
        self._want(self._watches + message_id.encode(), watched)

    def _want(self, name: bytes, wanted: bool) -> None:
        (self._wanted.add if wanted else self._wanted.discard)(name)
        if self._subscriber is not None:
            self._changes[name] = wanted
            self._flush_soon()

    def tell(self, run: str, order: Order) -> None:
        """See push.bus.Bus."""
        packed = msgpack.packb((str(order.kind), order.device_id, order.text, order.number), use_bin_type=False)
        self._send(f"{self._orders}{run}", packed, "order")

    def _send(self, name: str, message: bytes, kind: str) -> None:
        async def send() -> None:
            try:
                answer = await self._link.command("PUBLISH", name, message)
            except StoreUnavailable:
                answer = None
            if not isinstance(answer, int):  # an error of Redis is a value
                self._metrics.bus_sent("lost")
                return
            self._metrics.bus_sent(kind)
            if kind == "echo":  # only what Redis has taken can come back: it may be away, or slow
                self._unheard += 1

        Deferred.fromCoroutine(send()).addErrback(self._fault)

    # ---------------------------------------------------------------------------------------------------------- connecting

    def _connect(self) -> None:
        self._again = None
        self._attempt = Deferred.fromCoroutine(self._try())
        self._attempt.addErrback(self._failed)

    async def _try(self) -> None:
        subscriber = await self._connector.subscriber(self._heard, self._answered)
        self._attempt = None
        if self._hearing is None:
            subscriber.abort("the server stops")
            return
        self._subscriber = subscriber
        self._unheard = 0
        subscriber.closed.addCallback(self._lost)
        subscriber.subscribe([self._own])
        self._changes = dict.fromkeys(self._wanted, True)
        self._flush_soon()
        self._hearing.back()

    def _begun(self) -> None:
        """Redis lets us hear what is sent to this node."""
        self._tries = 0
        if self._told:
            self._log.info("other nodes are heard again")
        self._reason = self._told = ""

    def _lost(self, reason: str) -> None:
        if self._subscriber is None:
            return  # it was ended by `stop`
        self._subscriber = None
        self._changes.clear()
        self._confirmed.clear()
        self._metrics.bus_lost("silent" if reason == SILENT else "connection")
        self._tell_problem(reason)
        self._try_again()

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if self._hearing is None:
            return
        self._metrics.bus_lost("refused")
        if isinstance(failure.value, Unreachable):
            self._tell_problem(str(failure.value))
        else:
            self._fault(failure)
        self._try_again()

    def _tell_problem(self, reason: str) -> None:
        self._reason = reason
        if reason != self._told:
            self._told = reason
            self._log.error("other nodes are not heard: {problem}", problem=reason)

    def _try_again(self) -> None:
        pause = doubled(FIRST_PAUSE, self._tries, LONGEST_PAUSE) * self._uniform()
        self._tries += 1
        self._again = self._clock.callLater(pause, self._connect)

    def _fault(self, failure: Failure) -> None:
        self._log.failure("hearing other nodes failed", failure=failure)

    # --------------------------------------------------------------------------------------------------------- subscribing

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        """Tells Redis what has changed, a chunk a turn, and looks at the logs whose subscriptions have begun."""
        self._flushing = None
        subscriber = self._subscriber
        if subscriber is None:
            return
        chunk = [next(changes) for changes in [iter(self._changes.items())] for _ in range(min(CHUNK, len(self._changes)))]
        for name, _ in chunk:
            del self._changes[name]
        follow = [name for name, wanted in chunk if wanted]
        leave = [name for name, wanted in chunk if not wanted]
        if follow:
            subscriber.subscribe(follow)
        if leave:
            subscriber.unsubscribe(leave)
        confirmed = list(islice(self._confirmed, CHUNK))
        if confirmed:
            for channel in confirmed:
                del self._confirmed[channel]
            self._spawn(self._look(confirmed, subscriber))
        if self._changes or self._confirmed:
            self._flush_soon()

    def _answered(self, name: bytes) -> None:
        """A subscription has begun: from now on nothing is missed, but something may have been."""
        if name == self._own:
            self._begun()
        elif name.startswith(self._wakes):
            self._confirmed[name[len(self._wakes) :].decode()] = None
            self._flush_soon()
        elif name.startswith(self._watches) and self._hearing is not None:
            self._hearing.changed(name[len(self._watches) :].decode())

    async def _look(self, channels: list[str], subscriber: RedisSubscriber) -> None:
        try:
            epoch, tops = await self._scripts.run("tops", channels)
        except StoreUnavailable:
            if self._subscriber is subscriber:  # else they are looked at with the next connection
                self._confirmed.update(dict.fromkeys(channels))
                self._flushing = self._flushing or self._clock.callLater(LOOK_PAUSE, self._flush)
            return
        if self._hearing is not None:
            for channel, top in zip(channels, tops, strict=True):
                self._hearing.seen(channel, epoch.decode(), top)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(self._fault)

    # ------------------------------------------------------------------------------------------------------------- hearing

    def _heard(self, name: bytes, message: bytes) -> None:
        if self._hearing is None:
            return
        try:
            if name.startswith(self._wakes):
                self._woken(self._hearing, name[len(self._wakes) :].decode(), message)
            elif name.startswith(self._watches):
                self._metrics.bus_heard("receipt", len(message))
                self._hearing.changed(name[len(self._watches) :].decode())
            elif name == self._own:
                self._asked(self._hearing, message)
        except Exception:  # noqa: BLE001 - what one of us cannot read must not end the hearing of all; it is logged
            self._log.failure("a message of another node could not be read")

    def _woken(self, hearing: Hearing, channel: str, message: bytes) -> None:
        packed_epoch, offset, facts, headers, payload = msgpack.unpackb(message, raw=True)
        epoch = packed_epoch.decode()
        if payload is False:
            self._metrics.bus_heard("hint", len(message))
            hearing.seen(channel, epoch, offset)
            return
        self._metrics.bus_heard("publication", len(message))
        hearing.heard(entries.appended((channel.encode(), offset, facts, headers, payload), epoch, self._durability()))

    def _asked(self, hearing: Hearing, message: bytes) -> None:
        kind, *rest = msgpack.unpackb(message, raw=True)
        if kind == b"echo":
            if rest == [self._token.encode()]:
                self._unheard = 0
                self._metrics.bus_heard("echo", len(message))
            return
        device_id, text, number = rest
        self._metrics.bus_heard("order", len(message))
        hearing.ordered(Order(OrderKind(kind.decode()), device_id.decode(), text.decode(), number))

    def _send_echo(self) -> None:
        self._echo = self._clock.callLater(self._echo_interval, self._send_echo)
        if not self._link.connected:
            return
        subscriber = self._subscriber
        if subscriber is not None and self._unheard >= ECHOES_MISSED:
            subscriber.abort(SILENT)
            return
        self._send(self._own.decode(), msgpack.packb(("echo", self._token), use_bin_type=False), "echo")
