"""A backend of the demo, in a process of its own: a publisher on the framed protocol that hears what becomes of its messages.

    python -m demo.publisher DIR PORT NAME

A line of JSON on stdin, `{"channel": ..., "text": ...}`, is published; what the server answers, and each receipt, is told as a
line of JSON on stdout. The end of stdin stops it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from demo.lines import Commands, tell
from streampush.cli.directory import DevelopmentDirectory
from streampush.client import ClientEvent, ClientTls, ReceiptArrived, StreamClient


def watch(event: ClientEvent) -> None:
    if isinstance(event, ReceiptArrived):
        receipt = event.receipt
        tell("receipt", id=receipt.message_id, device=receipt.device_id, milestone=receipt.milestone.name.lower())


async def run(reactor: Any, root: str, port: str, name: str) -> None:
    """Connects, publishes what it is told, and goes on until stdin ends."""
    files = DevelopmentDirectory(Path(root))
    credentials = files.publisher(name)
    tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
    client = StreamClient(reactor, [("localhost", int(port))], tls, on_event=watch, receipts=True, app="demo")

    async def publish(line: bytes) -> None:
        message = json.loads(line)
        stored = await client.publish(message["channel"], message["text"].encode(), want_receipt=True)
        tell("published", id=stored.message_id, offset=stored.offset, connections=stored.connections)

    client.start()
    await client.connected()
    tell("ready")
    await Commands(publish).until_the_end()
    await client.stop()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, *sys.argv[1:])))
