"""The two listening ports of a node: bound as its settings say, or on sockets that another process opened."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from streampush.composition import Parts
from streampush.config import Config
from streampush.config_rules import is_loopback
from streampush.errors import ConfigError
from streampush.handover.incumbent import Share
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


def fitting(config: Config, found: Inherited) -> Inherited:
    """Those of the sockets that a node with these settings serves; the others are closed.

    Left out is what it does not serve at all, and what was bound after settings that have changed since. Raises ConfigError as
    `check_exposure`.
    """
    wanted = {STREAM: (config.listen.address, config.listen.port), REST: (config.rest.address, config.rest.port)}
    kept = {}
    for name, sock in found.sockets.items():
        if name in served_names(config) and (name not in found.bound or is_at(sock, *wanted[name])):
            kept[name] = sock
        else:
            sock.close()
    check_exposure(config, kept)
    return replace(found, sockets=kept)


def is_at(sock: socket.socket, address: str, port: int) -> bool:
    """Whether a socket listens where these settings want it; a port of 0 is any."""
    host, found = sock.getsockname()[:2]
    return port in (0, found) and ipaddress.ip_address(address) == ipaddress.ip_address(host)


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

    def inherit(self, inherited: Inherited) -> None:
        """Sockets to serve in place of bound ones, as far as they are not known from the start. Before `take`."""
        self._inherited = inherited

    def shares(self) -> list[Share]:
        """The sockets that are listened on, for a process that follows."""
        sockets = [(STREAM, self.stream.fileno())] if self.stream is not None else []
        if self.rest is not None:
            rest: Any = self.rest
            sockets.append((REST, rest.fileno()))
        foreign = self._inherited.sockets.keys() - self._inherited.bound
        return [Share(name, descriptor, name in foreign) for name, descriptor in sockets]

    def copies(self) -> Inherited:
        """The same sockets a second time: they listen until these are closed too."""
        shares = self.shares()
        sockets = {share.name: socket.socket(fileno=os.dup(share.descriptor)) for share in shares}
        return Inherited(sockets, "this process", bound=frozenset(share.name for share in shares if not share.foreign))

    async def stop_accepting(self) -> None:
        """Closes the listening sockets, for this process; connections that are open do not notice."""
        if self.stream is not None:
            await self.stream.stopListening()
        stopped = self.rest.stopListening() if self.rest is not None else None
        if stopped is not None:
            await stopped

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
            self._log.info("listening sockets come from {source}: {sockets}", source=inherited.source, sockets=", ".join(sockets))


def _where(port: Any) -> str:
    host = port.getHost()
    return f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
