"""Connections of proxies, until their PROXY header has said who the client is.

Theory of operation. Only addresses of `listen.proxy_from` are listened to: whoever can write a header can be anybody. A proxy sends
the header with, or right behind, the connect, so it is mostly there when the connection is accepted, and is read in the same turn
without a look at the reactor. What is not there yet is waited for, `listen.proxy_timeout` at most and in `listen.proxy_waiting`
sockets at most. Nothing behind the header is read: that is TLS, which OpenSSL takes from the socket itself.

From here a connection goes on to admission, with the client's address; so a proxy itself counts against no limit per address. A
proxy that asks for itself (LOCAL), or connects and says nothing, looks whether we live: it is counted as a check and closed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.config import ListenConfig
from streampush.server.proxy_header import MAX_HEADER, BadProxyHeader, ProxyHeader
from streampush.server.sockets import close
from streampush.server.stream import Address, Descriptors

NOT_A_PROXY: Final = "not_a_proxy"
"""The reason of a refusal: the address is not in `listen.proxy_from`."""

PROXY_HEADER: Final = "proxy_header"
"""The reason of a refusal: no PROXY header, or one that cannot be used."""

PROXY_TIMEOUT: Final = "proxy_timeout"
"""The reason of a refusal: the header was not there in time."""

PROXY_WAITING: Final = "proxy_waiting"
"""The reason of a refusal: too many connections wait for their header."""

_VERSIONS: Final = {"v1": frozenset((1,)), "v2": frozenset((2,)), "any": frozenset((1, 2))}


class Timers(Protocol):
    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> IDelayedCall: ...


class Introductions:
    """The connections whose client is not known yet.

    `introduced(sock, client)` gets each socket whose client is; `refuse(sock, reason, peer, detail)` those that are to be closed
    for a reason; both then own the socket. `checked` is called for each check of a proxy. Raises ValueError if `config` does not
    ask for the PROXY protocol.
    """

    def __init__(
        self,
        timers: Timers,
        sockets: Descriptors,
        config: ListenConfig,
        *,
        introduced: Callable[[socket.socket, Address], None],
        refuse: Callable[[socket.socket, str, Address, str], None],
        checked: Callable[[], None],
    ) -> None:
        if config.proxy_protocol not in _VERSIONS:
            raise ValueError(f"listen.proxy_protocol is {config.proxy_protocol}")
        self.timers = timers
        self.sockets = sockets
        self.timeout = config.proxy_timeout
        self.introduced = introduced
        self.refuse = refuse
        self.checked = checked
        self._proxies = Proxies(config.proxy_from)
        self._versions = _VERSIONS[config.proxy_protocol]
        self._most = config.proxy_waiting
        self._waiting: set[_Newcomer] = set()

    @property
    def waiting(self) -> int:
        """How many connections wait for their header."""
        return len(self._waiting)

    def begin(self, sock: socket.socket, peer: Address) -> None:
        """An accepted socket, which becomes ours."""
        if peer.host not in self._proxies:
            self.refuse(sock, NOT_A_PROXY, peer, "listen.proxy_from does not name it")
            return
        if len(self._waiting) >= self._most:
            self.refuse(sock, PROXY_WAITING, peer, "listen.proxy_waiting is reached")
            return
        sock.setblocking(False)
        newcomer = _Newcomer(self, sock, peer, ProxyHeader(self._versions))
        if not newcomer.read():
            self._waiting.add(newcomer)
            newcomer.wait()

    def over(self, newcomer: _Newcomer) -> None:
        """It waits no longer."""
        self._waiting.discard(newcomer)

    def stop(self) -> None:
        """Closes what still waits."""
        for newcomer in tuple(self._waiting):
            newcomer.drop()


class Proxies:
    """The addresses and networks of `listen.proxy_from`. Raises ValueError if one is none."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def __contains__(self, host: object) -> bool:
        """`host` as the kernel gives it. An IPv4 address mapped into IPv6 is looked for as IPv4."""
        address = ipaddress.ip_address(str(host))
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)


@implementer(IReadDescriptor)
class _Newcomer:
    """One such connection."""

    __slots__ = ("_deadline", "_header", "_owner", "_peer", "_sock", "_watched")

    def __init__(self, owner: Introductions, sock: socket.socket, peer: Address, header: ProxyHeader) -> None:
        self._owner = owner
        self._sock: socket.socket | None = sock
        self._peer = peer
        self._header = header
        self._deadline: IDelayedCall | None = None
        self._watched = False

    def wait(self) -> None:
        """The header is not there, or not all of it."""
        self._deadline = self._owner.timers.callLater(self._owner.timeout, self._too_late)
        self._owner.sockets.addReader(self)
        self._watched = True

    def read(self) -> bool:
        """Reads what is there; True when this one is over."""
        sock, header = self._sock, self._header
        if sock is None:
            return True
        try:
            while not header.done:
                there = sock.recv(MAX_HEADER, socket.MSG_PEEK)
                if not there:
                    return self._hung_up()
                sock.recv(header.feed(there))
        except BlockingIOError:
            return False
        except BadProxyHeader as error:
            self._owner.refuse(self._leave(sock), PROXY_HEADER, self._peer, str(error))
            return True
        except OSError:
            return self._hung_up()
        sock = self._leave(sock)
        if header.source is None:
            self._owner.checked()
            close(sock, reset=False)
        else:
            self._owner.introduced(sock, header.source)
        return True

    def drop(self) -> None:
        """Closes it without a word."""
        if self._sock is not None:
            close(self._leave(self._sock), reset=True)

    def _hung_up(self) -> bool:
        if self._sock is None:
            return True
        sock = self._leave(self._sock)
        if self._header.begun:
            self._owner.refuse(sock, PROXY_HEADER, self._peer, "it was closed within its PROXY header")
        else:
            self._owner.checked()
            close(sock, reset=False)
        return True

    def _too_late(self) -> None:
        self._deadline = None
        if self._sock is not None:
            self._owner.refuse(self._leave(self._sock), PROXY_TIMEOUT, self._peer, "listen.proxy_timeout is over")

    def _leave(self, sock: socket.socket) -> socket.socket:
        """Ends the waiting; the socket is the caller's."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._watched:
            self._watched = False
            self._owner.sockets.removeReader(self)
        self._sock = None
        self._owner.over(self)
        return sock

    # ------------------------------------------------------------------------------------------------------- for the reactor

    def fileno(self) -> int:
        return -1 if self._sock is None else self._sock.fileno()

    def logPrefix(self) -> str:
        return "PROXY header"

    def doRead(self) -> None:
        """More of the header is there, or the proxy has hung up."""
        self.read()

    def connectionLost(self, reason: Failure) -> None:
        """What watches the sockets has seen an error, or stops."""
        self._hung_up()
