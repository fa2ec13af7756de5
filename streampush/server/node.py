"""The stream server of one process: its listener, its connections, their deadlines, reload and drain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Cooperator
from twisted.logger import Logger

from streampush.errors import ConfigError
from streampush.server.admission import Admission
from streampush.server.connection import StreamConnection
from streampush.server.contexts import TlsContexts
from streampush.server.gate import Gate
from streampush.server.governor import Governor
from streampush.server.identity import Revocations
from streampush.server.leaving import Leaving
from streampush.server.ports import ServerMetrics
from streampush.server.wheel import TimingWheel

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from streampush.config import Config

TICK = 0.1
"""Seconds between two turns of the timing wheel: deadlines are this exact."""

LATE = 1.0
"""Seconds. When a turn of the wheel comes so late, the process was stopped or busy: what the peers said meanwhile waits in the
sockets, and is read before their deadlines are looked at."""

SLOTS = 1024
"""Slots of the wheel: a round takes 102 s, more than the longest heartbeat step by default."""

FORCED_CLOSE = 1.0
"""Seconds behind `drain_timeout` after which what is still open is cut."""


class StreamNode:
    """All connections of the process. `connection_surroundings` of the composition root point here."""

    def __init__(
        self,
        reactor: IReactorTime,
        config: Config,
        *,
        contexts: TlsContexts,
        gate: Gate,
        admission: Admission,
        governor: Governor,
        metrics: ServerMetrics,
        log: Logger,
        random: Random,
    ) -> None:
        self.connections: set[StreamConnection] = set()
        self.leaving = Leaving(
            lambda: self.connections,
            governor,
            metrics,
            clock=reactor.seconds,
            call_later=reactor.callLater,
            random=random,
        )
        self._reactor = reactor
        self._config = config
        self._contexts = contexts
        self._gate = gate
        self._admission = admission
        self._metrics = metrics
        self._log = log
        self._wheel: TimingWheel[StreamConnection] = TimingWheel(TICK, SLOTS, reactor.seconds())
        self._tick_call: IDelayedCall | None = None
        self._tick_due = 0.0
        self._waited = False  # the last turn of the wheel was put off, so that the sockets be read first
        self._drained: Deferred[None] | None = None

    # -------------------------------------------------------------------------------------------- called by connections

    def opened(self, connection: StreamConnection) -> None:
        self.connections.add(connection)
        self.reschedule(connection)

    def gone(self, connection: StreamConnection) -> None:
        self.connections.discard(connection)
        self._wheel.remove(connection)
        self._admission.released(connection.host, told=connection.told)
        if self._drained is not None and not self.connections:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def reschedule(self, connection: StreamConnection) -> None:
        """The connection's deadline may have come nearer."""
        self._wheel.schedule(connection, connection.deadline)

    # ----------------------------------------------------------------------------------------------------------- deadlines

    def start(self) -> None:
        """The wheel begins to turn."""
        self._tick_due = self._reactor.seconds() + TICK
        self._tick_call = self._reactor.callLater(TICK, self._tick)

    def _tick(self) -> None:
        now = self._reactor.seconds()
        self._waited = not self._waited and now - self._tick_due > LATE
        self._tick_due = now + TICK
        self._tick_call = self._reactor.callLater(TICK, self._tick)
        if self._waited:
            return
        for connection in self._wheel.advance(now):
            try:
                if connection.deadline <= now:
                    connection.tick()
                if connection in self.connections:
                    self._wheel.schedule(connection, connection.deadline)
            except Exception:  # noqa: BLE001 - one connection's fault must not stop the wheel of all; it is logged
                self._log.failure("deadline of {address} failed, it is cut", address=connection.address)
                connection.abort()

    # -------------------------------------------------------------------------------------------------------------- reload

    def reload(self) -> None:
        """Reads certificates, CAs, deny list and revocation lists again; what is wrong leaves the old ones in force.

        Open connections stay, but for those whose certificate is on a list now: they get 1010, a slice a turn.
        """
        try:
            revocations = Revocations.load(self._config.tls, self._config.file)
            self._contexts.reload()
        except ConfigError as error:
            self._metrics.reloads("failed")
            self._log.error("reload failed, the old certificates and lists stay in force: {problem}", problem=str(error))
            return
        self._gate.revocations = revocations
        self._metrics.reloads("ok")
        self._log.info("certificates and lists reloaded")
        for warning in revocations.warnings:
            self._log.warn("{problem}", problem=warning)
        self._each(StreamConnection.recheck)

    def _each(self, work: Callable[[StreamConnection], None]) -> Deferred[None]:
        """Does the work for every connection of this moment, a slice a turn of the reactor."""

        def steps() -> Iterator[None]:
            for connection in tuple(self.connections):
                if connection in self.connections:
                    self._do(work, connection)
                yield None

        cooperator = Cooperator(scheduler=lambda step: self._reactor.callLater(0, step))
        done: Deferred[None] = cooperator.coiterate(steps()).addCallback(lambda _: None)
        return done

    def _do(self, work: Callable[[StreamConnection], None], connection: StreamConnection) -> None:
        try:
            work(connection)
        except Exception:  # noqa: BLE001 - one connection's fault must not keep the work from the others; it is logged
            self._log.failure("work on {address} failed, it is cut", address=connection.address)
            connection.abort()

    # --------------------------------------------------------------------------------------------------------------- drain

    def drain(self, detail: str, *, is_followed: bool = False) -> Deferred[None]:
        """Asks all peers to leave (1004) and fires when they have, at the latest a moment after `drain_timeout`.

        New connections are refused meanwhile. Each peer is told a moment of its own at which to come back, or to come to another
        node, so that they do not come all at once (`leaving`). `is_followed`: another process serves on our port already.
        """
        self._admission.draining = True
        drained: Deferred[None] = Deferred()
        if not self.connections:
            drained.callback(None)
            return drained
        self._drained = drained
        self.leaving.stop(detail, self._config.session.drain_timeout, is_followed=is_followed)
        limit = self._config.session.drain_timeout + FORCED_CLOSE
        cut = self._reactor.callLater(limit, self.cut)

        def over(result: None) -> None:
            if cut.active():
                cut.cancel()

        return drained.addCallback(over)

    def cut(self) -> None:
        """Ends all connections at once, and with them a drain that is under way."""
        for connection in tuple(self.connections):
            connection.abort()

    def stop(self) -> None:
        """The wheel stands still. What is still open is cut."""
        self.leaving.cease()
        self.cut()
        if self._tick_call is not None:
            self._tick_call.cancel()
            self._tick_call = None
