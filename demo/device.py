"""A device of the demo, in a process of its own: the reference client, told by lines on stdin, telling by JSON lines on stdout.

    python -m demo.device DIR PORT DEVICE [TOPIC ...]

`drop` cuts the TCP connection as a network would; the end of stdin stops the device.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from streampush.cli.directory import DevelopmentDirectory
from streampush.client import (
    BacklogEnded,
    ClientEvent,
    ClientTls,
    Connected,
    Disconnected,
    Message,
    PositionLost,
    Stopped,
    StreamClient,
)


def tell(event: str, **fields: object) -> None:
    """One line for the demo."""
    sys.__stdout__.write(json.dumps({"event": event, **fields}) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


async def take(message: Message) -> None:
    """The application: it prints, and so it is done; the client acknowledges."""
    tell("message", channel=message.channel, offset=message.offset, text=message.payload.decode())


def watch(event: ClientEvent) -> None:
    if isinstance(event, Connected):
        recovered = [row.channel for row in event.welcome.subscribed if row.recovered]
        tell("connected", session=event.welcome.session_id, recovered=recovered)
    elif isinstance(event, Disconnected):
        tell("disconnected", detail=event.detail, next_try_in=event.next_try_in)
    elif isinstance(event, PositionLost):
        tell("lost", channel=event.channel, reason=event.reason.name)
    elif isinstance(event, BacklogEnded):
        tell("backlog_end", channel=event.channel)
    elif isinstance(event, Stopped):
        tell("stopped", reason=event.reason.value)


class Commands(LineReceiver):
    """What the demo wants."""

    delimiter = b"\n"

    def __init__(self, client: StreamClient) -> None:
        self.ended: Deferred[None] = Deferred()
        self._client = client

    def lineReceived(self, line: bytes) -> None:
        if line == b"drop":
            self._client.drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


async def run(reactor: Any, root: str, port: str, device_id: str, *topics: str) -> None:
    """Connects, follows, and goes on until stdin ends."""
    files = DevelopmentDirectory(Path(root))
    credentials = files.device(device_id)
    tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
    client = StreamClient(reactor, [("localhost", int(port))], tls, on_message=take, on_event=watch, app="demo")
    client.start()
    await client.connected()
    for topic in topics:
        await client.subscribe(topic)
    tell("ready")
    commands = Commands(client)
    StandardIO(commands)  # type: ignore[no-untyped-call]  # Twisted has not annotated it
    await commands.ended
    await client.stop()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, *sys.argv[1:])))
