"""One connection: Twisted's side of http2.ClientConnection. Bytes become calls of exchanges, exchanges become bytes.

Theory of operation. Whatever happens (bytes, a timer, a request, the end of the transport) is passed to the core, its events to the
exchanges (`Traffic`), and then `_settle` does what may have become due: it writes, closes what is drained, sets the timer, and asks
the owner for more work. All that one turn of the reactor adds goes out in one write. While the transport has enough to write,
nothing is taken from the core, so what has not left can still be taken back, and there is no room for more.

Deadlines of exchanges have no timers. `Traffic.expire_at` is no later than the earliest of them; when it comes, all are looked at.
Most are answered by then, so that is once in a whole deadline, and takes some 50 microseconds for a thousand exchanges.

An exchange that expires without an answer casts doubt on the whole connection: a PING goes out, and until anything is heard, the
connection gets no more work. So a server that died silently costs what was under way, and not what comes behind it.

Nothing is requested before the server's SETTINGS are there. It costs a round trip in the life of a connection, and a server that
does not want us (a certificate, a GOAWAY) has said so before a request was written: nothing is unknown then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.apns.alarm import Alarm
from streampush.apns.exchange import Exchange
from streampush.apns.http2 import (
    ClientConnection,
    ConnectionFailed,
    ConnectionState,
    Event,
    GoneAway,
    LocalProtocolError,
    PingAnswered,
    SettingsChanged,
    Verdict,
    error_name,
)
from streampush.apns.http2.frames import MAX_STREAM_ID
from streampush.apns.link_ports import LinkOwner, Security
from streampush.apns.link_state import LinkEnd, LinkState, may_follow
from streampush.apns.link_times import IDS_END, LinkTimes
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.timeline import Timeline, printable
from streampush.apns.traffic import OfConnection, Traffic

_log = Logger()


@implementer(IHandshakeListener, IPushProducer)
class Link(Protocol):
    """`core`: not started, with `Limits.assumed_max_streams` 0. `number`: of the connection in its pool, from 1. `age`: seconds
    after which it is worn. The dialer calls `dialing_failed`, or makes it the protocol of a transport; when that is secure,
    `handshakeCompleted` is to be called.
    """

    def __init__(
        self,
        core: ClientConnection,
        clock: IReactorTime,
        owner: LinkOwner,
        security: Security,
        limits: PoolLimits,
        number: int,
        age: float,
    ) -> None:
        now = clock.seconds()
        self.number = number
        self.address = ""  # of the server, once it is known
        self.state = LinkState.CONNECTING
        self.room = 0  # how many exchanges it takes now
        self.heard_at = now  # when the last bytes came
        self.worn = False
        self.round_trip: float | None = None  # seconds that the last PING took
        self.timeline = Timeline(limits.timeline)
        self.dialing: Deferred[None] | None = None
        self._core = core
        self._clock = clock
        self._owner = owner
        self._security = security
        self._limits = limits
        self._traffic = Traffic(core, self, owner.exchange_returned, limits.deadline_grain)
        self._end: LinkEnd | None = None  # as soon as it is known why it ends
        self._full = False  # the transport has enough to write
        self._starved: set[int] = set()  # streams that wait for the transport, not for a window
        self._doubted = False  # an answer is late, and nothing was heard since
        self._connected = False
        self._closing = False
        self._busy = False  # within a turn, which ends with _settle
        self._flush_call: IDelayedCall | None = None
        self._times = LinkTimes(limits, now, age)
        self._alarm = Alarm(clock, self._ring)
        self._last_good_id = (MAX_STREAM_ID - 2 * limits.spare_ids) | 1  # a successor is wanted from then on
        self._look_from = 0  # ids of requests that are more than a request
        self._sent_before = 0  # requests up to the last look for idleness
        self.timeline.add(now, "connecting")
        self._arm()

    # -------------------------------------------------------------------------------------------------------------- for the pool

    @property
    def in_flight(self) -> int:
        """Exchanges under way."""
        return len(self._traffic.exchanges)

    @property
    def sent(self) -> int:
        """Requests in all."""
        return self._core.requests

    @property
    def answers(self) -> int:
        """Answers and refusals in all."""
        return self._traffic.answers

    @property
    def used_lately(self) -> bool:
        """Whether something is under way, or was sent since idleness was looked for."""
        return bool(self.in_flight) or self.sent != self._sent_before

    @property
    def coming(self) -> bool:
        """Whether there may soon be room that is not there yet: it connects, or was not tried yet."""
        return self.state in (LinkState.CONNECTING, LinkState.PROBING)

    def send(self, exchange: Exchange) -> None:
        """Begins the exchange; `room` must not be 0. What this turn adds goes out together."""
        self.room -= 1
        stream_id = self._traffic.send(exchange)
        if stream_id >= self._look_from:
            self._look_at(stream_id)
        if not self._busy and self._flush_call is None:
            self._touched()

    def cancel(self, exchange: Exchange) -> Verdict | None:
        """Ends the exchange without calling it; gives what the server can know of it, None if it is not here."""
        verdict = self._traffic.drop(exchange)
        self._touched()
        return verdict

    def drain(self, why: str) -> None:
        """No new requests; it closes when those under way are answered, or at the latest when their deadlines have passed."""
        if self.state is LinkState.CONNECTING:
            self.abort(LinkEnd(why, ours=True))
        elif self.state in (LinkState.PROBING, LinkState.OPEN):
            self._end = LinkEnd(why, ours=True)
            self._core.close()
            self._move(LinkState.DRAINING, why)
            self._touched()

    def rest(self, seconds: float) -> None:
        """See exchange.Carrier. Whoever asks for the longer rest gets it."""
        until = self._clock.seconds() + seconds
        if self._times.resting_until == inf or until > self._times.resting_until:
            self._times.resting_until = until
            self.room = 0
            self._note(f"rests for {seconds:g} s")
            self._arm()

    def abort(self, end: LinkEnd) -> None:
        """Ends it now; what is under way is returned."""
        if self.state is LinkState.CLOSED:
            return
        self._end = self._end or end
        dialing, self.dialing = self.dialing, None
        if self._connected:
            self._closing = True
            self.room = 0
            transport: Any = self.transport
            transport.abortConnection()  # connectionLost follows
            return
        self._over()
        if dialing is not None:
            dialing.cancel()

    # ----------------------------------------------------------------------------------------------------------- for the dialer

    def dialing_failed(self, end: LinkEnd) -> None:
        """There is no connection."""
        self.dialing = None
        if self.state is LinkState.CONNECTING and not self._connected:
            self._end = end
            self._over()

    # --------------------------------------------------------------------------------------------------------- for the exchanges

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """See exchange.Carrier."""
        if stream_id in self._traffic.exchanges:
            self._core.send_data(stream_id, data, end_stream)
            self._touched()

    def writable(self, stream_id: int) -> int:
        """See exchange.Carrier."""
        if stream_id not in self._traffic.exchanges:
            return 0
        if self._full:
            self._starved.add(stream_id)
            return 0
        return self._core.writable(stream_id)

    def consumed(self, stream_id: int, size: int) -> None:
        """See exchange.Carrier."""
        if self.state is not LinkState.CLOSED:
            self._core.consumed(stream_id, size)
            self._touched()

    def afterwards(self, call: Callable[[], None]) -> None:
        """See exchange.Carrier."""
        self._traffic.afterwards(call)

    def deadline_moved(self, deadline: float) -> None:
        """See exchange.Carrier."""
        if deadline < self._traffic.expire_at:
            self._traffic.expire_at = deadline
            self._arm()

    # --------------------------------------------------------------------------------------------------------- for the transport

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if self.state is LinkState.CLOSED:  # given up while it came about
            transport.abortConnection()
            return
        self._connected = True
        transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._note(f"connected to {self.address}" if self.address else "connected")

    def handshakeCompleted(self) -> None:
        if self.state is not LinkState.CONNECTING or self._closing:
            return  # TLS may agree again on a connection that is in use
        transport: Any = self.transport
        now = self._clock.seconds()
        problem = self._security.check(transport)
        if problem is not None:
            self._note(problem)
            self._end = LinkEnd(problem, permanent=True)
            self._close()
            return
        self.dialing = None
        self._times.connecting_until = inf
        self._move(LinkState.PROBING)
        self._core.start(now)
        self._touched()

    def dataReceived(self, data: bytes) -> None:
        now = self.heard_at = self._clock.seconds()
        self._doubted = False
        self._busy = True
        events = self._core.receive(data, now)
        self._measure()  # the core knows already what the exchanges are about to hear
        self._happened(events, now)
        if self._traffic.answers and self.state is LinkState.PROBING:
            self._open()
        self._settle()

    def pauseProducing(self) -> None:
        self._full = True
        self.room = 0

    def resumeProducing(self) -> None:
        self._full = False
        starved, self._starved = self._starved, set()
        self._busy = True
        for stream_id in starved:
            self._traffic.resume(stream_id)
        self._settle()

    def stopProducing(self) -> None:
        self._full = True
        self.room = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connected = False
        if self.state is LinkState.CLOSED:
            return
        if self._end is None:
            self._end = self._security.explain(reason)
        self._over()

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _happened(self, events: list[Event], now: float) -> None:
        for event in self._traffic.take(events):
            self._take(event, now)

    def _take(self, event: OfConnection, now: float) -> None:
        if isinstance(event, SettingsChanged):
            self._note(f"up to {event.max_streams} streams")
        elif isinstance(event, PingAnswered):
            self.round_trip = event.seconds
        elif isinstance(event, GoneAway):
            text = f"GOAWAY {error_name(event.code)}, last stream {event.last_stream_id}"
            said = f"{text}, {len(event.streams)} returned, {printable(event.debug)!r}"
            self._end = LinkEnd(text)
            if self.state is LinkState.DRAINING:
                self._note(said)
            else:
                self._move(LinkState.DRAINING, said)
            self._owner.link_gone_away(self, event.code)
        elif isinstance(event, ConnectionFailed):
            self._note(f"failed: {error_name(event.code)}: {event.text}")
            self._end = LinkEnd(event.text)

    def _measure(self) -> None:
        """Counts the room anew. It is kept, not asked for, because every request looks at it."""
        room = 0
        if not (self._full or self._doubted or self._closing or self._times.resting_until != inf):
            if self.state is LinkState.OPEN:
                room = self._core.room()
            elif self.state is LinkState.PROBING:
                room = min(self._core.room(), max(0, self._limits.probing_streams - self._core.open_streams))
        self.room = room

    def _look_at(self, stream_id: int) -> None:
        """A request of this id went out, one of the first or of the last."""
        if stream_id == self._last_good_id:
            self._times.worn_at = IDS_END  # told by the timer, not in the middle of the owner's work
            self._arm()
        if self.state is LinkState.PROBING and self._times.probing_until == inf:
            self._times.probing_until = self._clock.seconds() + self._limits.probing_timeout

    def _touched(self) -> None:
        """Something is to be written, or done, soon: once for all that this turn of the reactor brings."""
        if not self._busy and self._flush_call is None and self._connected:
            self._flush_call = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flush_call = None
        self._guarded(self._settle)

    def _guarded(self, step: Callable[[], None]) -> None:
        """A step that the reactor began. A fault of ours ends this connection and what is on it: nothing waits for ever."""
        try:
            step()
        except Exception:  # noqa: BLE001 - any; the reactor would log it and leave the connection as it is
            _log.failure("A connection is ended for a fault of our own")
            self.abort(LinkEnd("a fault of our own"))

    def _settle(self) -> None:
        """The end of a turn."""
        if not self._connected or self._closing:
            self._busy = False
            return
        self._busy = True  # what the owner sends now is written below
        self._measure()
        self._owner.link_ready()
        self._busy = False
        over = self._core.state is ConnectionState.CLOSED
        self._write(over)
        if over or (self.state is LinkState.DRAINING and not self._core.open_streams):
            self._close()
        self._arm()

    def _write(self, force: bool = False) -> None:
        if force or not self._full:
            data = self._core.outbound()
            transport: Any = self.transport
            if data:
                transport.write(data)

    def _close(self) -> None:
        """Ends the transport behind what was written, and resets it if that takes too long."""
        self._closing = True
        self.room = 0
        transport: Any = self.transport
        transport.unregisterProducer()
        self._times.closing_until = self._clock.seconds() + self._limits.close_timeout
        self._arm()
        transport.loseConnection()

    def _open(self) -> None:
        self._times.probing_until = inf
        self._move(LinkState.OPEN)

    def _move(self, state: LinkState, why: str = "") -> None:
        old = self.state
        if not may_follow(old, state):
            raise LocalProtocolError(f"a connection that is {old.value} cannot be {state.value}")
        self.state = state
        if state is LinkState.OPEN:
            self._look_from = self._last_good_id
        if state is LinkState.DRAINING:
            self.room = 0
        self._note(f"{state.value}: {why}" if why else state.value)
        self._owner.link_moved(self, old)

    def _over(self) -> None:
        """The transport is gone, or never was."""
        self._closing = True
        self.room = 0
        call, self._flush_call = self._flush_call, None
        if call is not None:
            call.cancel()
        self._happened(self._core.end_of_input(), self._clock.seconds())
        end = self._end or self._unexplained()
        self._move(LinkState.CLOSED, end.text)
        self._alarm.stop()
        self._owner.link_closed(self, replace(end, answered=bool(self._traffic.answers)))

    def _unexplained(self) -> LinkEnd:
        return LinkEnd("the server ended the connection" + ("" if self.state is LinkState.OPEN else " before it was of use"))

    def _note(self, what: str) -> None:
        self.timeline.add(self._clock.seconds(), what)

    # --------------------------------------------------------------------------------------------------------------------- time

    def _arm(self) -> None:
        """Makes sure that the timer comes no later than it has to."""
        if self.state is LinkState.CLOSED:
            return
        core_deadline = self._core.deadline
        at = min(self._traffic.expire_at, self._times.first())
        self._alarm.set(at if core_deadline is None or at < core_deadline else core_deadline)

    def _ring(self, now: float) -> None:
        self._guarded(partial(self._due, now))

    def _due(self, now: float) -> None:
        if now >= self._times.connecting_until:
            self._times.connecting_until = inf
            self.abort(LinkEnd(f"not connected within {self._limits.connect_timeout:g} s"))
        elif now >= self._times.closing_until:
            self._times.closing_until = inf
            self.abort(LinkEnd("it did not close in time"))
        elif self.state is not LinkState.CLOSED:
            self._busy = True
            self._do_due(now)
            self._settle()
        self._arm()

    def _do_due(self, now: float) -> None:
        events = self._core.tick(now)
        self._measure()
        self._happened(events, now)
        if now >= self._traffic.expire_at - self._limits.deadline_grain:
            self.room = 0  # what is sent because an answer did not come shall not go the same way; _settle counts the room anew
            if self._traffic.expire(now):
                self._doubt(now)
        if now >= self._times.probing_until:
            self._times.probing_until = inf
            if self.state is LinkState.PROBING:
                self._open()
        if now >= self._times.resting_until:
            self._times.resting_until = inf
        if now >= self._times.worn_at:
            ids = self._times.worn_at == IDS_END
            self._times.worn_at = inf
            self.worn = True
            self._owner.link_worn(self, "its stream ids" if ids else "its age")
        if now >= self._times.idle_at:
            self._times.idle_at = now + self._limits.idle_timeout
            idle = not self.used_lately
            self._sent_before = self.sent
            if idle:
                self._owner.link_idle(self)

    def _doubt(self, now: float) -> None:
        """An answer is overdue. The server may be slow with one request, or gone."""
        if now >= self._times.doubt_at and self._core.state is not ConnectionState.CLOSED:
            self._times.doubt_at = now + self._limits.doubt_interval
            self._doubted = True
            self.room = 0
            self._note("an answer is late: asking for a sign of life")
            self._core.ping(now)
