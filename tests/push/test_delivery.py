"""Delivery to one device: live and lagging feeds, and the receive window."""

from __future__ import annotations

import pytest

from streampush.config import DeliveryConfig
from streampush.protocol.terms import Outcome, Start
from streampush.push.values import Subscription
from tests.push.slow_world import FRAME, attach_slow, fixed, publish, slow_world
from tests.push.world import World, device


def test_a_live_feed_takes_what_the_fanout_offers_without_reading_the_log() -> None:
    world = World()
    _, link = world.follower("d", "news")
    world.publish("news")
    world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2]
    assert world.metrics.named("read_from_log") == []


def test_a_backlog_is_read_in_order_and_its_end_is_told_once() -> None:
    world = World(delivery=DeliveryConfig(page_messages=2))
    for _ in range(5):
        world.publish("news")
    attachment, link = world.attach(device("d"))
    world.subscribe(attachment, "news", start=Start.EARLIEST)
    world.settle()
    world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5, 6]
    ends = [event for event in link.events if event[0] == "backlog_end"]
    assert ends == [("backlog_end", "news", 5)]
    assert link.events.index(ends[0]) == len(link.events) - 2


def test_a_feed_that_lagged_and_is_live_again_has_no_second_backlog() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    for _ in range(2):
        world.publish("news")
        world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert attachment.feeds["news"].live
    assert [event[0] for event in link.events] == ["backlog_end", "deliver", "deliver"]


def test_the_log_is_read_for_one_channel_at_a_time() -> None:
    world, store = slow_world()
    attachment, _ = attach_slow(world)
    for channel in ("a", "b", "c"):
        attachment.follow(Subscription(channel, "epoch", 0, 0))
    for _ in range(3):
        world.turn()
        attachment.room_again()
    assert [call.name for call in store.calls].count("read") == 1


def test_an_empty_backlog_ends_at_once() -> None:
    world = World()
    world.publish("news")
    _, link = world.follower("d", "news")
    assert link.events == [("backlog_end", "news", 1)]


def test_nothing_is_delivered_before_follow() -> None:
    world = World()
    _, link = world.attach(device("d"))
    world.publish("device:d")
    world.settle()
    assert link.events == []


def test_an_offer_with_a_gap_makes_the_feed_read_the_log() -> None:
    world, store = slow_world()
    attachment, link = attach_slow(world)
    attachment.follow(Subscription("news", "epoch", 0, 0))
    world.turn()
    store.finish("read")
    world.settle()
    for _ in range(2):
        world.spawn(publish(world))
    for call in [call for call in store.calls if call.name == "append"]:
        call.act()
    late = store.take("append")
    store.finish("append")  # 2 is told first
    world.turn()
    world.turn()
    store.finish("read")
    late.finish()
    world.settle()
    assert link.offsets("news") == [1, 2]


def test_what_is_appended_while_the_log_is_read_is_neither_missed_nor_repeated() -> None:
    world, store = slow_world()
    attachment, link = attach_slow(world)
    attachment.follow(Subscription("news", "epoch", 0, 0))
    world.turn()
    next(call for call in store.calls if call.name == "read").act()  # the page is empty
    world.spawn(publish(world))
    store.finish("append")
    world.turn()  # offered, and not taken: the feed is not live
    assert link.writes == []
    store.finish("read")
    world.settle()
    store.finish("read")
    world.settle()
    assert link.offsets("news") == [1]
    assert attachment.feeds["news"].live


def test_a_hint_of_something_that_is_not_there_does_not_keep_the_pump_busy() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    epoch = world.run(world.memory.head("news")).epoch
    attachment.follow(Subscription("news", epoch, 0, 7))
    world.settle()
    assert attachment.feeds["news"].live
    assert attachment.cursors()[0].top == 0


def test_expired_publications_are_passed_over() -> None:
    world = World()
    attachment, link = world.attach(device("d"))
    world.publish("news", ttl=1)
    world.publish("news")
    world.publish("news", ttl=1)
    world.now += 1
    world.subscribe(attachment, "news", start=Start.EARLIEST)
    world.settle()
    assert link.offsets("news") == [2]
    assert link.events[-1] == ("backlog_end", "news", 3)
    assert attachment.feeds["news"].sent == 3


def test_the_window_in_messages_is_filled_and_no_more() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=3)
    for _ in range(5):
        world.publish("news")
        world.settle()
    assert link.offsets("news") == [1, 2, 3]
    attachment.acknowledge("news", 2, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5]


def test_the_window_in_bytes_is_filled_and_no_more() -> None:
    world = World(encoder=fixed)
    attachment, link = world.follower("d", "news", size=2 * FRAME)
    for _ in range(4):
        world.publish("news")
        world.settle()
    assert link.offsets("news") == [1, 2]
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 3]


def test_the_window_is_shared_by_all_channels() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=2)
    world.subscribe(attachment, "sport")
    world.settle()
    for channel in ("news", "sport", "sport"):
        world.publish(channel)
        world.settle()
    assert len(link.frames) == 2
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("sport") == [1, 2]


@pytest.mark.parametrize("live", [True, False])
def test_a_message_larger_than_the_window_goes_alone_when_nothing_is_open(live: bool) -> None:
    world = World(encoder=fixed)
    attachment, link = world.attach(device("d"), size=2 * FRAME)
    if live:
        world.subscribe(attachment, "news")
        world.settle()
    world.publish("news")
    world.settle()
    world.publish("news", b"xy" * FRAME)
    world.settle()
    if not live:
        world.subscribe(attachment, "news", start=Start.EARLIEST)
        world.settle()
    assert link.offsets("news") == [1]
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2]
    world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2]


def test_a_run_larger_than_the_window_is_read_from_the_log_as_far_as_it_goes() -> None:
    world = World()
    _, link = world.follower("d", "news", messages=3)
    world.publish_many(5, "news")
    assert link.offsets("news") == [1, 2, 3]
    assert sum(count for (count,) in world.metrics.named("read_from_log")) == 3


def test_acknowledging_a_part_of_what_was_written_together_gives_its_messages_back() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=3)
    world.publish_many(3, "news")
    assert link.events[-1] == ("deliver", 3)
    for _ in range(3):
        world.publish("news")
    attachment.acknowledge("news", 2, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5]
    attachment.acknowledge("news", 5, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5, 6]


def test_credit_replaces_the_window_and_zero_leaves_it() -> None:
    world = World(encoder=fixed)
    attachment, link = world.follower("d", "news", messages=1)
    world.publish_many(6, "news")
    attachment.credit(4, 0)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4]
    attachment.credit(0, 5 * FRAME)
    attachment.credit(100, 0)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5]


def test_a_smaller_window_waits_until_it_is_free() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=3)
    for _ in range(5):
        world.publish("news")
        world.settle()
    attachment.credit(1, 0)
    attachment.acknowledge("news", 2, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 3]
    attachment.acknowledge("news", 3, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4]


def test_a_full_send_buffer_stops_delivery_until_there_is_room_again() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    link.room = False
    world.publish_many(3, "news")
    assert link.writes == []
    link.room = True
    attachment.room_again()
    world.settle()
    assert link.offsets("news") == [1, 2, 3]


def test_a_buffer_that_fills_up_inside_a_page_stops_at_that_write() -> None:
    world = World()
    for _ in range(3):
        world.publish("news")
    attachment, link = world.attach(device("d"), messages=100, size=10)  # too few bytes: one write for each message
    link.hook = lambda: setattr(link, "room", False)
    world.subscribe(attachment, "news", start=Start.EARLIEST)
    world.settle()
    assert link.offsets("news") == [1]


def test_leaving_a_channel_gives_its_room_to_the_others() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    world.publish("news")
    world.subscribe(attachment, "sport")
    world.settle()
    world.publish("sport")
    world.settle()
    assert link.offsets("sport") == []
    world.run(world.service.unsubscribe(attachment, "news"))
    world.settle()
    assert link.offsets("sport") == [1]


def test_lagging_channels_take_turns() -> None:
    world = World(delivery=DeliveryConfig(page_messages=1))
    for channel in ("a", "b"):
        for _ in range(3):
            world.publish(channel)
    attachment, link = world.attach(device("d"))
    for channel in ("a", "b"):
        world.subscribe(attachment, channel, start=Start.EARLIEST)
    world.settle()
    assert [frame.channel for frame in link.frames] == ["a", "b"] * 3
