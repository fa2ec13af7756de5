"""`twistd streampush`: the options and the composition root, the only place that picks implementations."""

from __future__ import annotations

import datetime as dt
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from types import FrameType
from typing import Any, TextIO

from prometheus_client import CollectorRegistry
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.web.server import Site

from streampush.config import Config, RestConfig
from streampush.config_files import check_files
from streampush.config_rules import fd_budget
from streampush.errors import ConfigError
from streampush.loading import read_config, refuse
from streampush.observe.health import Flag, Health, ProbeWatch
from streampush.observe.lag import LagWatch
from streampush.observe.log import LineObserver, make_observer_factory
from streampush.observe.metrics import Metrics
from streampush.observe.steadiness import ClockWatch
from streampush.observe.store_figures import StoreFigures
from streampush.protocol.events import SessionSettings
from streampush.protocol.heartbeat import HeartbeatSettings
from streampush.push import ids
from streampush.push.presence import NodeLease
from streampush.push.service import PushService, Surroundings
from streampush.push.steady import SteadyClock
from streampush.rest.api import make_site
from streampush.rest.http import ApiSite
from streampush.rest.tls import RestTls
from streampush.server.admission import Admission
from streampush.server.connection import StreamConnection
from streampush.server.contexts import TlsContexts
from streampush.server.flusher import WriteFlusher
from streampush.server.gate import Gate
from streampush.server.identity import Revocations
from streampush.server.listener import StreamPort
from streampush.server.node import StreamNode
from streampush.server.probe import Probe
from streampush.server.surroundings import ConnectionSurroundings
from streampush.server.tasks import run
from streampush.server.wire import encode_delivery
from streampush.store.keeping import Keeping, MemoryKeeping, SqliteKeeping
from streampush.store.retrying import Retries


class Options(usage.Options):
    """twistd -n streampush --config FILE"""

    synopsis = "[--config FILE] [--set section.key=value ...]"
    optParameters = [  # noqa: RUF012 - twisted.python.usage reads a class attribute
        ["config", "c", "streampush.toml", "The TOML file; `streampush init DIR` writes one, `streampush check FILE` checks it."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        self["set"] = []
        self.settings: Config | None = None
        self.warnings: tuple[str, ...] = ()

    def opt_set(self, assignment: str) -> None:
        """Overrides one setting of the file, as section.key=value; may be given more than once."""
        self["set"].append(assignment)

    def postOptions(self) -> None:
        """Reads and checks the configuration. A fault is one line on stderr and exit status 1."""
        try:
            config, problems = read_config(self["config"], os.environ, self["set"])
            refuse(problems)
            problems += check_files(config)
            refuse(problems)
        except ConfigError as error:
            raise SystemExit(f"streampush: {error}") from None
        self.settings = config
        self.warnings = tuple(str(problem) for problem in problems)


def _log_file(twistd: usage.Options | None) -> TextIO:
    """Where twistd was told to log: a file, or its standard output, which Twisted is about to replace."""
    options: dict[str, Any] = dict(twistd or {})
    name = options.get("logfile")
    if not name and not options.get("nodaemon"):
        name = "twistd.log"
    if not name or name == "-":
        return os.fdopen(os.dup(sys.__stdout__.fileno() if sys.__stdout__ else 1), "w", encoding="utf-8", buffering=1)
    return open(name, "a", encoding="utf-8", buffering=1)


def makeService(options: Options) -> IService:
    """For twistd."""
    from twisted.internet import reactor

    config = options.settings
    assert config is not None
    clock: Any = reactor
    run_timers_steadily(clock)
    observer = make_observer_factory(config.log, _log_file(options.parent), clock)()
    return StreampushService(reactor, config, observer, options.warnings)


class StreampushService(Service):
    """One node, whole: stream server, REST API, store, probe.

    `port` and `rest_port` are the ports that the kernel gave. `system_ns` is the system's wall clock, Unix nanoseconds. Raises
    ConfigError if files do not fit.
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
    ) -> None:
        self.config = config
        self._reactor = reactor
        self._observer = observer
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, version("streampush"))
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        cap, cap_warning = fd_budget(config, soft_limit)
        self._revocations = Revocations.load(config.tls, config.file)
        self._warnings = (*warnings, *((cap_warning,) if cap_warning else ()))
        self._contexts = TlsContexts(config.tls, config.file)
        self._gate = Gate(config, self._revocations, lambda: dt.datetime.now(dt.UTC))
        self._admission = Admission(config.admission, cap)
        self._time = SteadyClock(system_ns, boot_ns)
        keeping: type[MemoryKeeping] | type[SqliteKeeping]
        keeping = MemoryKeeping if config.store.backend == "memory" else SqliteKeeping
        figures = StoreFigures(self.registry)
        self._keeping: Keeping = keeping(reactor, config, self._time.wall_ms, lambda: ids.random_id(os.urandom), figures)
        self.store = self._keeping.store
        self._retries = Retries(reactor)
        self.service = PushService(self._push_surroundings(), config.publish, config.delivery)
        self.node = StreamNode(
            reactor,
            config,
            contexts=self._contexts,
            gate=self._gate,
            admission=self._admission,
            metrics=self.metrics,
            log=Logger(namespace="streampush.connections"),
        )
        self._connection_surroundings = self._make_connection_surroundings()
        self._draining = Flag()
        watch = ProbeWatch(config.probe.interval, config.probe.failures)
        self.health = Health({"draining": self._draining, "store": self._keeping.reason, "probe": watch})
        self._probe = Probe(
            reactor,
            self.service,
            self.metrics,
            self.spawn,
            node_name=self._node_name,
            interval=config.probe.interval,
            arrived_at=watch.succeeded,
        )
        self._lease = NodeLease(self.service.presence, config.heartbeat.interval, self._reactor.callLater, self.spawn)
        self._lag = LagWatch(reactor, self.metrics)
        self._clock_watch = ClockWatch(reactor, self._time, self.metrics)
        self._stream_port: StreamPort | None = None
        self._rest_port: IListeningPort | None = None
        self._rest_site: ApiSite | None = None
        self._rest_tls = RestTls(config.rest, config.file) if config.rest.enabled and config.rest.certificate else None
        self._old_hangup: Any = None

    # ---------------------------------------------------------------------------------------------------------- composing

    @property
    def _node_name(self) -> str:
        return self.config.node.name or socket.gethostname()

    def _push_surroundings(self) -> Surroundings:
        def call_soon(work: Callable[[], None]) -> object:
            return self._reactor.callLater(0, work)

        entropy = ids.EntropyPool(os.urandom)
        return Surroundings(
            store=self.store,
            encode=encode_delivery,
            metrics=self.metrics,
            clock=self._reactor.seconds,
            wall_ms=self._time.wall_ms,
            new_id=lambda now_ms: ids.message_id(now_ms, entropy),
            call_soon=call_soon,
            call_later=self._reactor.callLater,
            retry_later=self._retries.later,
            spawn=self.spawn,
            node=self._node_name,
        )

    def _make_connection_surroundings(self) -> ConnectionSurroundings:
        config = self.config
        session, beat = config.session, config.heartbeat
        settings = SessionSettings(
            session.max_frame,
            session.max_resync_bytes,
            session.max_bad_frames,
            session.handshake_timeout,
            session.hello_timeout,
            session.frame_timeout,
            session.idle_timeout,
            session.max_age,
            session.drain_timeout,
            HeartbeatSettings(beat.interval, beat.reply_timeout, beat.misses, beat.min_ping_interval),
        )
        return ConnectionSurroundings(
            config=config,
            node_name=self._node_name,
            settings=settings,
            service=self.service,
            gate=self._gate,
            metrics=self.metrics,
            clock=self._reactor.seconds,
            wall_ms=self._time.wall_ms,
            first_ping=random.random,
            new_session_id=lambda: ids.random_id(os.urandom),
            spawn=self.spawn,
            opened=self.node.opened,
            gone=self.node.gone,
            reschedule=self.node.reschedule,
            handshake_done=self._admission.handshake_done,
            log=Logger(namespace="streampush.connections"),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine to its end; what it raises is a bug of ours, and logged as one."""
        run(work, self._task_failed)

    def _task_failed(self, failure: Failure) -> None:
        self._log.failure("a task failed", failure=failure)

    def setServiceParent(self, parent: Any) -> None:
        """Under twistd the parent is the application, and what it has as ILogObserver becomes the process's log."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # nor this

    # -------------------------------------------------------------------------------------------------- start, reload, stop

    @property
    def port(self) -> int:
        """The port of the stream protocol."""
        assert self._stream_port is not None
        return int(self._stream_port.getHost().port)

    @property
    def rest_port(self) -> int:
        """The port of the REST API."""
        assert self._rest_port is not None
        host: Any = self._rest_port.getHost()
        return int(host.port)

    def privilegedStartService(self) -> None:
        """Takes the ports. A port that cannot be had is one line on stderr and exit status 1."""
        try:
            self.listen()
        except ConfigError as error:
            print(f"streampush: {error}", file=sys.__stderr__)  # sys.stderr is the log's by now
            raise SystemExit(1) from None

    def listen(self) -> None:
        """Takes the ports. Raises ConfigError naming the key of one that cannot be had."""
        config = self.config
        self._stream_port = StreamPort(
            self._reactor,
            config.listen,
            admission=self._admission,
            contexts=self._contexts,
            protocol_factory=lambda peer: StreamConnection(self._connection_surroundings, peer),
            flusher=WriteFlusher(lambda flush: self._reactor.callLater(0, flush)),
            metrics=self.metrics,
            high_water=config.session.send_buffer,
        )
        self._take("listen.port", self._stream_port.startListening)
        if config.rest.enabled:
            site = self._rest_site = make_site(self.service, self.health, self.registry, config.rest, self._reactor, self.metrics)
            self._take("rest.port", lambda: self._listen_rest(site, config.rest))

    def _take(self, key: str, listen: Callable[[], object]) -> None:
        try:
            listen()
        except CannotListenError as error:
            where = f"{error.interface or 'any address'}:{error.port}"
            raise ConfigError(self.config.file, key, f"cannot listen on {where}: {error.socketError}") from error

    def _listen_rest(self, site: Site, rest: RestConfig) -> None:
        if self._rest_tls is not None:
            self._rest_port = self._reactor.listenSSL(rest.port, site, self._rest_tls, interface=rest.address)
        else:
            self._rest_port = self._reactor.listenTCP(rest.port, site, interface=rest.address)

    def startService(self) -> None:
        """Everything runs when this returns; the node is ready when its first probe has come through."""
        if self._stream_port is None:
            self.privilegedStartService()
        self._open_store()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        if self._observer is not None:
            self._observer.start()
        self.node.start()
        self.service.start()
        self._lag.start()
        self._clock_watch.start()
        self._lease.start()
        self.spawn(self._probe.start())
        self._old_hangup = signal.signal(signal.SIGHUP, self._hangup)
        for warning in self._warnings:
            self._log.warn("{problem}", problem=warning)
        self._log.info(
            "streampush {version} serves devices on {address}:{port}, REST on {rest}",
            version=version("streampush"),
            address=self.config.listen.address,
            port=self.port,
            rest=f"{self.config.rest.address}:{self.rest_port}" if self._rest_port is not None else "no port",
            node=self._node_name,
        )

    def _open_store(self) -> None:
        """The store is opened in the process that will use it: behind the fork to the background, with the rights that are kept."""
        try:
            self._keeping.start()
        except ConfigError as error:
            print(f"streampush: {error}", file=sys.__stderr__)  # sys.stderr is the log's by now
            raise SystemExit(1) from None

    def _hangup(self, signum: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Reads certificates, keys, CAs and lists again, of the stream and of REST; what is broken leaves the old ones in force."""
        self.node.reload()
        if self._rest_tls is None:
            return
        try:
            self._rest_tls.reload()
        except ConfigError as error:
            self.metrics.reloads("failed")
            self._log.error("reload failed, the old certificate of REST stays in force: {problem}", problem=str(error))

    def stopService(self) -> Deferred[None]:
        """Drains: no new connections, GoAway 1004 to every peer, and at most `drain_timeout` for them to go."""
        return Deferred.fromCoroutine(self._stop())

    def _hurry(self, signum: int, frame: FrameType | None) -> None:
        """Whoever sends a second signal does not want to wait."""
        self._reactor.callFromThread(self.node.cut)

    async def _stop(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        self._draining.reason = "the node is being stopped"
        self._probe.stop()  # it would be refused like any publisher, and warn of it
        self.service.refuse_publishing("the node is being stopped")
        if self._rest_site is not None:
            self._rest_site.streams.stop("the node is being stopped")
        hurried = {number: signal.signal(number, self._hurry) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._log.info("draining {connections} connections", connections=len(self.node.connections))
            if self._stream_port is not None:
                await self._stream_port.stopListening()
            await self.node.drain("the server stops")
        finally:
            for number, before in hurried.items():
                signal.signal(number, before)
        self.node.stop()
        self.service.stop()
        if self._rest_port is not None:
            stopped = self._rest_port.stopListening()
            if stopped is not None:
                await stopped
        if not await self.service.settle():
            self._log.error("the store is away: what devices acknowledged last is not stored, they get it again")
        self.service.receipts.stop()
        self._lease.stop()
        self._lag.stop()
        self._clock_watch.stop()
        self._retries.stop()
        await self._keeping.stop()
        if self._old_hangup is not None:
            signal.signal(signal.SIGHUP, self._old_hangup)
        self._log.info("stopped")
        if self._observer is not None:
            self._observer.stop()


def boot_ns() -> int:
    """Nanoseconds since the machine's boot, with the time that it was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def run_timers_steadily(reactor: Any) -> None:
    """From now on the reactor's timers go by the monotonic clock.

    Twisted's go by the wall clock: were that set forward, every heartbeat would be lost at once; set back, nothing would time
    out for as long. To be called early: what is scheduled already is scheduled anew.
    """
    waiting = [(max(0.0, call.getTime() - reactor.seconds()), call) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for delay, call in waiting:
        reactor.callLater(delay, call.func, *call.args, **call.kw)
        call.cancel()
