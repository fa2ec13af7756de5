"""Server-Sent Events (WHATWG HTML, section 9.2.6) for the commands: bytes in, events out, over connections that may be lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure as TwistedFailure

from streampush.cli.asking import failure_of
from streampush.cli.exits import Failure, NoConnection
from streampush.cli.rest_client import RestClient

MAX_EVENT_BYTES = 64 * 1024
"""Of one event: what a server of another kind may make us hold."""

MAX_TRIES = 5
"""Connections in a row that may bring nothing."""

RETRY_INTERVAL = 3.0
"""Seconds between two connections, unless the server names others."""

MAX_RETRY_INTERVAL = 60.0
GO_ON = ("max_time", "draining")
"""Reasons of an `end` behind which there may be more."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` is the JSON object in it."""

    name: str
    data: dict[str, Any]


class EventParser:
    """Bytes of a stream to events. `last_id` and `retry` (seconds) are what the server has named last."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry = RETRY_INTERVAL
        self._rest = b""
        self._size = 0
        self._name = ""
        self._data: list[str] = []

    def begin(self) -> None:
        """A new connection: what was half told on the old one is forgotten."""
        self._rest = b""
        self._forget()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete. Raises Failure for one that is too long or no JSON object."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._size += len(line)
            self._bound(self._size)
            event = self._take(line.rstrip(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event
        self._bound(self._size + len(self._rest))

    def _bound(self, size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise Failure(f"the server tells an event longer than {MAX_EVENT_BYTES} bytes")

    def _take(self, line: str) -> Event | None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            return self._complete()
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self.last_id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self.retry = min(int(value) / 1000, MAX_RETRY_INTERVAL)
        return None

    def _complete(self) -> Event | None:
        name, text = self._name, "\n".join(self._data)
        self._forget()
        if not text:
            return None
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Failure("the server tells an event that is no JSON object")
        return Event(name, data)

    def _forget(self) -> None:
        self._size = 0
        self._name = ""
        self._data = []


class _Reader(Protocol):
    """One answer. `done` fires when it is over, however it ended, and fails with a Failure for what is no event."""

    def __init__(self, parser: EventParser, hear: Callable[[Event], None]) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._abort())
        self.heard = False
        self._parser = parser
        self._hear = hear

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            for event in self._parser.feed(data):
                self.heard = True
                self._hear(event)
        except Failure as failure:
            self._abort()
            self.done.errback(failure)

    def connectionLost(self, reason: TwistedFailure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


async def follow(reactor: Any, client: RestClient, path: str, hear: Callable[[Event], None]) -> str:
    """Tells `hear` each event until the server says that there is no more; gives its reason.

    Connects again where the connection is lost, and misses nothing by it. Raises Failure.
    """
    parser = EventParser()
    reason = ""

    def take(event: Event) -> None:
        nonlocal reason
        if event.name == "end":
            reason = str(event.data.get("reason", ""))
        else:
            hear(event)

    tries = 0
    while True:
        parser.begin()
        reader = _Reader(parser, take)
        tries += 1
        try:
            status, answer = await client.stream(path, reader, {"Last-Event-ID": parser.last_id} if parser.last_id else {})
            if status == 200:
                await reader.done
            elif status != 503 or tries >= MAX_TRIES:
                raise failure_of(status, answer)
        except NoConnection:
            if tries >= MAX_TRIES:
                raise
        if reason and reason not in GO_ON:
            return reason
        if reader.heard:
            tries = 0
        elif tries >= MAX_TRIES:
            raise NoConnection(f"{client.url}: the stream of events ends before it has told anything")
        reason = ""
        await deferLater(reactor, parser.retry)
