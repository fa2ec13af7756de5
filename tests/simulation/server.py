"""One server process without sockets: the real service, connections, node and wheel above a simulated network and store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from streampush.config import Config
from streampush.push.presence import NodeLease
from streampush.push.service import PushService
from streampush.push.steady import SteadyClock
from streampush.push.surroundings import Surroundings
from streampush.push.values import Undeliverable
from streampush.server.admission import Admission
from streampush.server.capacity import HandshakeCapacity
from streampush.server.connection import StreamConnection
from streampush.server.gate import Admitted
from streampush.server.governor import Governor
from streampush.server.node import StreamNode
from streampush.server.surroundings import ConnectionSurroundings, session_settings
from streampush.server.tasks import run
from streampush.server.wire import encode_delivery
from tests.simulation.apple import SimulatedApple
from tests.simulation.clock import ProcessClock
from tests.simulation.store import NODE, Disk, Pace, SimulatedStore
from tests.simulation.world import Broken, World

if TYPE_CHECKING:
    from tests.simulation.truth import Truth, View

STORE_RETRY = 0.3
"""Seconds before something that the store could not do is tried again."""

CERTIFICATE_LIFE = 86_400.0

MILLION = 1_000_000


class Uncounted:
    """Metrics that nobody reads: every method there is, doing nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def count(*args: object, **kw: object) -> None:
            pass

        setattr(self, name, count)
        return count


class SimulatedGate:
    """Takes the principal itself for its certificate; there is no TLS here."""

    def identify(self, certificate: Any) -> Admitted:
        return Admitted(certificate, CERTIFICATE_LIFE)


class _NumberedConnection(StreamConnection):
    """Its place in a set depends on its number and not on where in memory it lies."""

    __slots__ = ("number",)

    def __hash__(self) -> int:
        return self.number


class ServerProcess:
    """From its start to its death. `view` is what the log holds while it lives, for whoever checks its answers.

    `pushes`: whether it has a push service.
    """

    def __init__(self, world: World, config: Config, disk: Disk, pace: Pace, truth: Truth, *, pushes: bool) -> None:
        self.config = config
        self.clock = ProcessClock(world.clock)
        self.store = SimulatedStore(disk, self.clock, world.random, pace)
        self.view: View = truth.view
        self._apple = SimulatedApple(self.clock, world.random, truth) if pushes else None
        self.admission = Admission(config.admission, config.admission.max_connections)
        self.draining = False
        self._world = world
        self._moment, self._moment_ms = (-1.0, 0), 0
        self._time = SteadyClock(lambda: world.wall_ms() * MILLION, lambda: int(world.clock.seconds() * 1000) * MILLION)
        self._connections = 0
        self._metrics: Any = Uncounted()
        self._log = Logger(namespace="streampush", observer=self._logged)
        self.service = PushService(self._push_surroundings(), config.publish, config.delivery)
        gate: Any = SimulatedGate()
        self._governor = Governor(HandshakeCapacity(0.5, config.admission.accept_rate, lambda: 0.0), world.random)
        nothing: Any = None  # the node asks the TLS contexts only when it is told to reload
        reactor: Any = self.clock
        self.node = StreamNode(
            reactor,
            config,
            contexts=nothing,
            gate=gate,
            admission=self.admission,
            governor=self._governor,
            metrics=self._metrics,
            log=self._log,
            random=world.random,
        )
        self._around = self._connection_surroundings(gate)
        self._lease = NodeLease(self.service.presence, config.heartbeat.interval, self.clock.callLater, self.spawn)
        self.node.start()
        self.service.start()
        self._lease.start()

    @property
    def alive(self) -> bool:
        return self.clock.alive

    def accept(self, peer: IPv4Address) -> StreamConnection:
        """The protocol for a connection that was let in."""
        connection = _NumberedConnection.__new__(_NumberedConnection)
        self._connections += 1
        connection.number = self._connections
        connection.__init__(self._around, peer)  # type: ignore[misc]  # the number had to be there first
        return connection

    def on_undeliverable(self, hear: Callable[[Undeliverable], None]) -> None:
        """`hear` is told what the process gives up, before the store is."""
        cursors: Any = self.service._cursors
        tell = cursors.undeliverable

        def undeliverable(failed: Undeliverable) -> None:
            hear(failed)
            tell(failed)

        cursors.undeliverable = undeliverable

    def die(self) -> None:
        """Everything of the process stops where it is."""
        self.clock.alive = False
        writing = not self.store.idle
        survives = self.store.die()
        if writing:
            self._world.seen["commit kept by a crash" if survives else "commit lost by a crash"] += 1
        self._world.trace("server dies; the commit under way", "is on the disk" if survives else "is not on the disk")

    def wall_ms(self) -> int:
        """What the process takes for the time. Asked often in one moment, so that the answer is kept."""
        moment = self._world.clock.rightNow, self._world.wall_offset_ms
        if moment != self._moment:
            self._moment, self._moment_ms = moment, self._time.wall_ms()
        return self._moment_ms

    def stop(self) -> Deferred[None]:
        """As StreampushService.stopService does: asks all to go, fires when they have and the store knows what they reached."""
        self.draining = True
        self.service.refuse_publishing("the node is being stopped")
        stopped = self.node.drain("the server stops").addCallback(lambda _: Deferred.fromCoroutine(self._stop()))
        return stopped.addErrback(self._task_failed)

    async def _stop(self) -> None:
        self.node.stop()
        self.service.stop()
        await self.service.settle()
        if self.alive:
            self.service.receipts.stop()
            self._lease.stop()

    # ---------------------------------------------------------------------------------------------------------- composing

    def _push_surroundings(self) -> Surroundings:
        clock, world = self.clock, self._world
        return Surroundings(
            store=self.store,  # type: ignore[arg-type]  # its operations are made when they are asked for
            encode=encode_delivery,
            metrics=self._metrics,
            clock=clock.seconds,
            wall_ms=self.wall_ms,
            new_id=lambda now_ms: world.new_id("m"),
            call_soon=lambda work: clock.callLater(0.0, work),
            call_later=clock.callLater,
            retry_later=lambda work: clock.callLater(STORE_RETRY, work),
            spawn=self.spawn,
            run=NODE,
            sender=self._apple,
        )

    def _connection_surroundings(self, gate: Any) -> ConnectionSurroundings:
        config, world = self.config, self._world
        return ConnectionSurroundings(
            config=config,
            node_name=NODE,
            settings=session_settings(config),
            service=self.service,
            gate=gate,
            governor=self._governor,
            metrics=self._metrics,
            clock=self.clock.seconds,
            wall_ms=self.wall_ms,
            first_ping=world.random.random,
            new_session_id=lambda: world.new_id("s"),
            spawn=self.spawn,
            opened=self.node.opened,
            gone=self.node.gone,
            reschedule=self.node.reschedule,
            handshake_done=self.admission.handshake_done,
            log=self._log,
        )

    def spawn(self, work: Any) -> None:
        """Runs a coroutine to its end; it must not fail."""
        run(work, self._task_failed)

    def _task_failed(self, failure: Failure) -> None:
        if not self.alive:
            return  # what a process leaves behind is collected in any order, and wakes what waits for it
        if isinstance(failure.value, Broken):
            raise failure.value  # under its own rule
        self._world.trace(failure.getTraceback())
        self._world.broken("fault", "a task of the server failed:", failure.type.__name__, failure.getErrorMessage())

    def _logged(self, event: dict[str, Any]) -> None:
        level = event.get("log_level", LogLevel.info)
        if level >= LogLevel.error:
            failure = event.get("log_failure")
            if failure is not None:
                self._world.trace(failure.getTraceback())
            self._world.broken("fault", "the server logs:", event.get("log_format"), failure)
        if "advice" in event:
            self._world.seen[f"closed: {event['code']}"] += 1
        if self._world.tracing:
            words = {key: value for key, value in event.items() if not key.startswith("log_")}
            self._world.trace("server:", str(event.get("log_format", "")).format(**words))
