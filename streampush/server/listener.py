"""The listening socket: accepts, asks admission, and only then makes the first TLS object.

Refused sockets are closed with a reset at once, so that the client notices at once, and counted. Nothing is queued here; what
the kernel's backlog holds is all that waits.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Final, Protocol

from OpenSSL import SSL
from twisted.internet import defer
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.config import ListenConfig
from streampush.server.admission import Admission
from streampush.server.contexts import TlsContexts
from streampush.server.flusher import WriteFlusher
from streampush.server.introductions import Introductions
from streampush.server.refusals import RefusalMetrics, Refusals
from streampush.server.sockets import close, open_listening
from streampush.server.stream import Address, Descriptors, StreamProtocol
from streampush.server.transport import TlsTransport

MAX_ACCEPTS: Final = 64
"""Connections accepted in one turn; in a storm the connections that are open have their turn in between."""

REST: Final = 1.0
"""Seconds without accepting when the process or the kernel is out of descriptors or memory and nothing else helps."""

NO_DESCRIPTORS: Final = "file_descriptors"
"""The reason of a refusal that is not admission's: the process has no file descriptor left."""

_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_OUT_OF_MEMORY: Final = (errno.ENOBUFS, errno.ENOMEM)

_log: Final = Logger()


class Reactor(Descriptors, Protocol):
    """What a listening port needs of Twisted's reactor: IReactorFDSet and IReactorTime."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> IDelayedCall: ...

    def seconds(self) -> float: ...


@implementer(IListeningPort, IReadDescriptor)
class StreamPort:
    """Listens where `config` says, IPv4 or IPv6, or on `inherited`; every admitted connection gets a protocol and a TlsTransport.

    With `config.proxy_protocol` a connection's peer is the client that the proxy names. `protocol_factory` gets the peer's address.
    Its protocol owes `admission` one `handshake_done` (when the handshake succeeded or failed) and one `released` (when the
    connection is lost), with the address's `host`; if it raises instead, the port settles that itself. `telling_factory` makes,
    with the reason too, the protocol of one that is refused and let in to be told so; it owes the same. Connections get the context
    that is current when they are accepted, and are watched by `sockets`. `high_water` in bytes, see TlsTransport.
    `inherited`: a socket that listens already, which becomes the port's own.
    """

    def __init__(
        self,
        reactor: Reactor,
        config: ListenConfig,
        *,
        sockets: Descriptors,
        admission: Admission,
        contexts: TlsContexts,
        protocol_factory: Callable[[Address], StreamProtocol],
        telling_factory: Callable[[Address, str], StreamProtocol],
        flusher: WriteFlusher,
        metrics: RefusalMetrics,
        high_water: int,
        inherited: socket.socket | None = None,
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._config = config
        self._admission = admission
        self._contexts = contexts
        self._protocol_factory = protocol_factory
        self._telling_factory = telling_factory
        self._flusher = flusher
        self._refusals = Refusals(metrics)
        self._introductions = self._make_introductions(metrics)
        self._high_water = high_water
        self._inherited = inherited
        self._sock: socket.socket | None = None
        self._reserve: int | None = None
        self._resting: IDelayedCall | None = None

    # ------------------------------------------------------------------------------------------------------------ for the owner

    def startListening(self) -> None:
        """Binds and listens, unless a socket was inherited. Raises CannotListenError if the address is taken or not ours."""
        self._sock = self._inherited or open_listening(self._config.address, self._config.port, self._config.backlog)
        self._inherited = None
        self._reserve = _reserve_descriptor()
        self._reactor.addReader(self)

    def stopListening(self) -> defer.Deferred[None]:
        """Closes the listening socket; connections that are open do not notice. Fires when the port is free.

        Who was accepted and waits for a proxy's header is heard for as long as he would have been: a process that hands its sockets
        over refuses nobody.
        """
        self._close()
        return defer.succeed(None)

    def getHost(self) -> Address:
        """The address and port that are listened on. Raises OSError when they are not."""
        if self._sock is None:
            raise OSError(errno.EBADF, "not listening")
        return _address(self._sock.getsockname())

    # ---------------------------------------------------------------------------------------------------------- for the reactor

    def fileno(self) -> int:
        return -1 if self._sock is None else self._sock.fileno()

    def logPrefix(self) -> str:
        return "StreamPort"

    def doRead(self) -> None:
        """Accepts what waits, at most MAX_ACCEPTS."""
        for _ in range(MAX_ACCEPTS):
            if self._sock is None:
                return
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._survive(error):
                    return
            else:
                self._take(sock, _address(address))

    def connectionLost(self, reason: Failure | None) -> None:
        """Releases everything; called by a reactor that shuts down."""
        if self._introductions is not None:
            self._introductions.stop()
        self._close()

    # ------------------------------------------------------------------------------------------------------------------- inside

    def _close(self) -> None:
        if self._sock is None:
            return
        self._reactor.removeReader(self)
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._sock.close()
        self._sock = None
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _make_introductions(self, metrics: RefusalMetrics) -> Introductions | None:
        if self._config.proxy_protocol == "off":
            return None
        return Introductions(
            self._reactor,
            self._sockets,
            self._config,
            introduced=self._admit,
            refuse=self._refuse,
            checked=metrics.proxy_check,
        )

    def _take(self, sock: socket.socket, peer: Address) -> None:
        if self._introductions is None:
            self._admit(sock, peer)
        else:
            self._introductions.begin(sock, peer)

    def _admit(self, sock: socket.socket, peer: Address) -> None:
        now = self._reactor.seconds()
        refusal = self._admission.admit(peer.host, now)
        if refusal is not None and not self._admission.admit_to_tell(refusal, peer.host, now):
            self._refuse(sock, refusal, peer)
            return
        try:
            protocol = self._protocol_factory(peer) if refusal is None else self._telling_factory(peer, refusal)
            transport = TlsTransport(
                sock,
                self._contexts.current,
                protocol,
                peer,
                self._flusher,
                self._sockets,
                high_water=self._high_water,
            )
        except (OSError, SSL.Error):  # the peer is gone already; or no memory
            self._give_back(sock, peer, told=refusal is not None)
            return
        except Exception:  # noqa: BLE001 - a fault in one connection's making must not end the listening; it is logged
            _log.failure("A protocol could not be made")
            self._give_back(sock, peer, told=refusal is not None)
            return
        try:
            transport.start()
        except Exception:  # noqa: BLE001 - as above; from here on the protocol is told of the loss, and settles with admission
            _log.failure("A connection could not be started")
            transport.abort()

    def _give_back(self, sock: socket.socket, peer: Address, *, told: bool) -> None:
        self._admission.handshake_done(peer.host)
        self._admission.released(peer.host, told=told)
        close(sock, reset=True)

    def _refuse(self, sock: socket.socket, reason: str, peer: Address, detail: str = "") -> None:
        close(sock, reset=True)
        self._refusals.refused(reason, peer.host, self._reactor.seconds(), detail)

    def _survive(self, error: OSError) -> bool:
        """Whether it makes sense to accept on. The errors of accept(2) that mean the listening socket is broken are raised."""
        if error.errno in (errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR):
            return True  # that one connection is gone (or a packet filter took it)
        if error.errno in _OUT_OF_DESCRIPTORS and self._sock is not None and self._reserve is not None:
            return self._refuse_with_reserve(self._sock)
        if error.errno in _OUT_OF_DESCRIPTORS or error.errno in _OUT_OF_MEMORY:
            self._rest()
            return False
        raise error

    def _refuse_with_reserve(self, listening: socket.socket) -> bool:
        """Frees the descriptor that is kept for this, to tell the client; else it would wait, and the reactor would spin."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        try:
            sock, address = listening.accept()
        except OSError:
            accepted = False
        else:
            accepted = True
            self._refuse(sock, NO_DESCRIPTORS, _address(address))
        self._reserve = _reserve_descriptor()
        if self._reserve is None:
            self._rest()
            return False
        return accepted

    def _rest(self) -> None:
        if self._resting is None:
            _log.warn("No file descriptor or memory for another connection, accepting rests for {rest} s", rest=REST)
            self._reactor.removeReader(self)
            self._resting = self._reactor.callLater(REST, self._resume)

    def _resume(self) -> None:
        self._resting = None
        if self._reserve is None:
            self._reserve = _reserve_descriptor()
        self._reactor.addReader(self)


def _address(address: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    if len(address) == 2:
        return IPv4Address("TCP", *address)
    return IPv6Address("TCP", *address)


def _reserve_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
