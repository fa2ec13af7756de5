"""Two protocols joined in memory, on a fake clock: bytes take `latency` seconds, and backpressure is as on a socket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.apns.simulator.server import AppleProtocol

CAPACITY = 64 * 1024
"""Bytes on their way from which the writer is told to pause."""


@implementer(ITransport, IPushProducer)
class End:
    """One side's transport."""

    negotiatedProtocol = b"h2"

    def __init__(self, clock: Clock, latency: float) -> None:
        self.peer: End
        self.protocol: Protocol
        self.no_delay = False
        self.closed = False
        self.written = 0
        self._clock = clock
        self._latency = latency
        self._inbox = bytearray()  # on its way to our protocol
        self._paused = False  # our protocol does not read
        self._producer: Any = None
        self._told_to_pause = False
        self._closing = False  # behind what is on its way

    # What the protocol may do.

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getPeerCertificate(self) -> None:
        return None

    def write(self, data: bytes) -> None:
        if self.closed or self._closing:
            return
        self.written += len(data)
        self.peer._inbox += data
        self._clock.callLater(self._latency, self.peer.deliver)
        if len(self.peer._inbox) > CAPACITY and self._producer is not None and not self._told_to_pause:
            self._told_to_pause = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.deliver()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        if not self._closing:
            self._closing = True
            self._clock.callLater(self._latency, self._finish)

    def abortConnection(self) -> None:
        self._clock.callLater(0, self._end, ConnectionAborted())
        self._clock.callLater(self._latency, self.peer._end, ConnectionLost())

    def getPeer(self) -> str:
        return "memory"

    def getHost(self) -> str:
        return "memory"

    # What the wire does.

    def deliver(self) -> None:
        if self._paused or self.closed or not self._inbox:
            return
        data = bytes(self._inbox)
        self._inbox.clear()
        self.protocol.dataReceived(data)
        writer = self.peer
        if writer._told_to_pause and writer._producer is not None:
            writer._told_to_pause = False
            writer._producer.resumeProducing()
        if writer._closing:
            writer._finish()

    def _finish(self) -> None:
        if not self.peer._inbox:
            self.peer._end(ConnectionDone())
            self._end(ConnectionDone())

    def _end(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(reason))


def join(clock: Clock, client: Protocol, server: Protocol, latency: float = 0.0) -> tuple[End, End]:
    """Connects them; the server first, as its SETTINGS may go out at once."""
    ends = End(clock, latency), End(clock, latency)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    ends[0].protocol, ends[1].protocol = client, server
    server.makeConnection(ends[1])
    client.makeConnection(ends[0])
    return ends


def advance(clock: Clock, seconds: float) -> None:
    """Lets time pass, stopping at every call that is due."""
    end = clock.seconds() + seconds
    while True:
        calls = clock.getDelayedCalls()
        at = min((call.getTime() for call in calls), default=end)
        if at > end:
            break
        clock.advance(max(0.0, at - clock.seconds()))
        if not calls:
            break
    if end > clock.seconds():
        clock.advance(end - clock.seconds())


def leave_nothing(clock: Clock, stopped: Deferred[None], servers: Iterable[AppleProtocol]) -> None:
    """What was stopped ends, the servers too, and no timer is left behind."""
    advance(clock, 30.0)
    assert stopped.called
    for server in servers:
        server.abort()
    advance(clock, 10.0)
    assert not clock.getDelayedCalls(), clock.getDelayedCalls()
