"""The connections to one host with one credential, and the requests that share them.

Theory of operation. A request goes to the connection with the fewest under way. If none has room it waits in a bounded queue, the
one with the earliest deadline first; there is a queue only while there is no room, because whatever makes room (`link_ready`) fills
it.

`_seek` opens connections, one at a time: at once if there is none, after some patience if all are full, beside an old one that is
to be replaced or one that the server is taking away. A connection that failed before it was of use is followed by the next after a
backoff; after some patience, or at once when it would be the same again (a certificate, no HTTP/2), those who wait are told, and
who comes is told too until the next try.

What a server certainly did not act on is sent again by itself, some times, as long as its deadline allows: at once if the
connection ended over it, after a short rest if it was refused. What is unknown goes back to the exchange.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from math import inf
from random import Random, SystemRandom

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from streampush.apns.alarm import Alarm
from streampush.apns.dialing import Dialer
from streampush.apns.exchange import Exchange, Fault
from streampush.apns.http2 import ClientConnection, ErrorCode, Limits, Verdict
from streampush.apns.link import Link
from streampush.apns.link_state import LinkEnd, LinkState
from streampush.apns.outcome import Why
from streampush.apns.pool_figures import LinkFigures, PoolFigures, figures_of
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.ports import ApnsMetrics, NoMetrics
from streampush.apns.redialing import Redialing
from streampush.apns.waiting import Waiting

_log = Logger()

_USABLE = (LinkState.PROBING, LinkState.OPEN)
_GOOD_LIFE = 60.0  # seconds; a connection that lived so long without an answer had nothing to do, it did not fail


class Pool:
    """See the module. `random`: for backoff, ages and rests. `automatic_windows`: see http2.ClientConnection.

    `first_stream_id`: of each connection.
    """

    def __init__(
        self,
        dialer: Dialer,
        clock: IReactorTime,
        *,
        limits: PoolLimits | None = None,
        http2: Limits | None = None,
        metrics: ApnsMetrics | None = None,
        random: Random | None = None,
        automatic_windows: bool = True,
        first_stream_id: int = 1,
    ) -> None:
        self._dialer = dialer
        self._clock = clock
        self._limits = limits or PoolLimits()
        self._http2 = replace(http2 or Limits(), assumed_max_streams=0)
        self._metrics: ApnsMetrics = metrics or NoMetrics()
        self._random = random or SystemRandom()
        self._automatic_windows = automatic_windows
        self._first_stream_id = first_stream_id
        self._links: list[Link] = []  # all that are not closed
        self._usable: list[Link] = []  # those in which there may be room
        self._only: Link | None = None  # the one of them, as long as there is no other and the pool does not stop
        self._past: deque[LinkFigures] = deque(maxlen=self._limits.kept_timelines)
        self._born: dict[int, float] = {}
        self._number = 0
        self._waiting: Waiting[Exchange] = Waiting(self._limits.max_queued, self._limits.max_queued_bytes)
        full = f"as many wait already as may: {self._limits.max_queued} requests or {self._limits.max_queued_bytes} bytes"
        self._queue_full = Fault(Verdict.NOT_WRITTEN, Why.QUEUE_FULL, full)  # one for all: there may be very many
        self._resting: dict[Exchange, IDelayedCall] = {}
        self._redialing = Redialing(self._limits, self._random)
        self._full_since: float | None = None  # since when something waits although there are connections
        self._dialed_at = -inf
        self._seek_at = -inf  # before that, or until a connection changes, to seek is of no use
        self._successor_wanted = False  # the server takes away a connection that was in use
        self._alarm = Alarm(clock, self._due)
        self._stopping = False
        self._stop_at = inf  # when what is still under way is given up
        self._stopped: list[Deferred[None]] = []

    # ------------------------------------------------------------------------------------------------------------ for the caller

    def submit(self, exchange: Exchange, now: float | None = None) -> None:
        """Sends it as soon as there is room. It ends by its deadline; `failed` may be called before this returns.

        `now`: seconds of the clock, of who has just looked.
        """
        if now is None:
            now = self._clock.seconds()
        only = self._only
        if only is not None and only.room and not self._waiting.count and exchange.deadline > now:
            only.send(exchange)  # nearly always
        elif self._stopping:
            self._fail(exchange, Fault(Verdict.NOT_WRITTEN, Why.STOPPING, "the pool is stopping"))
        elif exchange.deadline <= now:
            self._fail(exchange, Fault(Verdict.NOT_WRITTEN, Why.DEADLINE, "its deadline had passed before it was sent"))
        elif not self._waiting.count and (link := self._least_loaded()) is not None:
            link.send(exchange)
        elif not self._usable and self._redialing.hopeless(now):
            self._fail(exchange, self._no_connection())
        elif not self._waiting.has_room(exchange):
            self._fail(exchange, self._queue_full)
        else:
            self._wait(exchange, now)
            if now >= self._seek_at:
                self._seek(now)

    def cancel(self, exchange: Exchange) -> Verdict | None:
        """Takes it back without calling it; gives what the server can know of it, or None if it has ended already."""
        if exchange.waiting:
            self._waiting.remove(exchange)
            return Verdict.NOT_WRITTEN
        rest = self._resting.pop(exchange, None)
        if rest is not None:
            rest.cancel()
            return Verdict.REFUSED
        return exchange.carrier.cancel(exchange) if exchange.carrier is not None else None

    def stop(self) -> Deferred[None]:
        """Takes nothing more; fires when all connections are closed. What waits fails now, what is under way has some time."""
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        if not self._stopping:
            self._stopping = True
            self._only = None
            self._fail_waiting(Fault(Verdict.NOT_WRITTEN, Why.STOPPING, "the pool is stopping"))
            for link in list(self._links):
                link.drain("the pool is stopping")
            self._stop_at = self._clock.seconds() + self._limits.drain_timeout
            self._alarm.set(self._stop_at)
        self._look_stopped()
        return stopped

    def cut(self) -> None:
        """Behind `stop`: closes all connections now; nobody knows what became of what is under way."""
        for link in list(self._links):
            link.abort(LinkEnd("the pool is stopping", ours=True))

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not (self._waiting or self._resting or any(link.in_flight for link in self._links))

    def figures(self) -> PoolFigures:
        """What there is now."""
        last = self._redialing.last
        return PoolFigures(
            queued=len(self._waiting),
            queued_bytes=self._waiting.size,
            resting=len(self._resting),
            in_flight=sum(link.in_flight for link in self._links),
            room=sum(link.room for link in self._usable),
            fault=last.text if last is not None and not self._usable else "",
            permanent=last is not None and last.permanent,
            failures=self._redialing.failures,
            links=tuple(map(figures_of, self._links)),
            past=tuple(self._past),
        )

    # ------------------------------------------------------------------------------------------------------------- for the links

    def link_ready(self) -> None:
        """See LinkOwner."""
        if self._waiting or self._usable_worn():
            now = self._clock.seconds()
            self._fill(now)
            self._seek(now)

    def link_moved(self, link: Link, old: LinkState) -> None:
        """See LinkOwner."""
        self._metrics.link_moved(old, link.state)
        self._seek_at = -inf
        if link.state is LinkState.PROBING:
            self._usable.append(link)
            self._successor_wanted = False
        elif link.state not in _USABLE and link in self._usable:
            self._usable.remove(link)
        self._only = self._usable[0] if len(self._usable) == 1 and not self._stopping else None
        if link.state is LinkState.OPEN and link.answers:
            self._redialing.succeeded()

    def link_worn(self, link: Link, why: str) -> None:
        """See LinkOwner."""
        link.timeline.add(self._clock.seconds(), f"to be replaced: {why}")
        self._seek(self._clock.seconds())

    def link_idle(self, link: Link) -> None:
        """See LinkOwner."""
        if len(self._usable) > 1:
            link.drain("not used")

    def link_gone_away(self, link: Link, code: int) -> None:
        """See LinkOwner."""
        self._metrics.gone_away(ErrorCode(code).name if code in tuple(ErrorCode) else "other")
        if link.used_lately and not self._stopping:
            self._successor_wanted = True
            if link.answers:
                self._seek(self._clock.seconds())

    def link_closed(self, link: Link, end: LinkEnd) -> None:
        """See LinkOwner."""
        now = self._clock.seconds()
        self._links.remove(link)
        self._past.append(figures_of(link))
        if end.answered:
            self._redialing.succeeded()
        elif not end.ours and now - self._born.pop(link.number, now) < _GOOD_LIFE:
            self._redialing.failed(end, now)
            self._metrics.link_failed(end.permanent)
            if not self._usable and self._redialing.hopeless(now):
                self._successor_wanted = False
                self._fail_waiting(self._no_connection())
        self._born.pop(link.number, None)
        self._fill(now)
        self._seek(now)
        self._look_stopped()

    def exchange_returned(self, exchange: Exchange, fault: Fault) -> None:
        """See LinkOwner."""
        now = self._clock.seconds()
        again = (
            fault.repeatable
            and exchange.repeatable
            and exchange.tries < self._limits.max_tries
            and exchange.deadline > now + self._limits.deadline_grain
            and not self._stopping
        )
        self._metrics.returned(fault.why, again)
        if not again:
            self._fail(exchange, fault)
        elif fault.why is Why.REFUSED_STREAM:
            top = self._limits.first_rest * 2.0 ** (exchange.tries - 1)
            delay = min(self._random.uniform(0.0, top), exchange.deadline - now - self._limits.deadline_grain)
            self._resting[exchange] = self._clock.callLater(delay, self._rested, exchange)
        else:
            self._wait(exchange, now)  # the link is in the middle of a turn, at the end of which it asks for more

    # ----------------------------------------------------------------------------------------------------------------- its work

    def _least_loaded(self) -> Link | None:
        usable = self._usable
        if len(usable) == 1:
            return usable[0] if usable[0].room else None
        free = [link for link in usable if link.room]
        return min(free, key=lambda link: link.in_flight) if free else None

    def _wait(self, exchange: Exchange, now: float) -> None:
        due = min(exchange.deadline, now + self._limits.max_wait)
        self._waiting.add(exchange, due)
        self._alarm.set(due)

    def _rested(self, exchange: Exchange) -> None:
        del self._resting[exchange]
        now = self._clock.seconds()
        self._wait(exchange, now)
        self._fill(now)
        self._seek(now)

    def _fill(self, now: float) -> None:
        """Gives those who wait what room there is."""
        while self._waiting and (link := self._least_loaded()) is not None:
            exchange = self._waiting.pop()
            if exchange is None:
                break
            if exchange.deadline <= now:
                self._fail_late(exchange, now)
            else:
                link.send(exchange)
        if not self._waiting:
            self._full_since = None

    def _fail(self, exchange: Exchange, fault: Fault) -> None:
        try:
            exchange.failed(fault)
        except Exception:  # noqa: BLE001 - a fault of one exchange; the pool goes on
            _log.failure("An exchange could not take its fault")

    def _fail_late(self, exchange: Exchange, now: float) -> None:
        if not self._usable and self._redialing.last is not None:
            fault = self._no_connection()
        elif exchange.deadline <= now + self._limits.deadline_grain:
            fault = Fault(Verdict.NOT_WRITTEN, Why.DEADLINE, "there was no room within the deadline")
        else:
            fault = Fault(Verdict.NOT_WRITTEN, Why.QUEUE_FULL, f"there was no room for {self._limits.max_wait:g} s")
        self._fail(exchange, fault)

    def _fail_waiting(self, fault: Fault) -> None:
        """Ends all that is not under way; not what is added meanwhile."""
        for _ in range(len(self._waiting)):
            exchange = self._waiting.pop()
            if exchange is not None:
                self._fail(exchange, fault)
        for exchange in list(self._resting):
            rest = self._resting.pop(exchange, None)  # one that is told may cancel another
            if rest is not None:
                rest.cancel()
                self._fail(exchange, fault)

    def _no_connection(self) -> Fault:
        last = self._redialing.last
        return Fault(Verdict.NOT_WRITTEN, Why.NO_CONNECTION, "no connection: " + (last.text if last is not None else "not yet"))

    def _look_stopped(self) -> None:
        if self._stopping and not self._links:
            self._alarm.stop()
            stopped, self._stopped = self._stopped, []
            for each in stopped:
                each.callback(None)

    # -------------------------------------------------------------------------------------------------------------- connections

    def _usable_worn(self) -> bool:
        return any(link.worn for link in self._usable)

    def _seek(self, now: float) -> None:
        """Opens a connection if one is wanted and it is time; retires what has a successor."""
        if self._stopping:
            return
        fresh = [link for link in self._links if not link.worn and link.state is not LinkState.DRAINING]
        if any(link.room for link in fresh):
            for link in [link for link in self._usable if link.worn]:
                link.drain("replaced")
        worn = self._usable_worn()
        if not (self._waiting or worn or self._successor_wanted):
            return
        self._seek_at = inf
        if len(fresh) >= self._limits.max_connections or any(link.coming for link in fresh):
            return
        if len(self._links) - len(fresh) >= self._limits.max_leaving:
            return  # link_closed comes here again
        at = max(self._redialing.next_at, self._dialed_at + self._limits.dial_interval)
        if fresh and not worn:  # all are full
            self._full_since = now if self._full_since is None else self._full_since
            at = max(at, self._full_since + self._limits.full_patience)
        if at > now:
            self._seek_at = at
            self._alarm.set(at)
        else:
            self._dial(now)

    def _dial(self, now: float) -> None:
        self._dialed_at = now
        self._full_since = None
        self._number += 1
        core = ClientConnection(self._http2, first_stream_id=self._first_stream_id, automatic_windows=self._automatic_windows)
        jitter = self._limits.age_jitter
        age = self._limits.max_age * self._random.uniform(1 - jitter, 1 + jitter)
        link = Link(core, self._clock, self, self._dialer.security, self._limits, self._number, age)
        in_use = {each.address for each in self._links}
        self._links.append(link)
        self._born[link.number] = now
        self._metrics.link_moved(None, link.state)
        dialing = self._dialer.dial(link, in_use)
        if link.state is LinkState.CONNECTING:
            link.dialing = dialing

    def _due(self, now: float) -> None:
        if self._stopping:
            if now >= self._stop_at:
                self.cut()
            else:
                self._alarm.set(self._stop_at)
            return
        while (due := self._waiting.due()) is not None and due <= now + self._limits.deadline_grain:
            exchange = self._waiting.pop()
            if exchange is not None:
                self._fail_late(exchange, now)
        if due is not None:
            self._alarm.set(due)
        self._fill(now)
        self._seek(now)
