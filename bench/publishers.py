"""Publishers in a closed loop: each connection has so many publishes under way, and begins the next when one is acknowledged.

Unlike bench.clients they wait in epoll for the server, so that a latency is of the server and not of a pause between two looks.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from struct import Struct
from typing import Protocol

from bench.clients import READ_SIZE, STALL_SECONDS, client_context
from bench.credentials import Credentials
from bench.dialects import LoadError, Meaning, StreampushDialect
from bench.mosquitto import MOSQUITTO, MqttWire
from bench.report import percentile
from streampush.protocol.framing import TRAILER_SIZE

_read_u32 = Struct(">I").unpack_from


class Wire(Protocol):
    """What a publisher says. Replies are in the order of the publishes of a connection."""

    def greeting(self, number: int) -> bytes:
        """The first bytes of connection `number`."""

    def publish(self, payload: bytes) -> bytes:
        """One message to the topic."""

    def take(self, data: bytes) -> tuple[int, bytes, bytes]:
        """Replies in the data (the answer to the greeting is one), what is left of it, and what to answer. Raises LoadError."""


class StreampushWire:
    """The framed protocol."""

    def __init__(self) -> None:
        self._dialect = StreampushDialect()

    def greeting(self, number: int) -> bytes:
        return self._dialect.greeting("publisher")

    def publish(self, payload: bytes) -> bytes:
        return self._dialect.broadcast(payload)

    def take(self, data: bytes) -> tuple[int, bytes, bytes]:
        replies = at = 0
        answers = b""
        while len(data) - at > 4:
            end = at + 4 + _read_u32(data, at)[0] + TRAILER_SIZE
            if end > len(data):
                break
            meaning, answer = self._dialect.meaning(data[at + 4 : end - TRAILER_SIZE])
            replies += meaning in (Meaning.REPLIED, Meaning.GREETED)
            answers += answer
            at = end
        return replies, data[at:], answers


def wire_of(subject: str) -> Wire:
    return MqttWire() if subject.startswith(MOSQUITTO) else StreampushWire()


@dataclass(frozen=True, slots=True)
class Round:
    """What a round was like: all of it in seconds, and from a publish to its acknowledgement."""

    seconds: float
    p50: float
    p99: float


class _Publisher:
    """One connection, and when each publish that is under way began."""

    __slots__ = ("began", "rest", "sock")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.rest = b""
        self.began: deque[float] = deque()


class Publishers:
    """The connections of one load process. Raises LoadError when the server refuses, closes or says nothing for half a minute."""

    def __init__(self, address: tuple[str, int], subject: str, credentials: Credentials) -> None:
        self._address = address
        self._wire = wire_of(subject)
        self._context = client_context(credentials.publisher)
        self._epoll = select.epoll()
        self._publishers: dict[int, _Publisher] = {}

    def connect(self, count: int) -> int:
        """Connects so many publishers; gives how many there are."""
        for number in range(count):
            raw = socket.create_connection(self._address, STALL_SECONDS)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            publisher = _Publisher(self._context.wrap_socket(raw))
            publisher.sock.sendall(self._wire.greeting(number))
            while not self._replies(publisher):
                pass
            publisher.sock.setblocking(False)
            self._publishers[publisher.sock.fileno()] = publisher
            self._epoll.register(publisher.sock.fileno(), select.EPOLLIN)
        return len(self._publishers)

    def publish(self, messages: int, in_flight: int, payload: bytes) -> Round:
        """Publishes so many messages in all, `in_flight` at once on each connection."""
        latencies: list[float] = []
        left = messages
        began_at = time.perf_counter()
        for publisher in self._publishers.values():
            for _ in range(min(in_flight, left)):
                self._begin(publisher, payload)
                left -= 1
        while len(latencies) < messages:
            ready = self._epoll.poll(STALL_SECONDS)
            if not ready:
                raise LoadError(f"nothing came for {STALL_SECONDS:g} s, {len(latencies)} of {messages} were acknowledged")
            for fd, _ in ready:
                publisher = self._publishers[fd]
                for _ in range(self._replies(publisher)):
                    latencies.append(time.perf_counter() - publisher.began.popleft())
                    if left:
                        self._begin(publisher, payload)
                        left -= 1
        return Round(time.perf_counter() - began_at, percentile(latencies, 0.5), percentile(latencies, 0.99))

    def _begin(self, publisher: _Publisher, payload: bytes) -> None:
        publisher.began.append(time.perf_counter())
        publisher.sock.sendall(self._wire.publish(payload))  # far less than a socket's buffer takes

    def _replies(self, publisher: _Publisher) -> int:
        try:
            data = publisher.sock.recv(READ_SIZE)
        except ssl.SSLWantReadError:
            return 0
        if not data:
            raise LoadError("the server has closed a publisher")
        replies, publisher.rest, answer = self._wire.take(publisher.rest + data)
        if answer:
            publisher.sock.sendall(answer)
        return replies
