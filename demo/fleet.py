"""Devices of the demo, all in one process: each has a reference client of its own, and tells what it gets as JSON lines.

    python -m demo.fleet DIR PORT TOPIC DEVICE [DEVICE ...]

All follow the topic. The end of stdin stops them.
"""

from __future__ import annotations

from pathlib import Path
from sys import argv
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from demo.lines import Commands, tell
from streampush.cli.directory import DevelopmentDirectory
from streampush.client import ClientEvent, ClientTls, Connected, Disconnected, Message, PositionLost, StreamClient


def device(reactor: Any, files: DevelopmentDirectory, port: int, name: str) -> StreamClient:
    """One of them, not yet started."""

    async def take(message: Message) -> None:
        tell("message", device=name, channel=message.channel, text=message.payload.decode())

    def watch(event: ClientEvent) -> None:
        if isinstance(event, Connected):
            recovered = sum(row.recovered for row in event.welcome.subscribed)
            tell("connected", device=name, node=event.welcome.node, recovered=recovered)
        elif isinstance(event, Disconnected):
            tell("disconnected", device=name, detail=event.detail)
        elif isinstance(event, PositionLost):
            tell("lost", device=name, channel=event.channel, reason=event.reason.name)

    credentials = files.device(name)
    tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
    return StreamClient(reactor, [("localhost", port)], tls, on_message=take, on_event=watch, app="demo")


async def run(reactor: Any, root: str, port: str, topic: str, *names: str) -> None:
    """Connects all, and goes on until stdin ends."""
    files = DevelopmentDirectory(Path(root))
    clients = [device(reactor, files, int(port), name) for name in names]
    for client in clients:
        client.start()
    for client in clients:
        await client.connected()
        await client.subscribe(topic, durable=True)
    tell("ready")

    async def obey(line: bytes) -> None:
        """There is nothing to be told."""

    await Commands(obey).until_the_end()
    for client in clients:
        await client.stop()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, *argv[1:])))
