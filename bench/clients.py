"""Cheap load clients: non-blocking TLS sockets on one epoll, frames looked at by their first byte.

They are cheap so that one core of them keeps up with one core of server: a delivery's checksum and payload are verified once a
connection and phase, the rest is counted. What a phase expects must arrive exactly, or it fails.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from enum import Enum, auto
from itertools import islice
from pathlib import Path
from struct import Struct

from bench.credentials import Credentials, device_name
from bench.dialects import LoadError, Meaning, dialect_of
from streampush.protocol.framing import FrameDecoder

STALL_SECONDS = 30.0
READ_SIZE = 65536

READ_INTERVAL = 0.001
"""Seconds between two looks at the sockets. Real clients are on other machines; a client here that waits in epoll_wait would be
woken by the server's write, and the kernel charges that to the server: 10 to 30 us each on a virtual machine, more than the
delivery itself, and only when the client happens to be the faster one."""

_read_u32 = Struct(">I").unpack_from
READ = select.EPOLLIN
READ_WRITE = select.EPOLLIN | select.EPOLLOUT


def client_context(certificate: Path) -> ssl.SSLContext:
    """For clients with this certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the server's cost is measured, not ours
    context.load_cert_chain(certificate)
    return context


class Phase(Enum):
    """How far a client is."""

    HANDSHAKE = auto()
    GREETING = auto()
    SUBSCRIBING = auto()
    READY = auto()
    CLOSING = auto()


class Peer:
    """One client connection."""

    __slots__ = ("deliveries", "fd", "index", "name", "pending", "phase", "rest", "sock", "unacknowledged", "verified")

    def __init__(self, sock: ssl.SSLSocket, name: str, index: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.name = name
        self.index = index
        self.phase = Phase.HANDSHAKE
        self.pending = b""
        self.rest = b""
        self.deliveries = 0
        self.unacknowledged = 0
        self.verified = False


class Clients:
    """Devices and a publisher of one server. `connect`, `publish...` and so on return when they are done.

    Raises LoadError when the server refuses, closes, is of no use for half a minute or sends more than was asked for.
    """

    def __init__(self, address: tuple[str, int], subject: str, credentials: Credentials) -> None:
        self._address = address
        self._dialect = dialect_of(subject)
        self._credentials = credentials
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._publisher: Peer | None = None
        self._contexts: dict[Path, ssl.SSLContext] = {}
        self._sessions: dict[int, ssl.SSLSession] = {}
        self._ack_every = 0
        self._subscribe = False
        self._greet = True
        self._once = False
        self._expected = b""
        self._ready = 0
        self._closed = 0
        self._resumed = 0
        self._deliveries = 0
        self._replies = 0
        self._pings = 0
        self._progress = (0, 0, 0, 0)
        self._stalls_at = 0.0

    # ------------------------------------------------------------------------------------------------------------- commands

    def connect(self, first: int, count: int, *, subscribe: bool, parallel: int = 32) -> int:
        """Connects devices and waits until each is greeted (and subscribed); gives how many are connected."""
        self._subscribe, self._greet, self._once = subscribe, True, False
        goal = self._ready + count
        self._open(range(first, first + count), parallel, lambda: self._ready - goal + count)
        self._run_until(lambda: self._ready >= goal)
        return self._ready

    def connect_publisher(self) -> None:
        self._subscribe, self._greet, self._once = False, True, False
        goal = self._ready + 1
        self._publisher = self._start(self._credentials.publisher, "publisher", -1, None)
        self._run_until(lambda: self._ready >= goal)
        self._ready -= 1  # devices only are counted

    def broadcast(self, messages: int, burst: int, ack_every: int, payload: bytes) -> int:
        """Publishes to all, `burst` messages at once and the next burst when all have arrived everywhere; gives deliveries."""
        devices = [peer for peer in self._peers.values() if peer is not self._publisher]
        self._begin(ack_every, payload)
        for begun in range(0, messages, burst):
            size = min(burst, messages - begun)
            self._publish(b"".join(self._dialect.broadcast(payload) for _ in range(size)))
            self._wait((begun + size) * len(devices), begun + size)
        if any(peer.deliveries != messages for peer in devices):
            raise LoadError("a device got too few or too many messages")
        return self._deliveries

    def unicast(self, messages: int, window: int, ack_every: int, payload: bytes) -> int:
        """Publishes to one device after the other, `window` publishes under way; gives deliveries."""
        names = [peer.name for peer in self._peers.values() if peer is not self._publisher]
        frames = (self._dialect.unicast(names[at % len(names)], payload) for at in range(messages))
        self._begin(ack_every, payload)
        sent = 0
        while sent < messages:
            batch = list(islice(frames, window - (sent - min(self._replies, self._deliveries))))
            sent += len(batch)
            self._publish(b"".join(batch))
            goal = sent - window + 1 if sent < messages else messages
            self._wait(goal, goal)
        if self._deliveries != messages:
            raise LoadError(f"{self._deliveries} deliveries of {messages} messages")
        return self._deliveries

    def publish_to_nobody(self, messages: int, window: int, payload: bytes) -> int:
        """Publishes where nobody listens: what publishing alone costs; gives replies."""
        self._begin(0, payload)
        sent = 0
        while sent < messages:
            size = min(window - (sent - self._replies), messages - sent)
            self._publish(b"".join(self._dialect.to_nobody(payload) for _ in range(size)))
            sent += size
            self._wait(0, sent - window + 1 if sent < messages else messages)
        return self._replies

    def handshakes(self, first: int, count: int, *, greet: bool, resume: bool, parallel: int = 8) -> int:
        """Connects and closes one device after the other; gives how many resumed a TLS session. `resume` needs an earlier call
        with `greet`, which keeps the sessions."""
        self._subscribe, self._greet, self._once = False, greet, True
        self._closed = self._resumed = 0
        self._open(range(first, first + count), parallel, lambda: self._closed, resume=resume)
        self._run_until(lambda: self._closed >= count)
        return self._resumed

    def idle(self, seconds: float) -> int:
        """Answers heartbeats for so long; gives how many."""
        began = time.monotonic()
        before = self._pings
        while (left := seconds - (time.monotonic() - began)) > 0:
            self._poll(min(left, 1.0))
        return self._pings - before

    def disconnect(self) -> None:
        """Closes everything at once."""
        for peer in list(self._peers.values()):
            self._forget(peer)
        self._publisher = None
        self._ready = 0

    # ---------------------------------------------------------------------------------------------------------- connections

    def _begin(self, ack_every: int, payload: bytes) -> None:
        self._ack_every, self._expected = ack_every, payload
        self._deliveries = self._replies = 0
        for peer in self._peers.values():
            peer.deliveries = 0
            peer.verified = False

    def _open(self, indices: range, parallel: int, done: Callable[[], int], *, resume: bool = False) -> None:
        """Begins connections, so many of them at a time."""
        for begun, index in enumerate(indices):
            while begun - done() >= parallel:
                self._poll_or_fail()
            session = self._sessions[index] if resume else None
            self._start(self._credentials.device(index), device_name(index), index, session)

    def _context(self, certificate: Path) -> ssl.SSLContext:
        context = self._contexts.get(certificate)
        if context is None:
            context = self._contexts[certificate] = client_context(certificate)
        return context

    def _start(self, certificate: Path, name: str, index: int, session: ssl.SSLSession | None) -> Peer:
        return self._secure(self._socket(index), certificate, name, index, session)

    def _secure(self, raw: socket.socket, certificate: Path, name: str, index: int, session: ssl.SSLSession | None) -> Peer:
        """TLS on a socket that is connected."""
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setblocking(False)
        sock = self._context(certificate).wrap_socket(raw, do_handshake_on_connect=False, session=session)
        peer = Peer(sock, name, index)
        self._peers[peer.fd] = peer
        self._epoll.register(peer.fd, READ)
        self._handshake(peer)
        return peer

    def _socket(self, index: int) -> socket.socket:
        return socket.create_connection(self._address, STALL_SECONDS)

    def _handshake(self, peer: Peer) -> None:
        try:
            peer.sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._resumed += bool(peer.sock.session_reused)
        if self._greet:
            peer.phase = Phase.GREETING
            self._send(peer, self._dialect.greeting(peer.name))
        else:
            self._close(peer)

    def _close(self, peer: Peer) -> None:
        """Says goodbye and waits for the server's: closing with unread bytes would reset the connection under its feet."""
        peer.phase = Phase.CLOSING
        try:
            peer.sock.unwrap()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            if error.reason != "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                raise
            return
        self._ended(peer)

    def _ended(self, peer: Peer) -> None:
        if peer.phase is not Phase.CLOSING:
            raise LoadError(f"the server closed {peer.name} in phase {peer.phase.name}")
        self._closed += 1
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        del self._peers[peer.fd]
        self._epoll.unregister(peer.fd)
        peer.sock.close()

    # ------------------------------------------------------------------------------------------------------------- bytes

    def _run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._poll_or_fail()
        self._stalls_at = 0.0

    def _wait(self, deliveries: int, replies: int) -> None:
        """Until so many have come since the phase began."""
        self._run_until(lambda: self._deliveries >= deliveries and self._replies >= replies)

    def _poll_or_fail(self) -> None:
        """Looks at the sockets now and then instead of waiting for them: see READ_INTERVAL."""
        time.sleep(READ_INTERVAL)
        progress = (self._deliveries, self._replies, self._ready, self._closed)
        now = time.monotonic()
        if progress != self._progress or not self._stalls_at:
            self._progress, self._stalls_at = progress, now + STALL_SECONDS
        elif now > self._stalls_at:
            raise LoadError(f"nothing came for {STALL_SECONDS:g} s; deliveries, replies, ready, closed: {progress}")
        self._poll(0)

    def _poll(self, timeout: float) -> int:
        ready = self._epoll.poll(timeout)
        for fd, events in ready:
            peer = self._peers.get(fd)
            if peer is None:
                continue
            if events & select.EPOLLOUT:
                self._send(peer, b"")
            if events & ~select.EPOLLOUT:
                self._readable(peer)
        return len(ready)

    def _publish(self, data: bytes) -> None:
        if self._publisher is None:
            raise LoadError("no publisher is connected")
        self._send(self._publisher, data)

    def _send(self, peer: Peer, data: bytes) -> None:
        had = peer.pending
        data = had + data if had else data
        try:
            while data:
                data = data[peer.sock.send(data) :]
        except ssl.SSLWantWriteError:
            pass
        peer.pending = data
        if bool(data) != bool(had):
            self._epoll.modify(peer.fd, READ_WRITE if data else READ)

    def _readable(self, peer: Peer) -> None:
        if peer.phase is Phase.HANDSHAKE:
            self._handshake(peer)
            return
        try:
            data = peer.sock.recv(READ_SIZE)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:  # its goodbye, behind ours
            data = b""
        if not data:
            self._ended(peer)
            return
        if peer.phase is not Phase.CLOSING:
            self._frames(peer, peer.rest + data if peer.rest else data)

    def _frames(self, peer: Peer, data: bytes) -> None:
        """Walks over whole frames; keeps what is left."""
        dialect, ack_every, size = self._dialect, self._ack_every, len(data)
        delivery, trailer = dialect.delivery, dialect.trailer
        acknowledgements: list[bytes] = []
        at = deliveries = 0
        while size - at > 4:
            end = at + 4 + _read_u32(data, at)[0] + trailer
            if end > size:
                break
            if data[at + 4] == delivery:
                deliveries += 1
                peer.unacknowledged += 1
                if not peer.verified:
                    self._verify(peer, data[at:end])
                if peer.unacknowledged >= ack_every > 0:
                    peer.unacknowledged = 0
                    acknowledgements.append(dialect.acknowledgement(data[at + 4 : end - trailer]))
            else:
                self._other(peer, data[at + 4 : end - trailer])
                if peer.phase is Phase.CLOSING:
                    return
            at = end
        peer.rest = data[at:]
        peer.deliveries += deliveries
        self._deliveries += deliveries
        if acknowledgements:
            self._send(peer, b"".join(acknowledgements))

    def _verify(self, peer: Peer, frame: bytes) -> None:
        """Looks at one delivery of a phase in full."""
        payload = frame[4:]
        if self._dialect.trailer:
            (decoded,) = FrameDecoder().feed(frame)
            if not isinstance(decoded, bytes):
                raise LoadError(f"{peer.name} got a damaged frame: {decoded.detail}")
            payload = decoded
        if self._dialect.payload(payload) != self._expected:
            raise LoadError(f"{peer.name} got another payload than was published")
        peer.verified = True

    def _other(self, peer: Peer, frame: bytes) -> None:
        meaning, answer = self._dialect.meaning(frame)
        if answer:
            self._send(peer, answer)
        if meaning is Meaning.REPLIED:
            self._replies += 1
        elif meaning is Meaning.PINGED:
            self._pings += 1
        elif meaning is Meaning.GREETED:
            self._greeted(peer)
        elif meaning is Meaning.SUBSCRIBED and peer.phase is Phase.SUBSCRIBING:
            self._become_ready(peer)

    def _greeted(self, peer: Peer) -> None:
        subscription = self._dialect.subscription() if self._subscribe else b""
        if subscription:
            peer.phase = Phase.SUBSCRIBING
            self._send(peer, subscription)
        else:
            self._become_ready(peer)

    def _become_ready(self, peer: Peer) -> None:
        peer.phase = Phase.READY
        self._ready += 1
        if self._once:
            session = peer.sock.session
            if session is not None and session.has_ticket:
                self._sessions[peer.index] = session
            self._ready -= 1
            self._close(peer)
