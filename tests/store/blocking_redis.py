"""Redis asked at once, as a store is that answers in the calling thread: for tests that are no coroutines."""

from __future__ import annotations

import socket
from typing import Any

import hiredis
from twisted.internet.defer import Deferred, succeed

ANSWER_TIMEOUT = 20.0


class BlockingRedis:
    """See streampush.store.redis.scripts.RedisLike: each command waits for its answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def command(self, *parts: bytes | str | int) -> Deferred[Any]:
        """The answer; an error of Redis as a value."""
        pieces = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        self._socket.sendall(b"*%d\r\n" % len(pieces) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in pieces))
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(1 << 16)
            assert data, "Redis has ended the connection"
            self._reader.feed(data)
        return succeed(answer)

    def close(self) -> None:
        """Leaves Redis."""
        self._socket.close()
