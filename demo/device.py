"""A device of the demo, in a process of its own: the reference client, told by lines on stdin, telling by JSON lines on stdout.

    python -m demo.device DIR PORT DEVICE [TOPIC ...]

`drop` cuts the TCP connection as a network would; the end of stdin stops the device.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from demo.apple import BUNDLE_ID
from demo.lines import Commands, tell
from streampush.cli.directory import DevelopmentDirectory
from streampush.client import (
    BacklogEnded,
    ClientEvent,
    ClientTls,
    Connected,
    Disconnected,
    Message,
    PositionLost,
    Recalled,
    Stopped,
    StreamClient,
)


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
    elif isinstance(event, Recalled):
        tell("recalled", channel=event.channel, recalls=event.message_id)
    elif isinstance(event, BacklogEnded):
        tell("backlog_end", channel=event.channel)
    elif isinstance(event, Stopped):
        tell("stopped", reason=event.reason.value)


async def run(reactor: Any, root: str, port: str, device_id: str, *topics: str) -> None:
    """Connects, follows, says where it is to be pushed to, and goes on until stdin ends."""
    files = DevelopmentDirectory(Path(root))
    credentials = files.device(device_id)
    tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
    client = StreamClient(reactor, [("localhost", int(port))], tls, on_message=take, on_event=watch, app="demo")
    client.start()
    await client.connected()
    for topic in topics:
        await client.subscribe(topic)
    await client.register_token(os.urandom(32), BUNDLE_ID, sandbox=True)  # as iOS gives one
    tell("ready")

    async def obey(line: bytes) -> None:
        if line == b"drop":
            client.drop()

    await Commands(obey).until_the_end()
    await client.stop()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, *sys.argv[1:])))
