"""The devices that are connected while the server is tortured: the reference client, with an application that keeps a journal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from twisted.internet import reactor

from streampush.cli.directory import DevelopmentDirectory
from streampush.client import ClientEvent, ClientTls, Connected, MemoryPositions, Message, PositionLost, Recalled, StreamClient
from streampush.protocol.terms import Start
from tests.torture.journal import Journal
from tests.torture.node import Node

LATER = 0.01
"""How often an application cannot take a message at its first delivery."""


class CannotTakeIt(Exception):
    """The application asks for the message later."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a device is like.

    `topics` are followed besides its own channels; `durable`: the server keeps these subscriptions. `forgetful`: its application
    remembers no position over a restart. `choosy`: it takes no message that begins with "poison".
    """

    device: str
    user: str
    topics: tuple[str, ...]
    durable: bool
    forgetful: bool
    choosy: bool

    @property
    def channels(self) -> frozenset[str]:
        """All that it follows."""
        return frozenset({f"device:{self.device}", *self.topics, *((f"user:{self.user}",) if self.user else ())})


def kinds(number: int, topics: list[str]) -> list[Kind]:
    """So many devices of every kind: two devices a user, every fourth device belongs to nobody."""
    return [
        Kind(
            f"phone-{n}",
            "" if n % 4 == 3 else f"user-{n // 2}",
            tuple(topics[: 1 + n % len(topics)]),
            durable=n % 2 == 0,
            forgetful=n % 6 == 4,
            choosy=n % 5 == 2,
        )
        for n in range(number)
    ]


class Phone:
    """A device. What its application has taken outlives its restarts, as in an application with a database."""

    def __init__(self, kind: Kind, node: Node, root: Path, journal: Journal, random: Random) -> None:
        self.kind = kind
        self.connects = 0
        self._node = node
        self._root = root
        self._journal = journal
        self._random = random
        self._positions = MemoryPositions()
        self._asked: set[str] = set()  # ids of what it has asked for again
        self._client: StreamClient | None = None

    def start(self) -> None:
        """The application is started."""
        if self.kind.forgetful:
            self._positions = MemoryPositions()
        remembered = {channel: position.offset for channel, position in self._positions.load().items()}
        self._journal.write("began", device=self.kind.device, positions=remembered)
        files = DevelopmentDirectory(self._root)
        credentials = files.device(self.kind.device)
        tls = ClientTls.from_files(str(files.ca.certificate), str(credentials.certificate), str(credentials.key))
        self._client = StreamClient(
            reactor,
            [("127.0.0.1", self._node.port)],
            tls,
            on_message=self._take,
            on_event=self._hear,
            app="torture",
            positions=self._positions,
            random=self._random,
        )
        self._client.start()

    async def subscribe(self) -> None:
        """Once, before anything is published: the topics are followed from their beginning."""
        assert self._client is not None
        await self._client.connected()
        for topic in self.kind.topics:
            await self._client.subscribe(topic, start=Start.EARLIEST, durable=self.kind.durable)

    async def stop(self) -> None:
        """The application ends."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.stop()

    async def crash(self) -> None:
        """The application ends without a word; what it has acknowledged last may not arrive."""
        self.drop()
        await self.stop()

    def drop(self) -> None:
        """A bad network."""
        if self._client is not None:
            self._client.drop()

    async def _take(self, message: Message) -> None:
        text = message.payload.decode()
        later = self.kind.choosy and text.startswith("poison")
        if message.message_id not in self._asked and self._random.random() < LATER:
            later = True
        self._journal.write(
            "got",
            device=self.kind.device,
            channel=message.channel,
            offset=message.offset,
            message_id=message.message_id,
            text=text,
            later=later,
        )
        if later:
            self._asked.add(message.message_id)
            raise CannotTakeIt

    def _hear(self, event: ClientEvent) -> None:
        write, device = self._journal.write, self.kind.device
        if isinstance(event, Connected):
            self.connects += 1
            for row in event.welcome.subscribed:
                if row.recovered:
                    write("recovered", device=device, channel=row.channel, offset=row.offset, message_id=row.last_message_id)
        elif isinstance(event, PositionLost):
            write("lost", device=device, channel=event.channel, reason=event.reason.name)
        elif isinstance(event, Recalled):
            write("notice", device=device, channel=event.channel, message_id=event.message_id)
