"""The two listening ports of a node: bound as its settings say, or on sockets that another process opened."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from streampush.composition import Parts
from streampush.config import Config
from streampush.config_rules import is_loopback
from streampush.errors import ConfigError
from streampush.handover.inherited import ENVIRONMENT, REST, STREAM, Inherited
from streampush.rest.http import ApiSite
from streampush.server.listener import StreamPort
from streampush.server.sockets import open_listening

REST_BACKLOG = 128
"""Connections to the REST API that wait for accept: publishers keep theirs open, so there are few new ones at a time."""


def served_names(config: Config) -> tuple[str, ...]:
    """The names of the sockets that a node with these settings serves."""
    return (STREAM, REST) if config.rest.enabled else (STREAM,)


def check_exposure(config: Config, sockets: Mapping[str, socket.socket]) -> None:
    """Raises ConfigError for an inherited socket of REST that other machines reach without TLS, which settings may not ask for."""
    sock = sockets.get(REST)
    if sock is None or config.rest.certificate:
        return
    address = sock.getsockname()[0]
    if not is_loopback(address):
        problem = f"the socket {REST!r} listens on {address}, which other machines reach: set rest.certificate and rest.key"
        raise ConfigError(ENVIRONMENT, "LISTEN_FDS", problem)


class NodePorts:
    """Takes the ports of `parts`. Nothing is accepted before the reactor runs.

    `inherited`: sockets to serve in place of bound ones, which become the ports' own.
    """

    _log = Logger(namespace="streampush")

    def __init__(self, reactor: Any, config: Config, parts: Parts, inherited: Inherited) -> None:
        self._reactor = reactor
        self._config = config
        self._parts = parts
        self._inherited = inherited
        self.stream: StreamPort | None = None
        self.rest: IListeningPort | None = None
        self.rest_site: ApiSite | None = None

    @property
    def is_open(self) -> bool:
        """Whether the ports were taken."""
        return self.stream is not None

    @property
    def port(self) -> int:
        """The port of the stream protocol."""
        assert self.stream is not None
        return self.stream.getHost().port

    @property
    def rest_port(self) -> int:
        """The port of the REST API."""
        assert self.rest is not None
        host: Any = self.rest.getHost()
        return int(host.port)

    def take(self) -> None:
        """Takes the ports. Raises ConfigError naming the key of one that cannot be had."""
        sockets = self._inherited.sockets
        self.stream = self._parts.make_stream_port(sockets.get(STREAM))
        self._try("listen.port", self.stream.startListening)
        if self._config.rest.enabled:
            self._try("rest.port", lambda: self._take_rest(sockets.get(REST)))

    def _try(self, key: str, listen: Callable[[], object]) -> None:
        try:
            listen()
        except CannotListenError as error:
            where = f"{error.interface or 'any address'}:{error.port}"
            raise ConfigError(self._config.file, key, f"cannot listen on {where}: {error.socketError}") from error

    def _take_rest(self, inherited: socket.socket | None) -> None:
        """Twisted gets a copy of the socket and is told that it is one: of its own it would shut down, for all who share it."""
        rest = self._config.rest
        site = self.rest_site = self._parts.make_rest_site()
        factory: Any = site
        if self._parts.rest_tls is not None:
            factory = TLSMemoryBIOFactory(self._parts.rest_tls, False, site)
        with inherited or open_listening(rest.address, rest.port, REST_BACKLOG) as sock:
            self.rest = self._reactor.adoptStreamPort(sock.fileno(), sock.family, factory)

    def where(self) -> tuple[str, str]:
        """The addresses of the stream protocol and of REST, each with its port, for the log."""
        return _where(self.stream), _where(self.rest) if self.rest is not None else "no port"

    def tell_source(self) -> None:
        """Says in the log which sockets another process opened."""
        inherited = self._inherited
        if inherited.notice:
            self._log.warn("{problem}", problem=inherited.notice)
        named = zip((STREAM, REST), self.where(), strict=True)
        sockets = [f"{name} on {where}" for name, where in named if name in inherited.sockets]
        if sockets:
            self._log.info(
                "listening sockets come from {source}, whatever address and port are set: {sockets}",
                source=inherited.source,
                sockets=", ".join(sockets),
            )


def _where(port: Any) -> str:
    host = port.getHost()
    return f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
