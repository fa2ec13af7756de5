"""Delivery when connections end at the wrong moment and the store is in trouble."""

from __future__ import annotations

from typing import Any

from streampush.protocol.codes import Code
from streampush.protocol.terms import Start
from streampush.push.values import Subscription
from tests.push.slow_world import attach_slow, publish, slow_world
from tests.push.world import World, device, encode


def test_behind_detach_nothing_is_written_and_nothing_refers_to_it() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    world.publish("news")
    attachment.detach()
    world.settle()
    assert link.writes == []
    assert world.fanout._channels == {}
    attachment.room_again()
    attachment.credit(1, 1)
    assert world.turns == []


def test_a_page_that_arrives_behind_detach_is_not_written() -> None:
    world, store = slow_world()
    world.run(world.memory.head("news"))
    attachment, link = attach_slow(world)
    attachment.follow(Subscription("news", "epoch", 0, 0))
    world.turn()
    world.spawn(publish(world))
    store.finish("append")
    attachment.detach()
    store.finish("read")
    world.settle()
    assert link.events == []


def test_a_page_of_a_subscription_that_began_anew_is_not_written() -> None:
    world, store = slow_world()
    attachment, link = attach_slow(world)
    world.spawn(publish(world))
    store.finish("append")
    attachment.follow(Subscription("news", "epoch", 0, 1))
    world.turn()
    attachment.follow(Subscription("news", "epoch", 1, 1))
    store.finish("read")
    world.settle()
    store.finish("read")
    world.settle()
    assert link.events == [("backlog_end", "news", 1)]


def test_a_connection_that_closes_inside_a_write_gets_nothing_more() -> None:
    world = World()
    for _ in range(3):
        world.publish("news")
    attachment, link = world.attach(device("d"), messages=100, size=10)
    link.hook = attachment.detach
    attachment.credit(0, 100_000)
    world.subscribe(attachment, "news", start=Start.EARLIEST)
    world.settle()
    assert len(link.writes) == 1
    assert link.events == [("deliver", 3)]


def test_following_on_a_connection_that_is_gone_leaves_nothing_in_the_fanout() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.settle()
    attachment.detach()
    attachment.follow(Subscription("news", "e", 0, 0))
    assert (attachment.feeds, world.fanout._channels, world.turns) == ({}, {}, [])


def test_a_write_that_fails_closes_the_connection_and_holds_nothing() -> None:
    world = World()
    for _ in range(2):
        world.publish("news")
    attachment, link = world.attach(device("d"))

    def fail() -> None:
        raise OSError("broken")

    link.hook = fail
    world.subscribe(attachment, "news", start=Start.EARLIEST)
    world.settle()
    assert link.closed is not None
    assert link.closed[0] is Code.CONNECTION_TIMED_OUT
    assert [type(failure) for failure in world.failures] == [OSError]
    assert (world.fanout._channels, world.later) == ({}, [])


def test_a_store_that_is_away_is_asked_again_later_and_not_at_once() -> None:
    world, store = slow_world()
    attachment, link = attach_slow(world)
    world.spawn(publish(world))
    store.finish("append")
    attachment.follow(Subscription("news", "epoch", 0, 1))
    world.turn()
    store.fail("read")
    world.settle()
    assert [call.name for call in store.calls if call.name == "read"] == []
    assert len(world.later) == 1
    world.pause()
    store.finish("read")
    world.settle()
    assert link.offsets("news") == [1]


def test_waiting_for_the_store_begins_once_however_often_it_fails() -> None:
    world, store = slow_world()
    attachment, _ = attach_slow(world)
    attachment.follow(Subscription("news", "epoch", 0, 1))
    for _ in range(5):
        world.turn()
        store.fail("read")
        attachment.room_again()
    assert len(world.later) == 1


def test_an_unexpected_failure_is_raised_and_delivery_goes_on_later() -> None:
    broken = [True]

    def encoder(publication: Any) -> bytes:
        if broken[0] and publication.channel == "bad":
            raise ValueError("cannot be encoded")
        return encode(publication)

    world = World(encoder=encoder)
    attachment, link = world.attach(device("d"))
    for channel in ("bad", "good"):
        world.publish(channel)
        world.subscribe(attachment, channel, start=Start.EARLIEST)
    world.settle()
    world.pause()
    assert link.offsets("good") == [1]
    assert {type(failure) for failure in world.failures} == {ValueError}
    broken[0] = False
    world.pause()
    assert link.offsets("bad") == [1]
