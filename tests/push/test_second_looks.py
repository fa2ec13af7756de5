"""Pushes that wait with the sender of one node are taken back for what has happened on another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import StoreUnavailable
from streampush.protocol.terms import Outcome
from streampush.push import second_looks
from streampush.push.bus import Bus, NoBus
from streampush.push.leasing import LEASE
from streampush.push.second_looks import INTERVAL
from streampush.push.values import MessageReach, PushToken, SubscribeRequest
from streampush.store.memory import MemoryStore
from tests.push.fallback_world import TAKEN, FakeSender, FallbackWorld
from tests.push.nodes import NodeBus
from tests.push.world import PUBLISHER, World, device


def waiting_world(*, written: bool = False) -> FallbackWorld:
    """The node's sender has no connection, or else has written what waits for its answer."""
    return FallbackWorld(sender=FakeSender(slow=True, writes=written), bus=NodeBus([]))


def other_node(world: FallbackWorld) -> World:
    """On the same store, of which nothing is said to the first one."""
    return World(store=world.memory, node="other", bus=NodeBus([]), delivery=DeliveryConfig(subscribe=("*",)))


def acknowledge_elsewhere(world: FallbackWorld, device_id: str, channel: str, offset: int) -> None:
    other = other_node(world)
    attachment, _ = other.connected(device(device_id), *([] if channel.startswith("device:") else [SubscribeRequest(channel)]))
    other.settle()
    attachment.acknowledge(channel, offset, Outcome.DELIVERED)
    other.settle()


def test_a_push_whose_message_is_acknowledged_on_another_node_is_not_sent() -> None:
    world = waiting_world()
    world.known("phone-1")
    published = world.alert("device:phone-1")
    acknowledge_elsewhere(world, "phone-1", "device:phone-1", published.offset)
    world.advance(2 * INTERVAL)
    assert world.outcome(published, "phone-1") == ("cancelled", "acknowledged")
    assert (len(world.sender.orders), len(world.sender.waiting), world.work()) == (1, 0, 0)


def test_the_push_of_a_topics_message_as_well() -> None:
    world = waiting_world()
    for name in ("phone-1", "phone-2"):
        world.known(name)
        world.run(world.memory.add_subscription(name, "news", 1, 10))
    published = world.alert("news")
    acknowledge_elsewhere(world, "phone-1", "news", published.offset)
    world.advance(2 * INTERVAL)
    assert [order.device_id for order in world.sender.orders] == ["phone-1", "phone-2"]
    assert len(world.sender.waiting) == 1


def test_an_acknowledgement_of_an_earlier_message_leaves_it_there() -> None:
    world = waiting_world()
    world.known("phone-1")
    earlier = world.alert("device:phone-1")
    later = world.alert("device:phone-1")
    acknowledge_elsewhere(world, "phone-1", "device:phone-1", earlier.offset)
    world.advance(5 * INTERVAL)
    assert len(world.sender.waiting) == 1
    world.answer(TAKEN)
    world.advance(0.1)
    assert world.outcome(later, "phone-1")[0] == "delivered"


def test_a_push_whose_message_is_recalled_on_another_node_is_not_sent() -> None:
    world = waiting_world()
    world.known("phone-1")
    published = world.alert("device:phone-1")
    other = other_node(world)
    other.run(other.service.recall(PUBLISHER, published.message_id))
    world.advance(2 * INTERVAL)
    assert world.outcome(published, "phone-1") == ("cancelled", "recalled")
    assert len(world.sender.orders) == 1


def test_a_push_goes_to_the_token_that_was_registered_on_another_node() -> None:
    world = waiting_world()
    world.known("phone-1")
    published = world.alert("device:phone-1")
    world.sender.slow = False
    other = other_node(world)
    other.run(other.service.devices.register_token("phone-1", PushToken(b"new", "app", sandbox=False)))
    world.advance(2 * INTERVAL)
    assert [order.token.token for order in world.sender.orders] == [b"tokenphone-1", b"new"]
    assert world.outcome(published, "phone-1")[0] == "delivered"


def test_what_is_written_is_waited_for() -> None:
    world = waiting_world(written=True)
    world.known("phone-1")
    published = world.alert("device:phone-1")
    acknowledge_elsewhere(world, "phone-1", "device:phone-1", published.offset)
    world.advance(3 * INTERVAL)
    assert len(world.sender.waiting) == 1
    world.answer(TAKEN)
    world.advance(0.1)
    assert world.outcome(published, "phone-1")[0] == "delivered"


class WatchedStore(MemoryStore):
    """`asked`: the devices of each step of a look. `away`: it can say nothing."""

    def __init__(self, world: list[FallbackWorld]) -> None:
        super().__init__(StoreConfig(), lambda: world[0].wall_ms(), lambda: "epoch")
        self.asked: list[list[str]] = []
        self.away = False

    async def reach_with(self, asked: Sequence[tuple[str, Sequence[str]]], *, results: bool) -> Sequence[MessageReach | None]:
        self.asked.append([device_id for _, device_ids in asked for device_id in device_ids])
        if self.away:
            raise StoreUnavailable("away")
        return await super().reach_with(asked, results=results)


def watched_world(pushes: int, bus: Bus | None = None) -> tuple[FallbackWorld, WatchedStore]:
    """So many pushes wait, to d0, d1 and so on."""
    worlds: list[FallbackWorld] = []
    store = WatchedStore(worlds)
    worlds.append(FallbackWorld(store=store, sender=FakeSender(slow=True, writes=False), start=False, bus=bus or NodeBus([])))
    world = worlds[0]
    world.memory = store
    world.service.start()
    for number in range(pushes):
        world.known(f"d{number}")
        world.alert(f"device:d{number}")
    assert len(world.sender.waiting) == pushes
    store.asked.clear()
    return world, store


def test_what_is_sent_within_an_interval_is_not_looked_at() -> None:
    world, store = watched_world(1)
    world.advance(0.9 * INTERVAL)
    world.answer(TAKEN)
    world.advance(5 * INTERVAL)
    assert store.asked == []


def test_a_round_is_of_a_bounded_number_and_each_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_looks, "IN_A_ROUND", 2)
    monkeypatch.setattr(second_looks, "AT_ONCE", 1)
    world, store = watched_world(4)
    world.advance(4 * INTERVAL)
    assert store.asked == [["d0"], ["d1"], ["d2"], ["d3"], ["d0"], ["d1"]]


def test_a_store_that_is_away_is_asked_again() -> None:
    world, store = watched_world(1)
    acknowledge_elsewhere(world, "d0", "device:d0", 1)
    store.away = True
    world.advance(3 * INTERVAL)
    assert (len(store.asked), len(world.sender.waiting)) == (2, 1)
    store.away = False
    world.advance(INTERVAL)
    assert len(world.sender.waiting) == 0


def test_a_node_alone_does_not_look() -> None:
    world, store = watched_world(1, NoBus())
    world.advance(LEASE / 2)
    assert (store.asked, len(world.sender.waiting)) == ([], 1)


def test_nothing_is_looked_at_behind_the_stop() -> None:
    world, store = watched_world(1)
    world.service.stop()
    world.advance(5 * INTERVAL)
    assert (store.asked, world.timers) == ([], [])
