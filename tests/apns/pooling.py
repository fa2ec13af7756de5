"""A pool on a fake clock, with simulated Apples at the other ends of wires in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from math import inf
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from streampush.apns.answers import read_reason
from streampush.apns.exchange import Exchange, Fault
from streampush.apns.http2 import HeaderList, Limits, Verdict, hpack
from streampush.apns.link import Link
from streampush.apns.link_state import LinkEnd, LinkState
from streampush.apns.pool import Pool
from streampush.apns.pool_limits import PoolLimits
from streampush.apns.ports import ApnsMetrics
from streampush.apns.simulator import Orders, SimulatedApple, Validation
from streampush.apns.simulator.orders import Order
from streampush.apns.simulator.server import AppleProtocol
from tests.apns.chaos import ROUNDING, Fate, How, check_told, how_of_fault
from tests.apns.counted import Counted
from tests.apns.simulator.providers import PAYLOAD, TOKEN, TOPIC, request_fields
from tests.apns.wire import End, advance, join, leave_nothing


class Push(Exchange):
    """Keeps what became of it. `then`: is called when it ends."""

    __slots__ = ("__weakref__", "_clock", "_then", "apns_id", "body_received", "calls", "ended_at", "fault", "status")

    def __init__(
        self,
        deadline: float = 1e9,
        payload: bytes = PAYLOAD,
        token: str = TOKEN,
        jwt: bytes = b"",
        clock: IReactorTime | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.apns_id = str(uuid.uuid4())
        fields = request_fields(token, jwt, apns_id=self.apns_id)
        super().__init__(hpack.block(fields), payload, deadline)
        self.status = 0
        self.body_received = b""
        self.fault: Fault | None = None
        self.calls = 0  # that ended it
        self.ended_at = 0.0
        self._clock = clock
        self._then = then

    def _end(self, ended: bool = True) -> None:
        if ended:
            self.calls += 1
            self.ended_at = self._clock.seconds() if self._clock is not None else 0.0
            if self._then is not None:
                self._then()

    @property
    def ended(self) -> bool:
        return self.calls > 0

    def answered(self, headers: HeaderList, ended: bool) -> None:
        self.status = headers.status
        self._end(ended)

    def received(self, data: bytes, ended: bool) -> None:
        self.body_received += data
        self._end(ended)

    def trailed(self, headers: HeaderList) -> None:
        self._end()

    def failed(self, fault: Fault) -> None:
        self.fault = fault
        self._end()

    @property
    def verdict(self) -> Verdict | None:
        return self.fault.verdict if self.fault is not None else None

    def fate(self) -> Fate:
        """It has ended, once."""
        assert self.calls == 1, (self.calls, self.status, self.fault)
        late = self.ended_at - self.deadline
        if self.fault is not None:
            return Fate(self.apns_id, how_of_fault(self.fault), "", late)
        if self.status == 200:
            return Fate(self.apns_id, How.DELIVERED, "", late)
        return Fate(self.apns_id, How.REJECTED, read_reason(self.body_received)[0], late)


class PlainSecurity:
    """Transports without TLS: `problem` is what is wrong with the next server."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def check(self, transport: ITransport) -> str | None:
        return self.problem

    def explain(self, reason: Failure) -> LinkEnd | None:
        return None


class MemoryDialer:
    """Joins links to what `make_server` gives, `latency` seconds away. `refusing`: no connection comes about."""

    def __init__(self, clock: Clock, make_server: Callable[[], Protocol], latency: float = 0.0) -> None:
        self.security = PlainSecurity()
        self.refusing: LinkEnd | None = None
        self.hanging = False
        self.ends: list[tuple[End, End]] = []
        self.dialed_at: list[float] = []
        self.in_use: list[set[str]] = []
        self.cancelled = 0
        self._clock = clock
        self.make_server = make_server
        self._latency = latency

    def dial(self, link: Link, in_use: Collection[str]) -> Deferred[None]:
        self.dialed_at.append(self._clock.seconds())
        self.in_use.append(set(in_use))
        link.address = f"10.0.0.{len(self.dialed_at)}"
        dialing: Deferred[None] = Deferred(self._cancel)
        if not self.hanging:
            self._clock.callLater(self._latency, self._connect, link, dialing)
        return dialing.addErrback(lambda _: None)

    def _cancel(self, _dialing: Deferred[None]) -> None:
        self.cancelled += 1

    def _connect(self, link: Link, dialing: Deferred[None]) -> None:
        if dialing.called:
            return
        dialing.callback(None)
        if self.refusing is not None:
            link.dialing_failed(self.refusing)
            return
        self.ends.append(join(self._clock, link, self.make_server(), self._latency))
        link.handshakeCompleted()


class World:
    """A pool, and a simulated Apple that does as it is ordered. Every push is known in `pushes`."""

    def __init__(
        self,
        *orders: Order,
        limits: PoolLimits | None = None,
        http2: Limits | None = None,
        latency: float = 0.01,
        seed: int = 1,
        max_streams: int = 1000,
        first_stream_id: int = 1,
        metrics: ApnsMetrics | None = None,
    ) -> None:
        self.clock = Clock()
        self.apple = SimulatedApple(Validation(), Orders(orders, seed), max_streams=max_streams)
        self.servers: list[AppleProtocol] = []
        self.metrics = Counted()
        self.dialer = MemoryDialer(self.clock, self.make_server, latency)
        self.pool = Pool(
            self.dialer,
            self.clock,
            limits=limits,
            http2=http2,
            random=Random(seed),
            first_stream_id=first_stream_id,
            metrics=metrics or self.metrics,
        )
        self.pushes: list[Push] = []
        self.then: Callable[[], None] | None = None
        """Is called when a push ends, of those that are made from then on."""
        self.jumped = False  # the test made time jump, so that deadlines passed unseen

    def make_server(self) -> AppleProtocol:
        connection = self.apple.connect(self.clock.seconds())
        connection.show_certificate((TOPIC,))
        server = AppleProtocol(self.clock, connection)
        self.servers.append(server)
        return server

    def push(self, count: int = 1, timeout: float = 10.0, payload: bytes = PAYLOAD) -> list[Push]:
        new = [Push(self.clock.seconds() + timeout, payload, clock=self.clock, then=self.then) for _ in range(count)]
        self.pushes += new
        for push in new:
            self.pool.submit(push)
        return new

    def advance(self, seconds: float) -> None:
        advance(self.clock, seconds)

    def states(self) -> list[LinkState]:
        return [link.state for link in self.pool.figures().links]

    @property
    def ended(self) -> bool:
        """All pushes so far."""
        return all(push.ended for push in self.pushes)

    def fates(self) -> list[Fate]:
        """Of all pushes, which have ended."""
        return [push.fate() for push in self.pushes]

    def delivered(self) -> int:
        return sum(push.status == 200 and push.fault is None for push in self.pushes)

    def check(self) -> None:
        """Every push ended once and in time, and what it believes is what Apple knows."""
        check_told(self.fates(), self.apple.ledger, inf if self.jumped else ROUNDING)

    def stop(self) -> None:
        """Nothing may be left behind."""
        leave_nothing(self.clock, self.pool.stop(), self.servers)
        self.check()
