"""What really happened: every publication that became durable, and what publishers were told. It asks the disk and no server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from streampush.push.values import Appended
from tests.simulation.store import Disk
from tests.simulation.world import World


@dataclass(slots=True)
class Entry:
    """A publication in a log. `write`: the number of the disk's write that brought it."""

    channel: str
    epoch: str
    offset: int
    message_id: str
    payload: bytes = field(repr=False)
    expires_at_ms: int
    write: int


View: TypeAlias = dict[tuple[str, str], dict[int, Entry]]
"""What the logs hold, or held, by channel and epoch. A disaster begins a new view; until then one only grows."""


@dataclass(slots=True)
class Intent:
    """Something that a publisher wants, by the payload that names it. `entry`: what an acknowledgement has promised."""

    channel: str
    payload: bytes = field(repr=False)
    entry: Entry | None = None


class Truth:
    """`view` is the present one. `disasters` counts losses of what was durable: restored backups, ended processes without disk."""

    def __init__(self, world: World) -> None:
        self.view: View = {}
        self.disasters = 0
        self.intents: dict[bytes, Intent] = {}
        self.appended = 0
        self._world = world
        self._disk: Disk | None = None

    def watch(self, disk: Disk) -> None:
        """The disk whose writes `observe` hears of."""
        self._disk = disk

    def observe(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """See store.Observer."""
        if name == "append" and result.appended is not None:
            self._appended(result.appended)

    def _appended(self, appended: Appended) -> None:
        publication = appended.publication
        channel, epoch, offset = publication.channel, appended.epoch, publication.offset
        log = self.view.setdefault((channel, epoch), {})
        if offset != len(log) + 1:
            self._world.broken("store", f"{channel} goes on with offset {offset} behind {len(log)}")
        assert self._disk is not None
        log[offset] = Entry(
            channel,
            epoch,
            offset,
            publication.message_id,
            publication.payload,
            publication.expires_at_ms,
            self._disk.writes,
        )
        self.appended += 1
        if self._world.tracing:
            self._world.trace("durable:", channel, offset, publication.message_id, publication.payload)

    def wiped(self) -> None:
        """The disk is empty."""
        self.disasters += 1
        self.view = {}

    def restored(self, writes: int) -> None:
        """The disk is as it was after so many writes."""
        self.disasters += 1
        self.view = {
            key: {offset: entry for offset, entry in log.items() if entry.write <= writes} for key, log in self.view.items()
        }

    # -------------------------------------------------------------------------------------------------------- publishers

    def intends(self, channel: str, payload: bytes) -> Intent:
        """A publisher begins to publish."""
        intent = self.intents[payload] = Intent(channel, payload)
        return intent

    def acknowledged(self, intent: Intent, view: View, epoch: str, offset: int, message_id: str) -> None:
        """The publisher was told that it is stored. `view`: of the process that said so."""
        entry = view.get((intent.channel, epoch), {}).get(offset)
        if entry is None or entry.message_id != message_id or entry.payload != intent.payload:
            self._world.broken("I1", f"{intent.channel} {offset} {message_id} is acknowledged, and on the disk is {entry}")
        intent.entry = entry
        if self._world.tracing:
            self._world.trace("acknowledged:", intent.channel, offset, message_id, intent.payload)

    # --------------------------------------------------------------------------------------------------------- questions

    def excused(self, entry: Entry) -> bool:
        """Whether nobody need get the entry now."""
        return 0 < entry.expires_at_ms <= self._world.wall_ms()

    def check_promises(self) -> None:
        """Everything acknowledged is in the logs still, but for what disasters took."""
        for intent in self.intents.values():
            entry = intent.entry
            if entry is not None and not self.disasters:
                held = self.view[entry.channel, entry.epoch].get(entry.offset)
                if held is None or held.message_id != entry.message_id:
                    self._world.broken("I1", f"{entry} was acknowledged and is gone")
