"""Devices that leave when they are told, and come again when they are told: what GoAway says is kept to the millisecond."""

from __future__ import annotations

import select
import socket
import ssl
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from bench.clients import STALL_SECONDS, Clients, Peer, Phase, client_context
from bench.credentials import Credentials, device_name
from streampush.protocol import codec
from streampush.protocol import messages as m

ADDRESSES = 250
"""Of 127.0.1.0/24 that the devices come from."""

QUIET = 3.0
"""Seconds in which nobody leaves, with all back, until it is over."""

RETRY = 1.0
"""Seconds until one that was cut without a word tries again."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Devices that were told to leave, and that were cut without a word; seconds from the first to the latest time that any was
    given, and until all were back; `missing`: those that were not when the patience was over, and then `back` is 0. `cut` has tries
    to come back that were refused without a word, too."""

    told: int
    cut: int
    latest: float
    back: float
    missing: int


class MovingClients(Clients):
    """Beside what Clients can do: `move`. Each device has a TLS context of its own, and an address of 127.0.1.0/24."""

    def __init__(self, address: tuple[str, int], subject: str, credentials: Credentials) -> None:
        super().__init__(address, subject, credentials)
        self._due: list[tuple[float, int]] = []
        self._connecting: dict[int, tuple[socket.socket, int]] = {}
        self._connected = select.epoll()
        self._told = self._cut = 0
        self._latest = self._last = 0.0
        self._moves = False

    def move(self, patience: float) -> Moved:
        """Until all that had to leave are connected again; or until nobody has left or come for so many seconds."""
        goal, began = self._ready, time.monotonic()
        self._moves, self._told, self._cut, self._latest, self._last = True, 0, 0, 0.0, began
        first = back = 0.0
        while True:
            self._poll(0.005)
            now = time.monotonic()
            if self._ready < goal:
                first, back = first or now, 0.0
            elif first:
                back = back or now
            while self._due and self._due[0][0] <= now:
                self._come(heappop(self._due)[1])
            self._go_on()
            if now - self._last > (QUIET if back else patience):
                break
        self._moves = False
        until_back = max(back - first, 0.0) if first else 0.0
        return Moved(self._told, self._cut, max(self._latest - first, 0.0), until_back, goal - self._ready)

    def _come(self, index: int) -> None:
        """Begins to connect, and does not wait for it: the queue of one worker may be full while others have room."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        raw.bind((_source(index), 0))
        raw.connect_ex(self._address)
        self._connecting[raw.fileno()] = raw, index
        self._connected.register(raw, select.EPOLLOUT)

    def _go_on(self) -> None:
        """Those who are connected begin with TLS."""
        for fd, _ in self._connected.poll(0):
            raw, index = self._connecting.pop(fd)
            self._connected.unregister(fd)
            if raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raw.close()
                self._cut += 1
                heappush(self._due, (time.monotonic() + RETRY, index))
            else:
                self._secure(raw, self._credentials.device(index), device_name(index), index, None)

    def _handshake(self, peer: Peer) -> None:
        try:
            super()._handshake(peer)
        except OSError:
            if not self._moves:
                raise
            self._ended(peer)

    def _become_ready(self, peer: Peer) -> None:
        super()._become_ready(peer)
        self._last = time.monotonic()

    def _context(self, certificate: Path) -> ssl.SSLContext:
        return client_context(certificate)

    def _socket(self, index: int) -> socket.socket:
        return socket.create_connection(self._address, STALL_SECONDS, source_address=(_source(index), 0))

    def _other(self, peer: Peer, frame: bytes) -> None:
        if self._moves:
            _, message = codec.decode(frame)
            if isinstance(message, m.GoAway):
                self._told += 1
                self._leave(peer, time.monotonic() + message.retry_after_ms / 1000)
                return
        super()._other(peer, frame)

    def _readable(self, peer: Peer) -> None:
        try:
            super()._readable(peer)
        except OSError:
            if not self._moves:
                raise
            self._ended(peer)

    def _ended(self, peer: Peer) -> None:
        if not self._moves:
            super()._ended(peer)
        elif peer.phase is not Phase.CLOSING:
            self._cut += 1
            self._leave(peer, time.monotonic() + RETRY)

    def _leave(self, peer: Peer, due: float) -> None:
        self._ready -= peer.phase is Phase.READY
        peer.phase = Phase.CLOSING
        self._forget(peer)
        self._last = time.monotonic()
        self._latest = max(self._latest, due)
        heappush(self._due, (due, peer.index))


def _source(index: int) -> str:
    return f"127.0.1.{1 + index % ADDRESSES}"
