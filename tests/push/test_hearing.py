"""Several nodes on one store, with a bus that carries hints when it is told to: what each does with what it hears."""

from __future__ import annotations

import pytest

from streampush.protocol.codes import Code
from streampush.push.bus import Order, OrderKind
from streampush.push.devices import DeviceChange
from streampush.push.hearing import NodeHearing
from tests.push.nodes import Nodes


def test_what_one_node_publishes_reaches_the_followers_of_another() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d", "news")
    nodes["a"].publish("news", b"1")
    nodes.carry()
    assert phone.payloads == [b"1"]


def test_hints_that_are_lost_repeated_or_in_the_wrong_order_do_no_harm() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d", "news")
    for number in range(6):
        nodes["a"].publish("news", str(number).encode())
    hints = nodes.take()
    nodes.give([hints[5], hints[2], hints[2], hints[0]])
    assert phone.payloads == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_hint_without_the_payload_lets_followers_read_the_log() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d", "news")
    nodes["a"].publish("news", b"1")
    nodes.drop()
    epoch = nodes.run(nodes.store.head("news")).epoch
    nodes["b"].hearing.seen("news", epoch, 1)
    nodes.settle()
    assert phone.payloads == [b"1"]
    nodes["b"].hearing.seen("news", epoch, 1)
    nodes["b"].hearing.seen("unheard of", epoch, 1)
    nodes.settle()
    assert phone.payloads == [b"1"]


def test_a_node_says_what_it_follows_when_it_begins_and_ends() -> None:
    nodes = Nodes("a")
    first, second = nodes["a"].connect("d", "news"), nodes["a"].connect("e", "news")
    assert nodes["a"].followed == {"device:d", "device:e", "news"}
    first.leave()
    assert nodes["a"].followed == {"device:e", "news"}
    second.leave()
    assert nodes["a"].followed == set()


def test_its_own_publication_is_not_offered_twice_when_it_is_heard_again() -> None:
    nodes = Nodes("a")
    phone = nodes["a"].connect("d", "news")
    nodes["a"].publish("news", b"1")
    nodes.settle()
    nodes.carry()
    assert phone.payloads == [b"1"]


# ----------------------------------------------------------------------------------------------------------------- one owner


def test_a_device_that_connects_elsewhere_loses_its_older_connection() -> None:
    nodes = Nodes("a", "b")
    older = nodes["a"].connect("d")
    newer = nodes["b"].connect("d")
    nodes.carry()
    assert (older.closed, newer.closed) == (Code.REPLACED, None)


def test_of_two_that_connect_at_once_one_stays() -> None:
    nodes = Nodes("a", "b", presence_answers=False)
    both = nodes["a"].connect("d"), nodes["b"].connect("d")
    nodes.carry()  # the replaced one hears of it before it knows its own generation
    nodes.answer_presence()
    nodes.carry()
    assert [one.closed for one in both].count(Code.REPLACED) == 1
    assert [one.closed for one in both].count(None) == 1


def test_an_order_that_was_lost_is_made_good_when_the_bus_is_back() -> None:
    nodes = Nodes("a", "b")
    older, other = nodes["a"].connect("d"), nodes["a"].connect("e")
    newer = nodes["b"].connect("d")
    nodes.drop()
    assert older.closed is None
    for node in nodes:
        node.hearing.back()
    nodes.settle()
    assert (older.closed, newer.closed, other.closed) == (Code.REPLACED, None, None)


def test_sessions_that_the_store_has_lost_are_begun_anew_when_the_bus_is_back() -> None:
    nodes = Nodes("a", "b")
    lost, kept = nodes["a"].connect("d", "news"), nodes["b"].connect("e", "news")
    nodes.run(nodes.store.forget_run("a"))
    assert not nodes.run(nodes["b"].service.describe_device("d")).connected
    for node in nodes:
        node.hearing.back()
    nodes.carry()
    assert nodes.run(nodes["b"].service.describe_device("d")).connected
    assert nodes.run(nodes.store.channel_presence("news", 9)).device_ids == ("d", "e")
    assert (lost.closed, kept.closed) == (None, None)
    lost.leave()
    assert nodes.run(nodes.store.session("d")) is None


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_sessions_that_are_begun_anew_the_one_of_the_later_connection_stays(order: str) -> None:
    nodes = Nodes("a", "b")
    older = nodes["a"].connect("d", "news")
    for node in nodes:
        node.world.now += 60
    newer = nodes["b"].connect("d", "news")
    nodes.drop()  # what would have told the node a that its connection was replaced
    for node in nodes:
        node.world.now += 60
        nodes.run(nodes.store.forget_run(node.name))
    for name in order:
        nodes[name].service.connections.lost("d", nodes[name].service.presence.generation("d"))
        nodes.settle()
    nodes.carry()
    assert (older.closed, newer.closed) == (Code.REPLACED, None)
    older.leave()
    nodes.carry()
    session = nodes.run(nodes.store.session("d"))
    assert session is not None
    assert session.node == "b"
    assert nodes.run(nodes.store.channel_presence("news", 9)).device_ids == ("d",)


def test_a_node_lives_again_as_soon_as_the_store_is_back() -> None:
    nodes = Nodes("a", "b")
    nodes["a"].connect("d")
    nodes.run(nodes["a"].service.presence.live(90.0))
    nodes.run(nodes.store.extend_run("a", 999_999))  # as if the store had been away for longer
    assert not nodes.run(nodes["b"].service.describe_device("d")).connected
    nodes["a"].hearing.back()
    nodes.settle()
    assert nodes.run(nodes["b"].service.describe_device("d")).connected


def test_a_device_that_has_left_while_the_store_was_asked_is_not_begun_anew() -> None:
    nodes = Nodes("a")
    phone = nodes["a"].connect("d")
    ((_, generation),) = nodes["a"].service.connections.generations()
    phone.leave()
    nodes["a"].service.connections.lost("d", generation)
    again = nodes["a"].connect("d")
    nodes["a"].service.connections.lost("d", generation)  # that of before
    nodes.settle()
    assert nodes["a"].service.connections.generations() == [("d", generation + 1)]
    assert again.closed is None


def test_an_order_for_a_device_that_is_gone_or_newer_here_is_harmless() -> None:
    nodes = Nodes("a")
    phone = nodes["a"].connect("d")
    nodes["a"].hearing.ordered(Order(OrderKind.REPLACED, "d", number=0))
    nodes["a"].hearing.ordered(Order(OrderKind.REPLACED, "gone", number=99))
    for kind in OrderKind:
        nodes["a"].hearing.ordered(Order(kind, "gone", "news"))
    nodes.settle()
    assert phone.closed is None


# ------------------------------------------------------------------------------------------------- backends, on another node


def test_a_backend_disconnects_a_device_of_another_node() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d")
    assert nodes.run(nodes["a"].service.disconnect_device("d", "by the operator"))
    nodes.carry()
    assert phone.closed is Code.CONNECTION_TIMED_OUT
    phone.leave()
    assert not nodes.run(nodes["a"].service.disconnect_device("d", "by the operator"))


def test_a_backend_subscribes_a_device_of_another_node_and_ends_that() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d")
    assert nodes.run(nodes["a"].service.subscribe_device("d", "news"))
    nodes.carry()
    nodes["a"].publish("news", b"1")
    nodes.carry()
    assert phone.payloads == [b"1"]
    assert nodes.run(nodes["a"].service.unsubscribe_device("d", "news"))
    nodes.carry()
    nodes["a"].publish("news", b"2")
    nodes.carry()
    assert phone.payloads == [b"1"]


def test_a_backend_binds_a_device_of_another_node_to_a_user() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d")
    nodes.run(nodes["a"].service.devices.change("d", DeviceChange(user_id="ada")))
    nodes.carry()
    nodes["a"].publish("user:ada", b"1")
    nodes.carry()
    assert phone.payloads == [b"1"]


def test_the_user_in_the_certificate_of_a_device_of_another_node_wins() -> None:
    nodes = Nodes("a", "b")
    nodes["b"].connect("d", user_id="ada")
    nodes.run(nodes["a"].service.devices.change("d", DeviceChange(user_id="eve")))
    nodes.carry()
    record = nodes.run(nodes.store.device("d"))
    assert record is not None and record.user_id == "ada"


def test_a_device_of_another_node_is_described_as_connected() -> None:
    nodes = Nodes("a", "b")
    phone = nodes["b"].connect("d")
    status = nodes.run(nodes["a"].service.describe_device("d"))
    assert (status.connected, status.address, status.app) == (True, "192.0.2.1:1", "demo")
    phone.leave()
    assert not nodes.run(nodes["a"].service.describe_device("d")).connected


def test_the_hearing_is_one_for_a_bus() -> None:
    nodes = Nodes("a")
    assert isinstance(nodes["a"].hearing, NodeHearing)
