"""The composition root: what a node is made of, and the only place that picks implementations."""

from __future__ import annotations

import datetime as dt
import os
import random
import resource
import socket
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from time import process_time
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry
from twisted.logger import Logger
from twisted.python.failure import Failure

from streampush.apns.away import Away
from streampush.clocks import boot_ns
from streampush.config import Config
from streampush.config_rules import fd_budget, is_unspecified
from streampush.observe.apns_figures import ApnsFigures
from streampush.observe.bus_figures import BusFigures
from streampush.observe.health import Flag, Health, ProbeWatch
from streampush.observe.lag import LagWatch
from streampush.observe.metrics import Metrics
from streampush.observe.node_figures import NodeFigures
from streampush.observe.steadiness import ClockWatch
from streampush.observe.store_figures import StoreFigures
from streampush.push import ids
from streampush.push.hearing import NodeHearing
from streampush.push.nodes import Nodes
from streampush.push.presence import NodeLease
from streampush.push.service import PushService
from streampush.push.steady import SteadyClock
from streampush.push.surroundings import Surroundings
from streampush.push.values import NodeRecord, run_name
from streampush.rest.api import make_site
from streampush.rest.asking import Asker
from streampush.rest.http import ApiSite
from streampush.rest.reports import OwnReports, RelayedReports, Reports
from streampush.rest.tls import RestTls
from streampush.server.admission import CODE_OF, Admission
from streampush.server.capacity import HandshakeCapacity
from streampush.server.connection import StreamConnection
from streampush.server.contexts import TlsContexts
from streampush.server.flusher import WriteFlusher
from streampush.server.gate import Gate
from streampush.server.governor import Governor
from streampush.server.identity import Revocations
from streampush.server.listener import StreamPort
from streampush.server.member import NodeMember
from streampush.server.membership import Membership
from streampush.server.namesakes import Namesakes
from streampush.server.node import StreamNode
from streampush.server.probe import Probe
from streampush.server.socket_set import make_socket_set
from streampush.server.surroundings import ConnectionSurroundings, session_settings
from streampush.server.tasks import run
from streampush.server.wire import encode_delivery
from streampush.store.keeping import Keeping, MemoryKeeping, SqliteKeeping
from streampush.store.retrying import Retries
from streampush.supervised import DRAINING, Supervised

SUPERVISOR_DEADLINE = 4.0
"""Seconds for the supervisor's answer for all workers; it waits 2 s for one that hangs."""

MAX_MERGED_METRICS = 32 * 1024 * 1024
"""Bytes of the metrics of all workers; each has some 50 KiB."""


class Parts:
    """The parts of one node, made and joined, none of them started. Raises ConfigError if files do not fit.

    `system_ns` is the system's wall clock, Unix nanoseconds. `warning`: what an operator should know of this machine.
    """

    _log = Logger(namespace="streampush")

    def __init__(self, reactor: Any, config: Config, system_ns: Callable[[], int], supervised: Supervised | None = None) -> None:
        self.config = config
        self._reactor = reactor
        self._supervised = supervised
        self.node_name = config.node.name or socket.gethostname()
        self.run = run_name(self.node_name, ids.random_id(os.urandom))
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, version("streampush"))
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        cap, self.warning = fd_budget(config, soft_limit)
        revocations = Revocations.load(config.tls, config.file)
        self.contexts = TlsContexts(config.tls, config.file)
        self.gate = Gate(config, revocations, lambda: dt.datetime.now(dt.UTC))
        self.admission = Admission(config.admission, cap)
        self._namesakes = Namesakes()
        self.governor = self._make_governor()
        self.time = SteadyClock(system_ns, boot_ns)
        self.away = self._make_away()
        self.keeping = self._make_keeping()
        self.nodes = Nodes(self.keeping.store, lambda: ids.random_id(os.urandom))
        self.retries = Retries(reactor)
        self.service = PushService(self._push_surroundings(), config.publish, config.delivery)
        self.node = self._make_node()
        self._around_connections = self._connection_surroundings()
        self.draining = Flag()
        probed = ProbeWatch(config.probe.interval, config.probe.failures)
        self.health = Health({DRAINING: self.draining, "store": self.keeping.reason, "probe": probed})
        self.reports = OwnReports(self.health, self.registry, reactor.seconds)
        self.probe = self._make_probe(probed)
        self.port = config.listen.port  # for devices; 0 until the kernel has given one
        self.membership = self._make_membership()
        self.lease = NodeLease(self.service.presence, config.heartbeat.interval, reactor.callLater, self.spawn)
        self.lag = LagWatch(reactor, self.metrics)
        self.clock_watch = ClockWatch(reactor, self.time, self.metrics)
        self.rest_tls = RestTls(config.rest, config.file) if config.rest.enabled and config.rest.certificate else None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine to its end; what it raises is a bug of ours, and logged as one."""
        run(work, self._task_failed)

    def _task_failed(self, failure: Failure) -> None:
        self._log.failure("a task failed", failure=failure)

    def hear(self) -> None:
        """Listens to other nodes from now on; behind the start of the store."""
        self.keeping.hear(
            NodeHearing(
                self.service,
                self.keeping.store,
                clock=self._reactor.seconds,
                spawn=self.spawn,
                retry_later=self.retries.later,
            )
        )

    def make_stream_port(self, inherited: socket.socket | None = None) -> StreamPort:
        """The port of the stream protocol, which accepts nothing yet. `inherited`: the socket to accept from."""
        return StreamPort(
            self._reactor,
            self.config.listen,
            sockets=make_socket_set(self._reactor),
            admission=self.admission,
            contexts=self.contexts,
            protocol_factory=lambda peer: StreamConnection(self._around_connections, peer),
            telling_factory=lambda peer, reason: StreamConnection(self._around_connections, peer, CODE_OF[reason]),
            flusher=WriteFlusher(lambda flush: self._reactor.callLater(0, flush)),
            metrics=self.metrics,
            high_water=self.config.session.send_buffer,
            inherited=inherited,
        )

    def make_rest_site(self) -> ApiSite:
        """What the REST API's port serves."""
        return make_site(
            self.service,
            self.health,
            self.registry,
            self.config.rest,
            self._reactor,
            self.metrics,
            apns=self.away,
            known_nodes=self.nodes,
            reports=self._all_reports(),
        )

    def _all_reports(self) -> Reports:
        """Of all workers, if this is one of several."""
        if self._supervised is None:
            return self.reports
        path = self._supervised.supervisor
        asker = Asker(self._reactor, path, deadline=SUPERVISOR_DEADLINE, max_bytes=MAX_MERGED_METRICS)
        return RelayedReports(self.reports, asker)

    # ------------------------------------------------------------------------------ composing: each needs those made before it

    def _make_keeping(self) -> Keeping:
        figures = StoreFigures(self.registry)
        if self.config.store.backend == "redis":
            # not at the top: its client imports Twisted's reactor, which twistd chooses first
            from streampush.store.redis.keeping import RedisKeeping

            return RedisKeeping(
                self._reactor,
                self.config,
                self.time.wall_ms,
                lambda: ids.random_id(os.urandom),
                figures,
                BusFigures(self.registry),
                self.run,
            )
        kinds: dict[str, type[MemoryKeeping] | type[SqliteKeeping]] = {"memory": MemoryKeeping, "sqlite": SqliteKeeping}
        keeping = kinds[self.config.store.backend]
        return keeping(self._reactor, self.config, self.time.wall_ms, lambda: ids.random_id(os.urandom), figures)

    def _make_away(self) -> Away:
        figures = ApnsFigures(self.registry)
        away = Away(
            self._reactor,
            self.config,
            lambda token, at_ms: self.service.devices.drop_dead(token, at_ms),
            wall=lambda: self.time.wall_ms() / 1000,
            new_id=lambda: str(uuid4()),
            metrics=figures,
            random=random.Random(os.urandom(16)),  # noqa: S311 - spreads pauses
        )
        figures.watched(away.figures, away.days_left)
        return away

    def _push_surroundings(self) -> Surroundings:
        def call_soon(work: Callable[[], None]) -> object:
            return self._reactor.callLater(0, work)

        entropy = ids.EntropyPool(os.urandom)
        return Surroundings(
            store=self.keeping.store,
            encode=encode_delivery,
            metrics=self.metrics,
            clock=self._reactor.seconds,
            wall_ms=self.time.wall_ms,
            new_id=lambda now_ms: ids.message_id(now_ms, entropy),
            call_soon=call_soon,
            call_later=self._reactor.callLater,
            retry_later=self.retries.later,
            spawn=self.spawn,
            run=self.run,
            sender=self.away.sender,
            bus=self.keeping.bus,
            rates=self.keeping.rates,
        )

    def _make_governor(self) -> Governor:
        admission = self.config.admission
        capacity = HandshakeCapacity(admission.handshake_share, admission.accept_rate, process_time)
        governor = Governor(capacity, random.Random(os.urandom(16)))  # noqa: S311 - spreads clients
        self.registry.register(NodeFigures(governor, self.admission, self._namesakes, self._reactor.seconds))
        return governor

    def _make_membership(self) -> Membership:
        listen = self.config.listen
        host = socket.gethostname() if is_unspecified(listen.address) else listen.address
        member = NodeMember(
            NodeRecord(self.node_name, self.time.wall_ms(), version=version("streampush")),
            address=lambda: f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}",
            admission=self.admission,
            governor=self.governor,
            leaving=self.node.leaving,
            ready=lambda: self.health.ready(self._reactor.seconds())[0],
            drained=lambda reason: setattr(self.draining, "reason", reason),
            clock=self._reactor.seconds,
        )
        return Membership(
            self.keeping.store,
            member,
            self._namesakes,
            wall_ms=self.time.wall_ms,
            call_later=self._reactor.callLater,
            spawn=self.spawn,
        )

    def _make_node(self) -> StreamNode:
        return StreamNode(
            self._reactor,
            self.config,
            contexts=self.contexts,
            gate=self.gate,
            admission=self.admission,
            governor=self.governor,
            metrics=self.metrics,
            log=Logger(namespace="streampush.connections"),
            random=random.Random(os.urandom(16)),  # noqa: S311 - an order of connections
        )

    def _connection_surroundings(self) -> ConnectionSurroundings:
        return ConnectionSurroundings(
            config=self.config,
            node_name=self.node_name,
            settings=session_settings(self.config),
            service=self.service,
            gate=self.gate,
            governor=self.governor,
            metrics=self.metrics,
            clock=self._reactor.seconds,
            wall_ms=self.time.wall_ms,
            first_ping=random.random,
            new_session_id=lambda: ids.random_id(os.urandom),
            spawn=self.spawn,
            opened=self.node.opened,
            gone=self.node.gone,
            reschedule=self.node.reschedule,
            handshake_done=self.admission.handshake_done,
            log=Logger(namespace="streampush.connections"),
        )

    def _make_probe(self, watch: ProbeWatch) -> Probe:
        return Probe(
            self._reactor,
            self.service,
            self.metrics,
            self.spawn,
            node_name=self.node_name,
            interval=self.config.probe.interval,
            arrived_at=watch.succeeded,
        )
