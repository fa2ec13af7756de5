"""The network between simulated clients and the server: links that delay, cut bytes apart, break, or go dead without a word.

A link is a TCP connection with TLS done: two pipes of bytes in order. It can be *cut* (both ends hear of it, what was under way
is lost) or go *dead* (nothing arrives any more and nobody is told: only a heartbeat finds out).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.push.values import Principal
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.server import ServerProcess

KERNEL_BYTES = 2048
"""What the operating system's buffers take of each direction; what is behind it waits in the program."""

CONNECT_TIMEOUT = 3.0
"""Seconds until a client gives up a connect that nobody answers."""

_DONE = Failure(ConnectionDone())
_LOST = Failure(ConnectionLost())
_ABORTED = Failure(ConnectionAborted())


class _Mark:
    """Something in a pipe that is no data."""

    def __init__(self, name: str) -> None:
        self.name = name


HANDSHAKE = _Mark("handshake")
FIN = _Mark("fin")


class Pipe:
    """One direction. `take` is called with bytes, or with a mark."""

    __slots__ = ("_armed", "_flushed", "_latency", "_queue", "_take", "_world", "closed", "held", "size")

    def __init__(self, world: World, latency: float, take: Callable[[bytes | _Mark], None]) -> None:
        self.size = 0  # bytes under way
        self.held = False  # the reader does not read, or the pipe is dead
        self.closed = False
        self._world = world
        self._latency = latency
        self._take = take
        self._queue: deque[bytes | _Mark] = deque()
        self._armed = False
        self._flushed: Callable[[], None] | None = None

    def when_read(self, call: Callable[[], None]) -> None:
        """`call` hears each time that bytes have left the pipe."""
        self._flushed = call

    def put(self, item: bytes | _Mark) -> None:
        if self.closed:
            return
        self._queue.append(item)
        if not isinstance(item, _Mark):
            self.size += len(item)
        self._arm(self._latency * (0.5 + self._world.random.random()))

    def close(self) -> None:
        """Drops what is under way."""
        self.closed = True
        self._queue.clear()
        self.size = 0

    def release(self) -> None:
        """The reader reads again."""
        self.held = False
        self._arm(0.0)

    def _arm(self, delay: float) -> None:
        if not self._armed and self._queue and not self.held:
            self._armed = True
            self._world.clock.callLater(delay, self._arrive)

    def _arrive(self) -> None:
        self._armed = False
        if self.held or self.closed or not self._queue:
            return
        item = self._queue.popleft()
        if isinstance(item, _Mark):
            self._arm(0.0)
            self._take(item)
            return
        while self._queue and not isinstance(self._queue[0], _Mark):
            item += self._queue.popleft()  # type: ignore[operator]  # no mark
        if len(item) > 1 and self._world.chance(0.15):
            cut = self._world.random.randrange(1, len(item))
            self._queue.appendleft(item[cut:])
            item = item[:cut]
        self.size -= len(item)
        self._arm(self._latency * 0.1)
        self._take(item)
        if self._flushed is not None:
            self._flushed()


class Link:
    """One connection of a client to a server process."""

    def __init__(self, network: Network, server: ServerProcess, principal: Principal, protocol: Any, latency: float) -> None:
        world = network.world
        self.number = network.links = network.links + 1
        self.server = server
        self.principal = principal
        self.dead = False
        self.began_at = world.clock.seconds()
        self.client = ClientEnd(world, self, protocol)
        self.host = ServerEnd(world, self)
        self.up = Pipe(world, latency, self.host.take)
        self.down = Pipe(world, latency, self.client.take)
        self.down.when_read(self.host.read)
        self._network = network
        self._world = world

    @property
    def name(self) -> str:
        return f"link{self.number}({self.principal.name})"

    @property
    def over(self) -> bool:
        """Whether both ends know that it is gone."""
        return self.client.lost and self.host.lost

    @property
    def alive(self) -> bool:
        """Whether bytes go both ways, and nobody is leaving."""
        if self.dead or self.client.lost or self.host.lost or not self.server.alive:
            return False
        return not (self.client.disconnecting or self.host.closing)

    def cut(self) -> None:
        """The network breaks the connection and tells both."""
        if self.over:
            return
        self._world.trace(self.name, "is cut")
        self._world.seen["cut"] += 1
        self.quiet()
        self._drop()
        self.client.lose_later(_LOST)
        self.host.lose_later(_LOST)

    def die(self) -> None:
        """Nothing arrives from now on, and nobody is told."""
        if self.dead or self.over:
            return
        self._world.trace(self.name, "goes dead")
        self._world.seen["half-open"] += 1
        self.quiet()
        self.dead = True
        self.up.held = self.down.held = True

    def reset_by_client(self) -> None:
        """The client's end is gone at once."""
        self._gone(self.host)

    def reset_by_server(self) -> None:
        """The server's end is gone at once."""
        self._gone(self.client)

    def _gone(self, other: ClientEnd | ServerEnd) -> None:
        if not self.dead:
            self._drop()
            other.lose_later(_LOST)

    def quiet(self) -> None:
        """Nothing of the client, or nothing but its goodbye, reaches the server on this link from now on."""
        self._network.quiet_at[self.principal.name] = self._world.clock.seconds()

    def _drop(self) -> None:
        self.up.close()
        self.down.close()

    def ended(self) -> None:
        """An end was told that it is over."""
        self.quiet()
        if self.over or (self.client.lost and not self.server.alive):
            self._drop()
            self._network.open.pop(self.number, None)


class _End:
    """What both ends have."""

    def __init__(self, world: World, link: Link) -> None:
        self.link = link
        self.lost = False
        self._world = world
        self._losing = False

    def lose_later(self, reason: Failure) -> None:
        """`connectionLost` in a turn of its own."""
        if not self._losing and not self.lost:
            self._losing = True
            self._world.clock.callLater(0.0, self._lose, reason)

    def forget(self) -> None:
        """The process of this end is gone: nothing of it is called any more."""
        self.lost = True
        self.link.ended()

    def _lose(self, reason: Failure) -> None:
        if not self.lost:
            self.lost = True
            self._tell(reason)
            self.link.ended()

    def _tell(self, reason: Failure) -> None:
        raise NotImplementedError


@implementer(ITransport)
class ClientEnd(_End):
    """The client's transport, as Twisted's TLS over TCP behaves."""

    def __init__(self, world: World, link: Link, protocol: Any) -> None:
        super().__init__(world, link)
        self.disconnecting = False
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        if not (self.disconnecting or self.lost):
            self.link.up.put(data)

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.disconnecting and not self.lost:
            self.disconnecting = True
            self.link.quiet()
            self.link.up.put(FIN)

    def abortConnection(self) -> None:
        if not self.lost:
            self.disconnecting = True
            self.link.reset_by_client()
            self.lose_later(_ABORTED)

    def getPeer(self) -> None:
        return None

    def getHost(self) -> None:
        return None

    def begin(self) -> None:
        self._protocol.makeConnection(self)
        self.link.up.put(HANDSHAKE)
        self._protocol.handshakeCompleted()

    def take(self, item: bytes | _Mark) -> None:
        if self.lost:
            return
        if item is FIN:
            self.link.up.put(FIN)
            self._lose(_DONE)
        else:
            self._protocol.dataReceived(item)

    def _tell(self, reason: Failure) -> None:
        self._protocol.connectionLost(reason)


class ServerEnd(_End):
    """See server.ports.StreamTransport. `most_buffered` is the highest that the send buffer ever was."""

    session_reused = False
    handshake_cpu = 0.0

    def __init__(self, world: World, link: Link) -> None:
        super().__init__(world, link)
        self.protocol: Any = None
        self.most_buffered = 0
        self.closing = False
        self._starved = False

    @property
    def buffered(self) -> int:
        return max(0, self.link.down.size - KERNEL_BYTES)

    def begin(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        if self.closing or self.lost or self._losing or not self.link.server.alive:
            return
        self.link.down.put(data)
        self.most_buffered = max(self.most_buffered, self.buffered)

    def has_room(self) -> bool:
        room = self.buffered < self.link.server.config.session.send_buffer
        self._starved = self._starved or not room
        return room

    def lose_connection(self) -> None:
        if not self.closing and not self.lost:
            self.closing = True
            self.link.quiet()
            self.link.down.put(FIN)
            self.resume_reading()  # what comes in is thrown away

    def abort(self) -> None:
        if not self.lost and self.link.server.alive:
            self.closing = True
            self.link.reset_by_server()
            self.lose_later(_ABORTED)

    def pause_reading(self) -> None:
        self.link.up.held = True

    def resume_reading(self) -> None:
        if not self.link.dead:
            self.link.up.release()

    def peer_certificate(self) -> Any:
        """The principal stands for its certificate: see server.SimulatedGate."""
        return self.link.principal

    def take(self, item: bytes | _Mark) -> None:
        if self.lost or not self.link.server.alive:
            return
        if item is FIN:
            self.link.down.put(FIN)
            self._lose(_DONE)
        elif item is HANDSHAKE:
            self.protocol.handshakeCompleted()
        elif not self.closing:
            self.protocol.dataReceived(item)

    def read(self) -> None:
        """The client has taken bytes."""
        if self._starved and self.buffered < self.link.server.config.session.send_buffer and not (self.lost or self.closing):
            self._starved = False
            self._world.clock.callLater(0.0, self._room_again)

    def _room_again(self) -> None:
        if not (self.lost or self.closing) and self.link.server.alive:
            self.protocol.roomAgain()

    def _tell(self, reason: Failure) -> None:
        if self.link.server.alive:
            self.protocol.connectionLost(reason)


class Network:
    """Where clients find the server. `latency`: seconds that the slowest links take one way."""

    def __init__(self, world: World, latency: float) -> None:
        self.world = world
        self.server: ServerProcess | None = None
        self.open: dict[int, Link] = {}
        self.links = 0
        self.quiet_at: dict[str, float] = {}  # when a link of this principal was of no use any more, the last time
        self.refuses = 0.0  # the share of connects that break
        self.opened: Callable[[Link], None] = lambda link: None  # hears of each new link
        self.black_holes = 0.0  # the share of connects that nobody answers
        self._latency = latency

    def of(self, principal: Principal) -> list[Link]:
        """The links of a client that are not over."""
        return [link for link in self.open.values() if link.principal is principal]

    def security(self, principal: Principal) -> SimulatedSecurity:
        return SimulatedSecurity(self, principal)

    def reach(self, principal: Principal, factory: IProtocolFactory, connecting: Deferred[IProtocol]) -> None:
        """The TCP connect and the handshake come to an end."""
        if connecting.called:
            return
        world, server = self.world, self.server
        if server is None or not server.alive or world.chance(self.refuses):
            connecting.errback(Failure(ConnectionRefusedError()))
            return
        host = f"192.0.2.{1 + len(principal.name) % 200}"
        if server.admission.admit(host, world.clock.seconds()) is not None:
            connecting.errback(Failure(ConnectionRefusedError()))
            return
        protocol: Any = factory.buildProtocol(None)  # type: ignore[arg-type]  # nobody looks at the address
        latency = self._latency * world.random.choice((0.05, 0.3, 1.0))
        link = Link(self, server, principal, protocol, latency)
        self.open[link.number] = link
        if world.tracing:
            world.trace(link.name, "connects")
        link.host.begin(server.accept(IPv4Address("TCP", host, link.number)))
        connecting.callback(protocol)
        link.client.begin()
        self.opened(link)


class SimulatedSecurity:
    """See client.Security: connects through the simulated network, as this principal."""

    def __init__(self, network: Network, principal: Principal) -> None:
        self._network = network
        self._principal = principal

    def connect(self, reactor: IReactorTime, address: tuple[str, int], factory: IProtocolFactory) -> Deferred[IProtocol]:
        network = self._network
        random = network.world.random
        connecting: Deferred[IProtocol] = Deferred(lambda _: None)
        if random.random() < network.black_holes:
            reactor.callLater(CONNECT_TIMEOUT, self._give_up, connecting)
        else:
            reactor.callLater(random.uniform(0.001, 0.1), network.reach, self._principal, factory, connecting)
        return connecting

    def _give_up(self, connecting: Deferred[IProtocol]) -> None:
        if not connecting.called:
            connecting.errback(Failure(TimeoutError()))

    def check(self, address: tuple[str, int], transport: ITransport) -> str | None:
        return None

    def remember(self, address: tuple[str, int], transport: ITransport) -> None:
        pass

    def explain(self, reason: Failure) -> str | None:
        return None
