"""A node's place on its ports: the node that serves, the process it follows, and the one that follows it.

    start      a process that serves at `node.handover` is asked for its sockets, and this one serves in its place
    upgrade    another process asks: this one lets go, and ends when the other serves

With SQLite only one process may have the store: it is closed here before the successor opens it. Who connects meanwhile waits in
the kernel. If the successor is lost then, a node is made anew on the sockets, which were kept. A store that several may use is
not closed: both serve for a moment.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from streampush.config import Config
from streampush.errors import ConfigError
from streampush.handover.incumbent import Incumbent, Share
from streampush.handover.inherited import Inherited
from streampush.handover.notify import ServiceNotices
from streampush.handover.readiness import ReadyWatch
from streampush.handover.successor import HandoverRefused, Succession, ask
from streampush.handover.upgrades import Launch, Upgrades
from streampush.node_ports import fitting
from streampush.node_service import StreampushService
from streampush.observe.log import LineObserver

RESUME_INTERVAL: Final = 1.0
"""Seconds between two tries to come back, when the successor is lost and the store cannot be opened: it may still have it."""

LETTING_GO: Final = 30.0
"""Seconds beyond `session.drain_timeout` for answers of Apple's and of REST, and for what waits for the disk."""


class Seat(Service):
    """One node under twistd, and then perhaps another one.

    `make_node` gives a node that has looked at its files and has not begun anything. `inherited`: sockets that were found at the
    start. `launch`: how this process was started, for upgrades; without it there are none. `environ` says whether systemd wants to
    be told of the start. Raises ConfigError if files do not fit.
    """

    _log = Logger(namespace="streampush.handover")
    name = "streampush"

    def __init__(
        self,
        reactor: Any,
        config: Config,
        make_node: Callable[[], StreampushService],
        *,
        observer: LineObserver | None = None,
        inherited: Inherited | None = None,
        launch: Launch | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.release_time = config.session.drain_timeout + LETTING_GO
        self._reactor = reactor
        self._make_node = make_node
        self._observer = observer
        self._inherited = inherited or Inherited()
        self.node: StreampushService | None = make_node()  # before anybody is asked: most faults are found here
        self._incumbent = Incumbent(reactor, config.node.handover, self)
        unable = "" if config.node.handover else "node.handover is not set: a successor would not find this process"
        self._upgrades = Upgrades(reactor, self._incumbent, launch or Launch((), {}, "", "nobody knows how"), unable)
        self._notices = ServiceNotices(environ or {})
        self._old_signal: Any = None
        self._succession: Succession | None = None
        self._kept: Inherited | None = None
        self._released: Deferred[None] | None = None
        self._watch = ReadyWatch(reactor, self._is_ready, self._take_over)
        self._resume_call: IDelayedCall | None = None
        self._is_followed = False

    def setServiceParent(self, parent: Any) -> None:
        """Under twistd the parent is the application, and what it has as ILogObserver becomes the process's log."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # nor this

    # ---------------------------------------------------------------------------------------------------------------- starting

    def privilegedStartService(self) -> None:
        """Asks who serves, and takes the ports. What cannot be had is one line on stderr and exit status 1."""
        assert self.node is not None
        try:
            self._succession = ask(self.config.node.handover) if self.config.node.handover else None
            self.node.ports.inherit(fitting(self.config, self._found()))
            self.node.ports.take()
        except (ConfigError, HandoverRefused) as error:
            self._end(error)

    def _found(self) -> Inherited:
        """Sockets of the process before this one, and of the environment where that had none."""
        if self._succession is None:
            return self._inherited
        received = self._succession.received
        sockets = {**self._inherited.sockets, **received.sockets}
        for name in self._inherited.sockets.keys() & received.sockets.keys():
            self._inherited.sockets[name].close()
        bound = frozenset(received.sockets.keys() - received.foreign)
        return replace(self._inherited, sockets=sockets, bound=bound, source=f"process {self._succession.peer.pid}")

    def startService(self) -> None:
        """Waits until the process before this one has let go, and begins."""
        assert self.node is not None
        if not self.node.ports.is_open:
            self.privilegedStartService()
        try:
            if self._succession is not None:
                self._wait()
            self.node.begin(follows=self._succession is not None)
            if self._succession is None:
                self._answer()
        except (ConfigError, HandoverRefused) as error:
            self._end(error)
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if self._observer is not None:
            self._observer.start()
        self._old_signal = signal.signal(signal.SIGUSR2, self._upgrade)
        if self._succession is None:
            self._reactor.callWhenRunning(self._notices.serving)
        else:
            self._watch.start()

    def _upgrade(self, signum: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._upgrades.order)

    def _wait(self) -> None:
        assert self._succession is not None
        pid = self._succession.peer.pid
        if not self._succession.wait_until_free():
            self._log.warn("process {pid} died while it was followed", pid=pid)

    def _answer(self) -> None:
        if not self.config.node.handover:
            return
        try:
            self._incumbent.start()
        except OSError as error:
            raise ConfigError(self.config.file, "node.handover", f"{self.config.node.handover}: {error.strerror}") from error

    def _end(self, error: Exception) -> None:
        problem = str(error) if isinstance(error, ConfigError) else f"{self.config.file}: node.handover: {error}"
        if self._succession is not None:
            self._succession.tell_failed(problem)
        print(f"streampush: {problem}", file=sys.__stderr__)  # sys.stderr is the log's by now
        raise SystemExit(1)

    def _is_ready(self) -> tuple[bool, tuple[str, ...]]:
        return self.node.ready() if self.node is not None else (False, ())

    def _take_over(self) -> None:
        """Tells the process before this one that it may end: this one is ready."""
        succession, self._succession = self._succession, None
        assert succession is not None
        try:
            self._answer()
        except ConfigError as error:
            self._log.error("{problem}: this process can have no successor", problem=str(error))
        self._log.info("taken over from process {pid}", pid=succession.peer.pid)
        if self.config.store.backend == "memory":
            self._log.warn("the store is in memory, and began empty: what process {pid} had is gone", pid=succession.peer.pid)
        succession.tell_taken()

    # ------------------------------------------------------------------------------------------------------------ being followed

    def shares(self) -> list[Share]:
        """For the incumbent: the listening sockets, also while no node has them."""
        if self.node is not None:
            return self.node.ports.shares()
        kept = self._kept or Inherited()
        return [Share(name, sock.fileno(), name not in kept.bound) for name, sock in kept.sockets.items()]

    async def release(self) -> None:
        """For the incumbent: stops the node where only one process may have its store, and keeps the sockets."""
        self._cancel_resume()
        node = self.node
        if node is None or self.config.store.backend != "sqlite":
            return
        self._kept = node.ports.copies()
        self._released = Deferred()
        try:
            await node.give_way()
        finally:
            self.node = None
            released, self._released = self._released, None
            released.callback(None)
            if node.hurried:  # by a signal to stop, which the node took for itself
                self._reactor.callLater(0, self._reactor.stop)

    def resume(self) -> None:
        """For the incumbent: the successor is lost. A node is made anew where the old one was stopped."""
        self._cancel_resume()
        if self.node is not None or not self.running:
            return
        assert self._kept is not None
        try:
            self.node = self._begin_anew(self._kept)
        except ConfigError as error:
            self._log.error("this process cannot serve again yet, it tries on: {problem}", problem=str(error))
            self._resume_call = self._reactor.callLater(RESUME_INTERVAL, self.resume)
            return
        self._kept.close()
        self._kept = None

    def _begin_anew(self, kept: Inherited) -> StreampushService:
        node = self._make_node()
        node.ports.inherit(kept.again())
        try:
            node.ports.take()
            node.begin(follows=True)
        except ConfigError:
            Deferred.fromCoroutine(node.ports.stop_accepting())
            raise
        return node

    def _cancel_resume(self) -> None:
        if self._resume_call is not None and self._resume_call.active():
            self._resume_call.cancel()
        self._resume_call = None

    def leave(self, successor: int) -> None:
        """For the incumbent: the successor serves."""
        self._is_followed = True
        self._notices.followed_by(successor)
        self._reactor.stop()

    # ---------------------------------------------------------------------------------------------------------------- stopping

    def stopService(self) -> Deferred[None]:
        """Stops the node, if there is one; for a successor's sake gently, see `StreampushService.give_way`."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if not self._is_followed:
            self._notices.stopping()
        self._cancel_resume()
        self._upgrades.stop()
        self._watch.stop()
        if self._released is not None:
            await self._released
        await self._incumbent.stop()
        if self.node is not None:
            await (self.node.give_way() if self._is_followed else self.node.stopService())
            self.node = None
        if self._succession is not None:
            self._succession.tell_failed("it was stopped before it was ready")
        if self._kept is not None:
            self._kept.close()
        if self._old_signal is not None:
            signal.signal(signal.SIGUSR2, self._old_signal)
        if self._observer is not None:
            self._observer.stop()
