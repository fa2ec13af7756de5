"""Receipts of messages whose devices are on another node, over a bus that carries hints when it is told to."""

from __future__ import annotations

from streampush.config import PublishConfig
from streampush.protocol.codes import Code
from streampush.protocol.terms import Milestone
from streampush.push.receipts import GATHER
from tests.push.nodes import Nodes
from tests.push.receipt_world import Listener
from tests.push.world import refuses


def watching(nodes: Nodes, name: str, message_id: str) -> Listener:
    """Watched on that node as an event stream does it."""
    receipts = nodes[name].service.receipts
    listener = Listener(receipts)
    listener.watch = receipts.watch(message_id, listener)
    read(nodes)
    return listener


def reached(listener: Listener) -> list[Milestone]:
    """What the device has done, as far as it was told."""
    return [stone for stone in listener.milestones("d") if stone not in (Milestone.ACCEPTED, Milestone.STORED)]


def read(nodes: Nodes) -> None:
    """What is gathered is read."""
    for node in nodes:
        node.world.advance(GATHER)
    nodes.settle()


def test_an_acknowledgement_on_another_node_is_told() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d")
    published = nodes["a"].publish("device:d", b"1")
    listener = watching(nodes, "a", published.message_id)
    nodes.carry()
    read(nodes)
    assert reached(listener) == [Milestone.WRITTEN]
    phone.acknowledge("device:d", published.offset)
    read(nodes)
    assert reached(listener) == [Milestone.WRITTEN]  # nothing has been heard of it
    nodes.carry()
    read(nodes)
    assert reached(listener) == [Milestone.WRITTEN, Milestone.DELIVERED]


def test_a_hint_that_was_lost_is_made_good_by_the_next() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d")
    published = nodes["a"].publish("device:d", b"1")
    listener = watching(nodes, "a", published.message_id)
    nodes.carry()
    phone.acknowledge("device:d", published.offset)
    nodes.drop()
    nodes["a"].hearing.changed(published.message_id)  # as when its subscription has begun anew
    nodes["a"].hearing.changed("of which nobody has heard")
    read(nodes)
    assert reached(listener) == [Milestone.WRITTEN, Milestone.DELIVERED]


def test_the_bus_hears_of_each_message_once_however_many_watch_it() -> None:
    nodes = Nodes("a")
    nodes["a"].connect("d")
    message_id = nodes["a"].publish("device:d", b"1").message_id
    first, second = watching(nodes, "a", message_id), watching(nodes, "a", message_id)
    assert nodes["a"].bus.watched == {message_id}
    for listener in (first, second):
        assert nodes["a"].bus.watched == {message_id}
        assert listener.watch is not None
        nodes["a"].service.receipts.unwatch(listener.watch, listener)
    assert nodes["a"].bus.watched == set()


def test_what_is_watched_over_the_bus_is_bounded() -> None:
    nodes = Nodes("a", publish=PublishConfig(max_watched=1))
    nodes["a"].connect("d")
    first, second = (nodes["a"].publish("device:d", b"1").message_id for _ in range(2))
    watching(nodes, "a", first)
    with refuses(Code.OVERLOADED):
        watching(nodes, "a", second)
    assert nodes["a"].bus.watched == {first}


def test_a_message_that_is_not_there_is_not_watched_for_long() -> None:
    nodes = Nodes("a")
    listener = watching(nodes, "a", "unknown")
    assert listener.lost
    assert nodes["a"].bus.watched == set()
