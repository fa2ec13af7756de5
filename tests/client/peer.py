"""A network in memory, and a scripted server on it that speaks through the real ServerSession."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.client import Address, StreamClient
from streampush.client.events import ClientEvent
from streampush.protocol import messages as m
from streampush.protocol.session import Closed, Received, ServerSession, SessionSettings


@implementer(ITransport)
class MemoryTransport:
    """The client's end. What it writes goes to the peer at once, and the peer's answer arrives when `Network.pump` is called."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.aborted = False
        self.disconnecting = False

    def write(self, data: bytes) -> None:
        if not self.disconnecting:
            self._peer.data_received(data)

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._peer.client_closed = True
        if self._peer.hangs_up:
            self._peer.hang_up()

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True
        self._peer.cut()

    def getPeer(self) -> None:
        return None

    def getHost(self) -> None:
        return None


class Peer:
    """The server's end of one connection: what it heard, and what it is told to say."""

    def __init__(self, clock: Clock, address: Address, protocol: Any, settings: SessionSettings) -> None:
        self.address = address
        self.session = ServerSession(settings, clock.seconds())
        self.session.tls_done(clock.seconds())
        self.transport = MemoryTransport(self)
        self.received: list[tuple[int, m.Message]] = []
        self.closed: Closed | None = None
        self.client_closed = False
        self.lost = False
        self.hangs_up = True  # answers a close
        self.deaf = False  # answers nothing at all
        self.greeting: m.Welcome | None = m.Welcome(session_id="s1")  # what Hello is answered with
        self._clock = clock
        self._protocol = protocol
        self._pending: list[bytes | BaseException] = []

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        for event in self.session.receive(data, self._clock.seconds()):
            if isinstance(event, Received):
                self.received.append((event.request_id, event.message))
                if isinstance(event.message, m.Hello) and self.greeting is not None:
                    self.session.welcome(self.greeting)
            elif isinstance(event, Closed):
                self.closed = event
        self.flush()

    def messages(self, kind: type) -> list[Any]:
        """What was received of one kind."""
        return [message for _, message in self.received if isinstance(message, kind)]

    def say(self, message: m.Message, request_id: int = 0) -> None:
        self.session.send(message, request_id)
        self.flush()

    def deliver(self, channel: str, *offsets: int, size: int = 1, name: str = "") -> None:
        """`name`: what the ids of the messages begin with, in place of the channel."""
        for offset in offsets:
            self.session.send(m.Delivery(channel, offset, f"{name or channel}-{offset}", b"x" * size))
        self.flush()

    def raw(self, data: bytes) -> None:
        self._pending.append(data)

    def flush(self) -> None:
        data = self.session.data_to_send()
        if data:
            self._pending.append(data)

    def go_away(self, goaway: m.GoAway) -> None:
        self.say(goaway)

    def hang_up(self) -> None:
        self._pending.append(ConnectionDone())

    def cut(self, reason: BaseException | None = None) -> None:
        self._pending.append(reason or ConnectionLost())

    def pump(self) -> bool:
        """Hands over one thing that is under way; False if there is none."""
        if not self._pending or self.lost:
            return False
        item = self._pending.pop(0)
        if isinstance(item, bytes):
            self._protocol.dataReceived(item)
        else:
            self.lost = True
            self._protocol.connectionLost(Failure(item))
        return True


class Network:
    """Implements `streampush.client.Security` without TLS. Every connection that is made is in `peers`."""

    def __init__(self, clock: Clock, settings: SessionSettings | None = None) -> None:
        self.clock = clock
        self.settings = settings or SessionSettings()
        self.peers: list[Peer] = []
        self.attempts: list[tuple[float, Address]] = []
        self.reachable = True
        self.answers = True  # connecting gets an answer at all
        self.prepare: Callable[[Peer], None] = lambda peer: None
        self.problem: str | None = None  # of the server's certificate
        self.cancelled = 0

    def connect(self, reactor: IReactorTime, address: Address, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts.append((self.clock.seconds(), address))
        if not self.answers:
            return Deferred(self._cancel)
        if not self.reachable:
            return fail(ConnectionRefusedError())
        protocol: Any = factory.buildProtocol(None)
        peer = Peer(self.clock, address, protocol, self.settings)
        self.peers.append(peer)
        self.prepare(peer)
        protocol.makeConnection(peer.transport)
        protocol.handshakeCompleted()
        return succeed(protocol)

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def check(self, address: Address, transport: ITransport) -> str | None:
        return self.problem

    def remember(self, address: Address, transport: ITransport) -> None:
        pass

    def explain(self, reason: Failure) -> str | None:
        return None

    def pump(self) -> None:
        busy = True
        while busy:
            busy = False
            for peer in list(self.peers):
                busy = peer.pump() or busy


class Stage:
    """A client on a network with a clock; a test speaks for the application and for the server."""

    def __init__(self, *, addresses: int = 1, settings: SessionSettings | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.events: list[ClientEvent] = []
        self.given: list[tuple[str, int]] = []
        hosts = [(f"host{number}", 7443) for number in range(addresses)]
        options.setdefault("on_message", self._take)
        self.client = StreamClient(
            self.clock, hosts, self.network, on_event=self.events.append, random=Random(7), settings=settings, **options
        )

    async def _take(self, message: m.Delivery) -> None:
        self.given.append((message.channel, message.offset))

    @property
    def peer(self) -> Peer:
        """The newest connection."""
        return self.network.peers[-1]

    def greet_with(self, *subscribed: m.Subscribed, **fields: Any) -> None:
        """Every connection from now on is greeted so."""

        def prepare(peer: Peer) -> None:
            peer.greeting = m.Welcome(session_id="s1", subscribed=subscribed, **fields)

        self.network.prepare = prepare

    def start(self) -> Peer:
        self.client.start()
        self.advance(0)
        return self.peer

    def advance(self, seconds: float) -> None:
        """Time passes from deadline to deadline, as one follows from another."""
        end = self.clock.seconds() + seconds
        self.network.pump()
        while due := [call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= end]:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
            self.network.pump()
        self.clock.advance(max(0.0, end - self.clock.seconds()))
        self.network.pump()

    def run(self, coroutine: Any) -> list[Any]:
        """Starts a coroutine; the list gets its result, or its exception."""
        results: list[Any] = []
        deferred = Deferred.fromCoroutine(coroutine)
        deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
        self.network.pump()
        return results

    def heard(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
