"""Our HTTP/2 client and the simulated Apple, wired together: random chunks, virtual time, no transport."""

from __future__ import annotations

import uuid
from random import Random

from streampush.apns.http2 import ClientConnection
from streampush.apns.http2.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    Event,
    GoneAway,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Verdict,
)
from streampush.apns.http2.hpack import block
from streampush.apns.simulator import AppleConnection, SimulatedApple
from tests.apns.simulator.providers import TOKEN, request_fields

PATIENCE = 60.0
"""Seconds that a push waits for its answer; then the provider gives it up."""


class Provider:
    """Pushes `count` times, each once, over one connection after another, and knows how each ended: a status or a verdict."""

    def __init__(self, apple: SimulatedApple, jwt: bytes, count: int, *, seed: int = 0, payload: bytes = b'{"aps":{}}') -> None:
        self.endings: dict[str, int | Verdict] = {}
        """By apns-id."""
        self.twice: list[str] = []
        """Ids of pushes that ended more than once."""
        self.now = 0.0
        self.connections = 0
        self._apple = apple
        self._jwt = jwt
        self._payload = payload
        self._random = Random(seed)
        self._left = [str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(count)]
        self._begin()

    def run(self, most_connections: int = 30) -> None:
        """Goes on until every push has ended, or so many connections were used."""
        while self._left or self._open:
            if self._over:
                if self.connections == most_connections:
                    return
                self._begin()
            if not self._step():
                self._wait()

    # ---------------------------------------------------------------------------------------------------------- its connections

    def _begin(self) -> None:
        self.connections += 1
        self._client = ClientConnection()
        self._server: AppleConnection = self._apple.connect(self.now)
        self._open: dict[int, tuple[str, float]] = {}
        self._statuses: dict[int, int] = {}
        self._up = self._down = b""
        self._over = False
        self._client.start(self.now)

    def _step(self) -> bool:
        """Makes a request or two and moves some bytes. Whether anything happened."""
        moved = False
        while self._left and self._client.room() and self._random.random() < 0.8:
            apns_id = self._left.pop()
            fields = request_fields(TOKEN, self._jwt, apns_id=apns_id)
            self._open[self._client.request(block(fields), self._payload)] = (apns_id, self.now + PATIENCE)
            moved = True
        self._up += self._client.outbound()
        self._down += self._server.outbound()
        if self._up and self._server.reading and self._server.ending is None:
            chunk, self._up = self._cut(self._up)
            self._server.receive(chunk, self.now)
            moved = True
        self._down += self._server.outbound()
        if self._down:
            chunk, self._down = self._cut(self._down)
            self._events(self._client.receive(chunk, self.now))
            moved = True
        elif self._server.ending is not None and not self._over:
            self._events(self._client.end_of_input())
            moved = True
        return moved

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        size = self._random.choice((1, 7, 100, 5000, len(data)))
        return data[:size], data[size:]

    def _wait(self) -> None:
        """Nothing moves: time does, to the next deadline of anybody."""
        deadlines = [deadline for deadline in (self._client.deadline, self._server.deadline) if deadline is not None]
        deadlines += [deadline for _, deadline in self._open.values()]
        self.now = max(self.now, min(deadlines, default=self.now + 1.0))
        self._server.tick(self.now)
        self._events(self._client.tick(self.now))
        for stream_id, (_, deadline) in list(self._open.items()):
            if deadline <= self.now:
                verdict = self._client.reset(stream_id)
                assert verdict is not None
                self._end(stream_id, verdict)
        if not self._open and self._client.room() == 0:  # gone away, and all answered
            self._over = True

    def _events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ResponseReceived):
                self._statuses[event.stream_id] = event.headers.status
            if (isinstance(event, ResponseReceived | DataReceived) and event.ended) or isinstance(event, TrailersReceived):
                self._end(event.stream_id, self._statuses[event.stream_id])
            elif isinstance(event, StreamReset):
                self._end(event.stream_id, event.verdict)
            elif isinstance(event, GoneAway | ConnectionFailed | ConnectionEnded):
                for stream_id, verdict in event.streams:
                    self._end(stream_id, verdict)
                self._over = self._over or not isinstance(event, GoneAway)

    def _end(self, stream_id: int, ending: int | Verdict) -> None:
        apns_id, _ = self._open.pop(stream_id, ("unknown", 0.0))
        if apns_id in self.endings or apns_id == "unknown":
            self.twice.append(apns_id)
        self.endings[apns_id] = ending
