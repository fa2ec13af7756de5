"""One accepted socket under TLS, driven by OpenSSL directly on the file descriptor.

Theory of operation. Twisted's TLS goes through memory BIOs, a timer and two epoll changes per write. Here `write` only notes the
bytes; once per turn of the reactor the `WriteFlusher` has every transport that was written to call SSL_write, which encrypts and
sends at once. Only when the kernel's buffer is full does the transport ask the reactor for writability, and what the kernel did
not take waits here, counted in `buffered`.

No callback of the protocol is ever made from within a call of the protocol's: `write`, `lose_connection` and `abort` return
first. `connectionLost` comes exactly once, and after it nothing of the connection is left in the reactor or the flusher.

States (`stream.NEXT` says what may follow what):

HANDSHAKING   OpenSSL negotiates; writes are kept until it is done
OPEN          bytes go both ways
CLOSING       `lose_connection` was called; what is buffered goes out, what comes in is thrown away
LINGERING     our last byte (close_notify, or the alert of a failed handshake) and FIN are out; what comes in is thrown away
              until the peer's FIN, because a close with unread bytes makes a reset, and that can eat our last words at the peer
ABORTED       `abort` was called; the connection ends with this turn
LOST          all is released

The peer's silence ends none of these states: every deadline is the owner's, who calls `abort`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from time import thread_time
from typing import Final

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer, IReadWriteDescriptor, ITransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from streampush.server.flusher import WriteFlusher
from streampush.server.handshake import HandshakeResult, classify, was_resumed
from streampush.server.send_buffer import SendBuffer
from streampush.server.sockets import close, tune
from streampush.server.stream import NEXT, Address, Descriptors, State, StreamProtocol

__all__ = ["HandshakeResult", "State", "StreamProtocol", "TlsTransport", "WriteFlusher"]

_HANDSHAKING, _OPEN, _CLOSING = State.HANDSHAKING, State.OPEN, State.CLOSING
_LINGERING, _ABORTED, _LOST = State.LINGERING, State.ABORTED, State.LOST

READ_BYTES: Final = 16384
"""TLS's largest record. SSL_read returns at most one record, so after a read nothing decrypted is left inside OpenSSL, and the
reactor's view of the socket is the whole truth. One record is read in a turn, for fairness among connections."""

LINGER_BYTES: Final = 1024 * 1024
"""Thrown away behind our last word; a peer that sends more is cut."""


@implementer(IReadWriteDescriptor, ITransport, IPushProducer)
class TlsTransport:
    """A server's end of a TLS connection.

    `sock` is connected and becomes the transport's; `high_water` in bytes is where `has_room` begins to say no. Nothing happens
    before `start`. Not thread-safe: everything belongs to the reactor's thread.
    """

    __slots__ = (
        "__weakref__",
        "_blocked",
        "_buffer",
        "_discarded",
        "_flusher",
        "_high_water",
        "_paused",
        "_peer",
        "_protocol",
        "_reactor",
        "_read_waits",
        "_result",
        "_sock",
        "_starved",
        "_state",
        "_tls",
        "_writing",
        "bytes_read",
        "bytes_written",
        "handshake_cpu",
    )

    def __init__(
        self,
        sock: socket.socket,
        context: SSL.Context,
        protocol: StreamProtocol,
        peer_address: Address,
        flusher: WriteFlusher,
        reactor: Descriptors,
        *,
        high_water: int,
    ) -> None:
        """Raises OSError if the socket is dead already, SSL.Error if there is no memory; the socket is then still the caller's."""
        tune(sock)
        self._tls: SSL.Connection | None = SSL.Connection(context, sock)
        self._tls.set_accept_state()
        self._sock = sock
        self._protocol: StreamProtocol | None = protocol
        self._peer = peer_address
        self._flusher = flusher
        self._reactor = reactor
        self._high_water = high_water
        self._state = _HANDSHAKING
        self._buffer = SendBuffer()
        self._writing = False  # the reactor tells us about writability
        self._paused = False
        self._starved = False  # has_room said no
        self._blocked = False  # OpenSSL cannot write now: the flusher need not try
        self._read_waits = False  # OpenSSL has to write before it can read on (an answer to a key update)
        self._discarded = 0
        self._result = ""  # of a handshake that `abort` ended
        self.bytes_read = 0
        self.bytes_written = 0
        self.handshake_cpu = 0.0

    def start(self) -> None:
        """Tells the protocol and begins the handshake. Called once, by the owner of the listening socket."""
        if self._protocol is not None:
            self._protocol.makeConnection(self)
        if self._state is _HANDSHAKING:
            self._reactor.addReader(self)

    # ------------------------------------------------------------------------------------------------ for the protocol: writing

    def write(self, data: bytes) -> None:
        """Sends `data` with the end of this turn, together with what else was written; never blocks.

        `data` is kept, not copied: the same object may be written to thousands of transports. Before the handshake is done it
        waits; once the connection is closing it is dropped. The owner watches `buffered`: there is no limit in here.
        """
        if not data or (self._state is not _OPEN and self._state is not _HANDSHAKING):
            return
        # while the kernel's buffer is full, the reactor tells when to go on
        if self._buffer.put(data) and not self._blocked:
            self._flusher.add(self)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """ITransport's way of several writes."""
        for item in data:
            self.write(item)

    @property
    def buffered(self) -> int:
        """Bytes that `write` took and OpenSSL and the kernel did not take yet."""
        return self._buffer.size

    def has_room(self) -> bool:
        """Whether less than the high-water mark is buffered. After False, `roomAgain` is called once there is room."""
        if self._buffer.size < self._high_water:
            return True
        self._starved = True
        return False

    # ------------------------------------------------------------------------------------------------ for the protocol: closing

    def lose_connection(self) -> None:
        """Sends what is buffered, then TLS's close_notify and FIN, and ends when the peer has closed too. What the peer sends
        meanwhile is thrown away.

        A peer that does neither read nor close keeps the connection in this state: the owner calls `abort` when his patience
        ends. Before the handshake is done there is nobody to say goodbye to, and this is `abort`.
        """
        if self._state is _HANDSHAKING:
            self.abort()
        elif self._state is _OPEN:
            self._enter(_CLOSING)
            self._reactor.addReader(self)
            if not self._blocked:
                self._flusher.add(self)

    def abort(self, result: str = HandshakeResult.ABORTED) -> None:
        """Ends the connection with this turn: what is buffered is dropped, the peer gets a reset.

        If the handshake was under way, `result` is what `handshakeFailed` is told (for a deadline: HandshakeResult.TIMEOUT).
        """
        if self._state is _LOST or self._state is _ABORTED:
            return
        if self._state is _HANDSHAKING:
            self._result = result
        self._enter(_ABORTED)
        self._reactor.removeReader(self)
        self._stop_writing()
        self._buffer.clear()
        self._flusher.add(self)

    loseConnection = lose_connection

    def abortConnection(self) -> None:
        """ITCPTransport's name for `abort`."""
        self.abort()

    # ------------------------------------------------------------------------------------------------ for the protocol: reading

    def pause_reading(self) -> None:
        """No `dataReceived` until `resume_reading`: the kernel's buffer fills and TCP holds the peer back.

        A connection that neither reads nor writes does not notice that the peer is gone.
        """
        self._paused = True
        if self._state is _OPEN:
            self._reactor.removeReader(self)

    def resume_reading(self) -> None:
        """Ends `pause_reading`; data comes with a later turn."""
        self._paused = False
        if self._state is _OPEN:
            self._reactor.addReader(self)

    pauseProducing = pause_reading
    resumeProducing = resume_reading
    stopProducing = lose_connection

    # ------------------------------------------------------------------------------------------------- for the protocol: asking

    @property
    def state(self) -> State:
        """For tests, logs and metrics."""
        return self._state

    def getPeer(self) -> Address:
        """The peer's address as it was accepted."""
        return self._peer

    def getHost(self) -> Address:
        """Our address. Raises OSError when the connection is lost."""
        host, port = self._sock.getsockname()[:2]
        return type(self._peer)("TCP", host, port)

    def peer_certificate(self) -> x509.Certificate | None:
        """The client's certificate, parsed anew at each call; None before the handshake and after the end.

        In a resumed session it is the one of the first handshake, and nobody has verified it again.
        """
        return None if self._tls is None else self._tls.get_peer_certificate(as_cryptography=True)

    @property
    def session_reused(self) -> bool:
        """Whether the handshake resumed an earlier session, so that the chain of the certificate was not verified."""
        return self._tls is not None and was_resumed(self._tls)

    @property
    def tls_version(self) -> str:
        """As OpenSSL names it, `TLSv1.3`; empty after the end."""
        return "" if self._tls is None else self._tls.get_protocol_version_name()

    # --------------------------------------------------------------------------------------------------------- for the reactor

    def fileno(self) -> int:
        """-1 when the connection is lost."""
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "TlsTransport"

    def doRead(self) -> Exception | None:  # type: ignore[override]  # the interface says Failure, reactors want exceptions
        """What the reactor calls when there is something to read; an exception returned ends the connection."""
        if self._state is _OPEN:
            return self._read()
        if self._state is _HANDSHAKING:
            return self._handshake()
        if self._state is _CLOSING or self._state is _LINGERING:
            return self._discard()
        return None

    def doWrite(self) -> Exception | None:  # type: ignore[override]  # as doRead
        """What the reactor calls when the kernel has room; an exception returned ends the connection."""
        if self._state is _HANDSHAKING:
            return self._handshake()
        if self._state is not _OPEN and self._state is not _CLOSING:
            return None
        self._blocked = False
        if self._read_waits and self._state is _OPEN:
            why = self._read()
            if why is not None or self._state is not _OPEN:
                return why
        return self._go_on()

    def flush(self) -> None:
        """Called by the flusher in a turn of its own."""
        if self._state is _ABORTED:
            self.connectionLost(_failure(ConnectionAborted()))
        elif (self._state is _OPEN or self._state is _CLOSING) and not self._blocked:
            why = self._go_on()
            if why is not None:
                self.connectionLost(_failure(why))

    def connectionLost(self, reason: Failure) -> None:
        """Releases everything and tells the protocol. Only the first call does."""
        if self._state is _LOST:
            return
        unfinished = self._state is _HANDSHAKING or bool(self._result)
        self._enter(_LOST)
        self._reactor.removeReader(self)
        self._stop_writing()
        self._buffer.clear()
        self._tls = None
        close(self._sock, reset=isinstance(reason.value, ConnectionAborted))
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        try:
            if unfinished:
                protocol.handshakeFailed(self._result or HandshakeResult.ABORTED, "")
        finally:
            protocol.connectionLost(reason)

    # ------------------------------------------------------------------------------------------------------------------ inside

    def _enter(self, state: State) -> None:
        if state not in NEXT[self._state]:
            raise RuntimeError(f"{state.name} does not follow {self._state.name}")
        self._state = state

    def _handshake(self) -> Exception | None:
        tls, protocol = self._tls, self._protocol
        if tls is None or protocol is None:
            return None
        began = thread_time()
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            self.handshake_cpu += thread_time() - began
            self._stop_writing()
            return None
        except SSL.WantWriteError:
            self._start_writing()
            return None
        except SSL.Error as failure:
            return self._handshake_failed(protocol, *classify(failure, tls))
        self.handshake_cpu += thread_time() - began
        self._stop_writing()
        self._enter(_OPEN)
        if self._paused:
            self._reactor.removeReader(self)
        if self._buffer.size:
            self._flusher.add(self)
        protocol.handshakeCompleted()
        return None

    def _handshake_failed(self, protocol: StreamProtocol, result: HandshakeResult, detail: str) -> Exception | None:
        """OpenSSL has sent its alert; the peer gets the time to read it."""
        self._stop_writing()
        self._buffer.clear()
        self._tls = None
        self._enter(_LINGERING)
        protocol.handshakeFailed(result, detail)
        if result is HandshakeResult.ABORTED:
            return CONNECTION_LOST
        return self._end_of_output()

    def _read(self) -> Exception | None:
        tls, protocol = self._tls, self._protocol
        if tls is None or protocol is None:
            return None
        self._read_waits = False
        try:
            data = tls.recv(READ_BYTES)
        except SSL.WantReadError:
            pass
        except SSL.WantWriteError:
            self._read_waits = True
            self._start_writing()
            return None
        except SSL.ZeroReturnError:
            return self._peer_closed(tls)
        except SSL.Error:
            return CONNECTION_LOST
        else:
            self.bytes_read += len(data)
            protocol.dataReceived(data)
        if self._blocked and not self._writing:  # a write had to wait for this read
            self._blocked = False
            self._flusher.add(self)
        return None

    def _peer_closed(self, tls: SSL.Connection) -> Exception:
        """After its close_notify the peer may read on; it gets what is due as far as the kernel takes it at once."""
        why = None if self._blocked else self._send(tls)
        if why is None and not self._blocked:
            _say_goodbye(tls)
        return why or CONNECTION_DONE

    def _go_on(self) -> Exception | None:
        """Writes what is due, and does what had to wait for it."""
        tls, protocol = self._tls, self._protocol
        if tls is None or protocol is None:
            return None
        why = self._send(tls)
        if why is not None:
            return why
        if self._state is _CLOSING:
            if self._blocked or not _say_goodbye(tls):
                self._start_writing()
                return None
            self._stop_writing()
            self._enter(_LINGERING)
            return self._end_of_output()
        if self._starved and self._buffer.size < self._high_water:
            self._starved = False
            protocol.roomAgain()
        return None

    def _send(self, tls: SSL.Connection) -> Exception | None:
        buffer = self._buffer
        try:
            while buffer.size:
                data = buffer.head()
                sent = tls.send(data)
                self.bytes_written += sent
                buffer.sent(data, sent)
        except SSL.WantWriteError:
            self._start_writing()
            self._blocked = True
        except SSL.WantReadError:
            self._stop_writing()
            self._blocked = True
        except SSL.Error:
            return CONNECTION_LOST
        else:
            self._stop_writing()
        return None

    def _discard(self) -> Exception | None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_DONE if self._state is _LINGERING else CONNECTION_LOST
        if self._state is _LINGERING:
            self._discarded += len(data)
        return None if data and self._discarded <= LINGER_BYTES else CONNECTION_DONE

    def _end_of_output(self) -> Exception | None:
        """Our FIN. The reactor goes on telling us what comes in."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return CONNECTION_DONE  # the peer is gone
        return None

    def _start_writing(self) -> None:
        if not self._writing:
            self._writing = True
            self._reactor.addWriter(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)


def _failure(why: Exception) -> Failure:
    return Failure(why)  # type: ignore[no-untyped-call]  # Twisted has not annotated it


def _say_goodbye(tls: SSL.Connection) -> bool:
    """Sends close_notify; False if the kernel has no room for it now."""
    try:
        tls.shutdown()
    except SSL.WantWriteError:
        return False
    except SSL.Error:
        return True  # nobody there to hear it
    return True
