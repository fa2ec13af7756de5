"""What the tests of delivery share: frames of a known length, a slow store, a lost log."""

from __future__ import annotations

from typing import Any

from streampush.config import StoreConfig
from streampush.push.delivery import Attachment
from streampush.push.values import ConnectionInfo, PublishRequest
from streampush.store.memory import MemoryStore
from tests.push.world import PUBLISHER, RecordingLink, World, device, encode
from tests.store.slow import SlowStore

FRAME = 30  # bytes; frames of the publications below have this length exactly


def fixed(publication: Any) -> bytes:
    """A frame of FRAME bytes and the payload: what a window in bytes is tested with."""
    frame = encode(publication)
    return frame[:-1] + b" " * (FRAME + len(publication.payload) - len(frame)) + b"\n"


def stored(world: World, device_id: str, channel: str) -> int:
    """The offset of the stored cursor, once everything is written."""
    world.settle()
    cursor = world.run(world.memory.cursors(device_id)).get(channel)
    return cursor.offset if cursor else -1


def lose_log(world: World, channel: str) -> None:
    """The log is gone; its next use begins a new one."""
    del world.memory._logs.channels[channel]
    world.memory._logs.epoch = world.new_epoch()


def slow_world(**settings: Any) -> tuple[World, SlowStore]:
    """A world whose store answers when told to; what it holds is `world.memory`."""
    memory = MemoryStore(StoreConfig(), lambda: 1_000_000, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store, **settings)
    world.memory = memory
    return world, store


def attach_slow(world: World, device_id: str = "d") -> tuple[Attachment, RecordingLink]:
    """An attachment that was not remembered, so the store has not been asked anything."""
    link = RecordingLink()
    attachment = world.service.attach(device(device_id), link, ConnectionInfo("s", "", 10, 10_000))
    attachment.begin()
    return attachment, link


async def publish(world: World, channel: str = "news") -> None:
    await world.service.publish(PUBLISHER, PublishRequest(channel, b""))
