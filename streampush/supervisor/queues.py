"""The listening sockets of all workers, which outlive them: what waits in a dead worker's queue is taken by its successor.

Theory of operation. Every worker has sockets of its own for the same port (SO_REUSEPORT), and the kernel gives each new connection
to one of them by a hash of the addresses. The supervisor binds them, hands a copy to the worker's process, and keeps its own: a
queue is reset only when the last copy is closed.

The kernel does not know that a worker is away, and goes on filling its queue. That is wanted for a moment. For longer, the worker
is parked: its sockets are replaced by new ones that are bound, so that the port stays ours, and do not listen, so that the kernel
gives all connections to the others. `shutdown` and `listen` would do without new ones, but such a socket gets nothing any more
(Linux 6.18).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from twisted.internet.abstract import isIPv6Address

from streampush.config import Config
from streampush.errors import ConfigError
from streampush.handover.inherited import REST, STREAM
from streampush.node_ports import REST_BACKLOG
from streampush.supervisor.steering import BY_ADDRESS, steer_by_address


@dataclass(slots=True)
class Queue:
    """One worker's socket for one port. `name` is what the worker knows it by."""

    name: str
    socket: socket.socket
    backlog: int
    is_shared: bool = False
    """All workers accept from the same socket, which somebody else has opened."""

    def listen(self) -> None:
        """Takes connections from now on; does nothing if it does already."""
        if not self.is_shared:
            self.socket.listen(self.backlog)

    def park(self) -> None:
        """Resets what waits, and takes nothing until `listen`; the others have all of a queue that is shared. Raises OSError, and
        then all is as before."""
        if self.is_shared:
            return
        fresh = _bound(self.socket.family, self.socket.getsockname())
        self.socket.close()
        self.socket = fresh


_NOTHING: Mapping[str, socket.socket] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Port:
    """A port as it is configured."""

    name: str
    key: str
    address: str
    number: int
    backlog: int


def bind_all(config: Config, workers: int, inherited: Mapping[str, socket.socket] = _NOTHING) -> list[list[Queue]]:
    """The queues of each worker, that of the stream first, then REST's if it is on; none listens. A port of 0 is the same for all.

    `inherited`: sockets of systemd's by name, which all workers share in place of bound ones; and those of a supervisor before
    this one, each the queue of the worker whose number is in its name. Raises ConfigError, naming the key, if a port is taken or
    not ours.
    """
    ports = [_Port(STREAM, "listen.port", config.listen.address, config.listen.port, config.listen.backlog)]
    if config.rest.enabled:
        ports.append(_Port(REST, "rest.port", config.rest.address, config.rest.port, REST_BACKLOG))
    queues: list[list[Queue]] = [[] for _ in range(workers)]
    try:
        for port in ports:
            if port.name in inherited:
                for pair in queues:
                    pair.append(Queue(port.name, inherited[port.name].dup(), port.backlog, is_shared=True))
            else:
                _bind_port(config.file, port, queues, inherited)
                if port.name == STREAM and config.listen.steering == BY_ADDRESS:
                    _steer(config.file, queues)
    except ConfigError:
        close_all(queues)
        raise
    return queues


def close_all(queues: list[list[Queue]]) -> None:
    """The supervisor's copies are closed; what still waits and has no other copy is reset."""
    for queue in (each for pair in queues for each in pair):
        queue.socket.close()


def _bind_port(file: str, port: _Port, queues: list[list[Queue]], taken: Mapping[str, socket.socket]) -> None:
    family = socket.AF_INET6 if isIPv6Address(port.address) else socket.AF_INET
    try:
        found = socket.getaddrinfo(port.address or None, port.number, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
        where = found[0][4]
        ours = [sock for name, sock in taken.items() if name.partition(".")[0] == port.name]
        if ours:
            where = ours[0].getsockname()
        elif port.number:
            _refuse_if_taken(family, where)
        for number, pair in enumerate(queues, 1):
            found_one = taken.get(f"{port.name}.{number}")
            sock = _bound(family, where) if found_one is None else found_one.dup()
            where = sock.getsockname()
            pair.append(Queue(port.name, sock, port.backlog))
    except OSError as error:
        raise ConfigError(
            file, port.key, f"cannot listen on {port.address or 'any address'}:{port.number}: {error.strerror}"
        ) from error


def _refuse_if_taken(family: socket.AddressFamily, where: object) -> None:
    """Raises OSError if anybody listens there: with SO_REUSEPORT a second server of the same user would share its connections."""
    with _socket(family) as sock:
        sock.bind(where)  # type: ignore[arg-type]  # as getaddrinfo gave it


def _steer(file: str, queues: list[list[Queue]]) -> None:
    if not steer_by_address(queues[0][0].socket, len(queues)):
        raise ConfigError(file, "listen.steering", f"{BY_ADDRESS!r} needs Linux, whose kernel lets a program pick the worker")


def _bound(family: socket.AddressFamily | int, where: object) -> socket.socket:
    sock = _socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)  # type: ignore[arg-type]  # as getaddrinfo gave it
    except OSError:
        sock.close()
        raise
    return sock


def _socket(family: socket.AddressFamily | int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock
