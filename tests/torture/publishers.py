"""Who publishes while the server is tortured: every message until the server says that it is stored, under the same key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from twisted.internet import reactor

from streampush.cli.directory import DevelopmentDirectory
from streampush.cli.exits import Failure
from streampush.cli.rest_client import RestClient
from streampush.client import ClientEvent, ClientTls, ReceiptArrived, StreamClient
from streampush.client.errors import ClientError, RequestRefused
from streampush.protocol.codes import Code
from tests.torture.journal import Journal
from tests.torture.node import Node, pause

ANSWER_TIMEOUT = 10.0
RETRY_AFTER = 0.1
TRANSIENT = (Code.STORE_UNAVAILABLE, Code.DRAINING, Code.OVERLOADED, Code.MESSAGE_RATE_EXCEEDED)
"""Refusals that pass; any other one ends the run."""


class Wrong(Exception):
    """The server has refused what it must not refuse."""


class TooLate(Exception):
    """The time of a scheduled message had passed before the server took it: it was not stored."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message to publish. `text` is unique, and its idempotency key. `ttl` in seconds, `due` is Unix time; 0: none."""

    channel: str
    text: str
    ttl: float = 0.0
    due: float = 0.0
    collapse_key: str = ""
    want_receipt: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the publisher was told."""

    message_id: str
    offset: int


class Post(Protocol):
    """A way to the server: tries once, None if it is not known whether it was stored."""

    async def publish(self, parcel: Parcel) -> Answer | None:
        """Raises TooLate, and Wrong for a refusal that should not be."""

    async def recall(self, message_id: str) -> bool:
        """Whether the server has said that the recall is stored. Raises Wrong."""

    async def close(self) -> None:
        """Ends it."""


class RestPost:
    """Over REST."""

    def __init__(self, node: Node, key: str) -> None:
        self._client = RestClient(reactor, f"http://127.0.0.1:{node.rest_port}", key, b"")

    async def publish(self, parcel: Parcel) -> Answer | None:
        body: dict[str, Any] = {"channel": parcel.channel, "payload": parcel.text, "idempotency_key": parcel.text}
        if parcel.ttl:
            body["ttl"] = parcel.ttl
        if parcel.due:
            body["deliver_at"] = int(parcel.due * 1000)
        if parcel.collapse_key:
            body["collapse_key"] = parcel.collapse_key
        if parcel.want_receipt:
            body["want_receipt"] = True
        answer = await self._ask("POST", "/v1/publish", body)
        return None if answer is None else Answer(answer["message_id"], answer["offset"])

    async def recall(self, message_id: str) -> bool:
        return await self._ask("DELETE", f"/v1/messages/{message_id}") is not None

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        try:
            status, document = await self._client.ask(method, path, body)
        except Failure:
            return None
        if status in (429, 503):
            return None
        if document.get("code") == Code.MESSAGE_EXPIRED and body and "deliver_at" in body:
            raise TooLate
        if status != 200:
            raise Wrong(f"{method} {path}: {status} {document}")
        return document

    async def close(self) -> None:
        await self._client.close()


class FramedPost:
    """Over the framed protocol; recalls go over REST."""

    def __init__(self, node: Node, root: Path, name: str, rest: RestPost, random: Random) -> None:
        files = DevelopmentDirectory(root)
        credentials = files.publisher(name)
        tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
        self.receipts = 0
        self._rest = rest
        self._client = StreamClient(
            reactor,
            [("127.0.0.1", node.port)],
            tls,
            on_event=self._hear,
            receipts=True,
            app="torture",
            random=random,
            request_timeout=ANSWER_TIMEOUT,
        )
        self._client.start()

    async def publish(self, parcel: Parcel) -> Answer | None:
        options: dict[str, Any] = {"want_receipt": parcel.want_receipt, "idempotency_key": parcel.text}
        if parcel.ttl:
            options["ttl"] = parcel.ttl
        if parcel.due:
            options["deliver_at"] = parcel.due
        if parcel.collapse_key:
            options["collapse_key"] = parcel.collapse_key
        try:
            stored = await self._client.publish(parcel.channel, parcel.text.encode(), **options)
        except RequestRefused as refused:
            if refused.code == Code.MESSAGE_EXPIRED and parcel.due:
                raise TooLate from refused
            if refused.code not in TRANSIENT:
                raise Wrong(f"publish to {parcel.channel}: {refused}") from refused
            return None
        except ClientError:
            return None
        return Answer(stored.message_id, stored.offset)

    async def recall(self, message_id: str) -> bool:
        return await self._rest.recall(message_id)

    def _hear(self, event: ClientEvent) -> None:
        if isinstance(event, ReceiptArrived):
            self.receipts += 1

    async def close(self) -> None:
        await self._client.stop()
        await self._rest.close()


class Publisher:
    """Publishes one message after the other. `interval`: seconds between two, on average."""

    def __init__(self, name: str, post: Post, channels: list[str], interval: float, journal: Journal, random: Random) -> None:
        self.name = name
        self.tries = 0
        self.number = 0
        self._post = post
        self._channels = channels
        self._interval = interval
        self._journal = journal
        self._random = random
        self._stopping = False

    async def run(self) -> None:
        """Until `stop`, and until the last message is acknowledged."""
        while not self._stopping:
            self.number += 1
            try:
                await self._next(self._parcel())
            except TooLate:
                pass  # nothing was promised
            except Wrong as wrong:
                self._journal.write("wrong", text=str(wrong))
            await pause(self._random.expovariate(1 / self._interval))
        await self._post.close()

    def stop(self) -> None:
        self._stopping = True

    def _parcel(self) -> Parcel:
        random = self._random
        channel, kind = random.choice(self._channels), random.random()
        text = f"{'poison' if kind < 0.01 else 'text'} {self.name}/{self.number}"
        return Parcel(
            channel,
            text,
            ttl=random.uniform(0.5, 3) if 0.90 < kind < 0.93 else 0.0,
            due=time.time() + random.uniform(0.5, 3) if 0.93 < kind < 0.96 else 0.0,
            collapse_key=random.choice("abc") if kind > 0.96 else "",
            want_receipt=random.random() < 0.5,
        )

    async def _next(self, parcel: Parcel) -> None:
        answer = await self._publish(parcel)
        lasting = not (parcel.due or parcel.ttl or parcel.collapse_key)
        if lasting and self._random.random() < 0.02:
            await self._recall(parcel.channel, answer.message_id)

    async def _publish(self, parcel: Parcel) -> Answer:
        while True:
            self.tries += 1
            answer = await self._post.publish(parcel)
            if answer is not None:
                break
            await pause(RETRY_AFTER * self._random.uniform(0.5, 3))
        self._journal.write(
            "ack",
            publisher=self.name,
            channel=parcel.channel,
            offset=answer.offset,
            message_id=answer.message_id,
            text=parcel.text,
            may_go=bool(parcel.ttl),
            collapse_key=parcel.collapse_key,
        )
        return answer

    async def _recall(self, channel: str, message_id: str) -> None:
        await pause(self._random.choice((0.0, 0.5)))
        self._journal.write("recalling", channel=channel, message_id=message_id)
        while not await self._post.recall(message_id):
            await pause(RETRY_AFTER * self._random.uniform(0.5, 3))
        self._journal.write("recalled", channel=channel, message_id=message_id)
