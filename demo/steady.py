"""A backend that publishes all the time, in a process of its own: over REST and over the framed protocol at once.

    python -m demo.steady DIR PORT REST_PORT PUBLISHER CHANNEL [CHANNEL ...]

To the channels in turn. Each message is sent again, with the same idempotency key, until the server says that it is stored; that is
told as a line of JSON. The line `enough` on stdin lets it finish what it has begun; the end of stdin stops it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path
from sys import argv
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from demo.lines import Commands, tell
from demo.processes import Failed
from streampush.cli.directory import DevelopmentDirectory
from streampush.cli.exits import Failure
from streampush.cli.rest_client import RestClient
from streampush.client import ClientTls, StreamClient
from streampush.client.errors import ClientError

PAUSE = 0.05
"""Seconds between two messages of each way."""

AGAIN_AFTER = 0.25
"""Seconds until what was not acknowledged is sent again."""

Send = Callable[[str, str], Awaitable[str]]
"""Channel and text; gives the durability that the server names, "" if it is not known whether the message is stored."""


def over_rest(client: RestClient) -> Send:
    async def send(channel: str, text: str) -> str:
        body = {"channel": channel, "payload": text, "idempotency_key": text}
        try:
            status, answer = await client.ask("POST", "/v1/publish", body)
        except Failure:
            return ""
        if status not in (200, 429, 503):
            raise Failed(f"publish to {channel}: {status} {answer}")
        return str(answer["durability"]) if status == 200 else ""

    return send


def over_frames(client: StreamClient) -> Send:
    async def send(channel: str, text: str) -> str:
        try:
            stored = await client.publish(channel, text.encode(), idempotency_key=text)
        except ClientError:
            return ""
        return stored.durability.name

    return send


class Steady:
    """Publishes by each way, until it is enough."""

    def __init__(self, reactor: Any, channels: list[str]) -> None:
        self.enough = False
        self._reactor = reactor
        self._channels = channels

    async def publish(self, way: str, send: Send) -> None:
        """One message after the other."""
        for number, channel in enumerate(cycle(self._channels), 1):
            if self.enough:
                return
            text, tries = f"{way} {number}", 1
            while not (durability := await send(channel, text)):
                tries += 1
                await task.deferLater(self._reactor, AGAIN_AFTER)
            tell("published", way=way, channel=channel, text=text, tries=tries, durability=durability)
            await task.deferLater(self._reactor, PAUSE)


async def run(reactor: Any, root: str, port: str, rest_port: str, name: str, *channels: str) -> None:
    """Connects, publishes until it is told to end, and goes when stdin ends."""
    files = DevelopmentDirectory(Path(root))
    credentials = files.publisher(name)
    tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
    client = StreamClient(reactor, [("localhost", int(port))], tls, app="demo", request_timeout=3)
    rest = RestClient(reactor, f"http://127.0.0.1:{rest_port}", files.rest_key.read_text().strip(), b"")
    client.start()
    await client.connected()
    tell("ready")
    steady = Steady(reactor, list(channels))
    ways = {"rest": over_rest(rest), "framed": over_frames(client)}
    working = gatherResults([Deferred.fromCoroutine(steady.publish(way, send)) for way, send in ways.items()])

    async def obey(line: bytes) -> None:
        if line == b"enough":
            steady.enough = True
            await working
            tell("finished")

    await Commands(obey).until_the_end()
    steady.enough = True
    await client.stop()
    await rest.close()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, *argv[1:])))
