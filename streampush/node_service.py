"""A node from its start to its end: ports, signals, reload, drain."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from streampush.composition import Parts
from streampush.config import Config
from streampush.errors import ConfigError
from streampush.handover.inherited import Inherited
from streampush.node_ports import NodePorts
from streampush.observe.log import LineObserver
from streampush.supervised import Supervised
from streampush.supervision import Supervision

SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that waits for the interpreter gets it; Python's own value is ten times that. The store's threads
let go of it at each step of SQLite, and beside a busy reactor an append waited for a second now and then (docs/performance.md)."""


class StreampushService(Service):
    """One node, whole: stream server, REST API, store, probe.

    `port` and `rest_port` are the ports that the kernel gave. `system_ns` is the system's wall clock, Unix nanoseconds.
    `read_again` gives the settings anew for a reload, or raises ConfigError; without it those of the start are reloaded.
    `inherited`: listening sockets that another process opened, served in place of those of the settings. Raises ConfigError if
    files do not fit. `supervised`: the node is a worker, and ends when its supervisor says so, or is gone.
    """

    _log = Logger(namespace="streampush")
    name = "streampush"

    def __init__(
        self,
        reactor: Any,
        config: Config,
        observer: LineObserver | None = None,
        warnings: tuple[str, ...] = (),
        *,
        system_ns: Callable[[], int] = time.time_ns,
        read_again: Callable[[], Config] | None = None,
        inherited: Inherited | None = None,
        supervised: Supervised | None = None,
    ) -> None:
        self.config = config
        self._read_again = read_again or (lambda: config)
        self._reactor = reactor
        self._observer = observer
        self._parts = parts = Parts(reactor, config, system_ns, supervised)
        self._warnings = (*warnings, *((parts.warning,) if parts.warning else ()))
        self.registry = parts.registry
        self.store = parts.keeping.store
        self.service = parts.service
        self.node = parts.node
        self.ports = NodePorts(reactor, config, parts, inherited or Inherited())
        self._old_hangup: Any = None
        self._old_switch_interval = sys.getswitchinterval()
        self.hurried = False
        self._has_successor = False
        self._supervision = Supervision(reactor, supervised, parts.reports, self.hurry) if supervised is not None else None

    def setServiceParent(self, parent: Any) -> None:
        """Under twistd the parent is the application, and what it has as ILogObserver becomes the process's log."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # nor this

    # -------------------------------------------------------------------------------------------------- start, reload, stop

    @property
    def port(self) -> int:
        """The port of the stream protocol."""
        return self.ports.port

    @property
    def rest_port(self) -> int:
        """The port of the REST API."""
        return self.ports.rest_port

    def privilegedStartService(self) -> None:
        """Takes the ports. A port that cannot be had is one line on stderr and exit status 1."""
        try:
            self.ports.take()
        except ConfigError as error:
            print(f"streampush: {error}", file=sys.__stderr__)  # sys.stderr is the log's by now
            raise SystemExit(1) from None

    def startService(self) -> None:
        """As `begin`, but that a store that cannot be used is one line on stderr and exit status 1."""
        if not self.ports.is_open:
            self.privilegedStartService()
        try:
            self.begin()
        except ConfigError as error:
            print(f"streampush: {error}", file=sys.__stderr__)  # sys.stderr is the log's by now
            raise SystemExit(1) from None

    def begin(self, *, follows: bool = False) -> None:
        """Everything runs when this returns; the node is ready when its first probe has come through. Its ports were taken.
        `follows`: devices come from the process that had the ports before.

        The store is opened in the process that will use it: behind the fork to the background, with the rights that are kept.
        Raises ConfigError if it cannot be used.
        """
        self._parts.port = self.port
        self._old_switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._parts.keeping.start()
        self._parts.hear()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if self._observer is not None:
            self._observer.start()
        self.node.start()
        if follows:
            self.service.await_devices(self.config.session.drain_timeout)
        self.service.start()
        self.service.left_behind.start()
        self._parts.away.start()
        self._parts.lag.start()
        self._parts.clock_watch.start()
        self._parts.lease.start()
        self._parts.membership.start()
        self._parts.spawn(self._parts.probe.start())
        if self._supervision is not None:
            self._supervision.start()
        self._old_hangup = signal.signal(signal.SIGHUP, self._hangup)
        for warning in self._warnings:
            self._log.warn("{problem}", problem=warning)
        self._reactor.callWhenRunning(self._tell_start)  # not before: a signal would end the process without a drain

    def _tell_start(self) -> None:
        if not self.running:
            return  # stopped before the reactor ran
        self.ports.tell_source()
        stream, rest = self.ports.where()
        self._log.info(
            "streampush {version} serves devices on {address}:{port}, REST on {rest}",
            version=version("streampush"),
            address=stream.rpartition(":")[0],
            port=self.port,
            rest=rest,
            node=self._parts.node_name,
        )
        if self._parts.away.apps.all:
            self._tell_apps()

    def ready(self) -> tuple[bool, tuple[str, ...]]:
        """Whether the node is ready, and why not."""
        return self._parts.health.ready(self._reactor.seconds())

    def _hangup(self, signum: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Reads certificates, keys, CAs and lists again, of the stream, of REST and of Apple's apps, and these apps' settings; what
        is broken leaves the old ones in force."""
        self.node.reload()
        self._reload_rest()
        self._reload_apps()

    def _reload_rest(self) -> None:
        if self._parts.rest_tls is None:
            return
        try:
            self._parts.rest_tls.reload()
        except ConfigError as error:
            self._parts.metrics.reloads("failed")
            self._log.error("reload failed, the old certificate of REST stays in force: {problem}", problem=str(error))

    def _reload_apps(self) -> None:
        apps = self._parts.away.apps
        had_apps = bool(apps.all)
        try:
            found = apps.reload(self._read_again())
        except ConfigError as error:
            self._parts.metrics.reloads("failed")
            self._log.error("reload failed, the old apps of Apple's stay in force: {problem}", problem=str(error))
            return
        for problem in found:
            if problem.severity == "error":
                self._parts.metrics.reloads("failed")
                self._log.error("reload failed, the app stays as it was: {problem}", problem=str(problem))
            else:
                self._log.warn("{problem}", problem=str(problem))
        if apps.all or had_apps:
            self._tell_apps()

    def _tell_apps(self) -> None:
        apps = self._parts.away.apps.all.values()
        named = [f"{app.name} ({app.settings.bundle_id}, {app.settings.environment})" for app in apps]
        self._log.info("apps of Apple's in force: {apps}", apps=", ".join(named) or "none")

    def stopService(self) -> Deferred[None]:
        """Drains: no new connections, GoAway 1004 to every peer, and at most `drain_timeout` for them to go."""
        return Deferred.fromCoroutine(self._stop())

    def give_way(self) -> Deferred[None]:
        """Stops for a process that serves, or will serve, on the same sockets: nothing is refused, what is new is left to it."""
        self._has_successor = True
        return self.stopService()

    def _hurry(self, signum: int, frame: FrameType | None) -> None:
        """Whoever sends a second signal does not want to wait. A worker gets SIGTERM from systemd, too, and is hurried by its
        supervisor."""
        if self._supervision is None or signum != signal.SIGTERM:
            self._reactor.callFromThread(self.hurry)

    def hurry(self) -> None:
        """The stop that is under way waits no longer, neither for devices to leave nor for answers of Apple's."""
        self.hurried = True
        self.node.cut()
        self._parts.away.cut()

    async def _stop(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if self._supervision is not None and self._supervision.is_alone:
            self._has_successor = True  # the next process of this worker, or the other workers
        hurried = {number: signal.signal(number, self._hurry) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            await (self._drain_for_successor() if self._has_successor else self._drain())
            self.node.stop()
            self.service.stop()
            self.service.left_behind.stop()
            await self._stop_pushes()
        finally:
            for number, before in hurried.items():
                signal.signal(number, before)
        await self.ports.stop_accepting()
        stored = await self.service.settle()
        if not stored:
            self._log.error("the store is away: what devices acknowledged last is not stored, they get it again")
        await self._stop_parts(store_answers=stored)
        sys.setswitchinterval(self._old_switch_interval)
        if self._old_hangup is not None:
            signal.signal(signal.SIGHUP, self._old_hangup)
        self._log.info("stopped")
        if self._observer is not None:
            self._observer.stop()

    async def _drain(self) -> None:
        self._parts.draining.reason = "the node is being stopped"
        self._parts.probe.stop()  # it would be refused like any publisher, and warn of it
        self.service.refuse_publishing("the node is being stopped")
        if self.ports.rest_site is not None:
            self.ports.rest_site.streams.stop("the node is being stopped")
        self._log.info("draining {connections} connections", connections=len(self.node.connections))
        if self.ports.stream is not None:
            await self.ports.stream.stopListening()
        await self.node.drain("the server stops")

    async def _drain_for_successor(self) -> None:
        """REST goes on for those who are connected, answer by answer, until the devices have left: no publisher is refused."""
        why = "another process takes over"
        self._parts.draining.reason = why
        self.service.await_devices(2 * self.config.session.drain_timeout)  # until this process has none any more
        self._parts.probe.stop()
        await self.ports.stop_accepting()
        site = self.ports.rest_site
        if site is not None:
            site.streams.stop(why)
            site.begin_leaving()
        self._log.info("draining {connections} connections, another process takes over", connections=len(self.node.connections))
        await self.node.drain(why, is_followed=self.config.store.backend == "redis")  # else it waits for our store
        if site is not None:
            await site.finish()
        self.service.refuse_publishing(why)

    async def _stop_pushes(self) -> None:
        stopped = self._parts.away.stop()
        if self.hurried:
            self._parts.away.cut()
        await stopped

    async def _stop_parts(self, *, store_answers: bool) -> None:
        self.service.receipts.stop()
        self._parts.lease.stop()
        await self._parts.membership.stop(tells=store_answers)
        self._parts.lag.stop()
        self._parts.clock_watch.stop()
        self._parts.retries.stop()
        await self._parts.keeping.stop()
        if self._supervision is not None:
            await self._supervision.stop()
