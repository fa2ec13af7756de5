"""Delivery to one device: live and lagging feeds, the receive window, acknowledgements, and what may go wrong in between."""

from __future__ import annotations

from typing import Any

import pytest

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Durability, LossReason, Outcome, Start
from streampush.push.delivery import Attachment
from streampush.push.values import Appended, ConnectionInfo, Position, Publication, PublishRequest, Subscription
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
    position = world.run(world.memory.cursor(device_id, channel))
    return position.offset if position else -1


def lose_log(world: World, channel: str) -> None:
    """The log is gone; its next use begins a new one."""
    del world.memory._logs[channel]


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
    return world.service.attach(device(device_id), link, ConnectionInfo("s", "", 10, 10_000)), link


# ------------------------------------------------------------------------------------------------------- live and lagging


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


async def publish(world: World, channel: str = "news") -> None:
    await world.service.publish(PUBLISHER, PublishRequest(channel, b""))


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


# ----------------------------------------------------------------------------------------------------------------- window


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
    for _ in range(5):
        world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2, 3]
    assert sum(count for (count,) in world.metrics.named("read_from_log")) == 3


def test_acknowledging_a_part_of_what_was_written_together_gives_its_messages_back() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=3)
    for _ in range(3):
        world.publish("news")
    world.settle()
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
    for _ in range(6):
        world.publish("news")
    world.settle()
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
    for _ in range(3):
        world.publish("news")
    world.settle()
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


# -------------------------------------------------------------------------------------------------------- acknowledgements


def test_an_acknowledgement_is_cumulative_and_moves_the_stored_cursor() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    for _ in range(3):
        world.publish("news")
    world.settle()
    attachment.acknowledge("news", 2, Outcome.DELIVERED)
    assert stored(world, "d", "news") == 2
    assert attachment.cursors()[0].acknowledged == 2
    assert world.metrics.named("acknowledged") == [("delivered",)]


def test_an_older_acknowledgement_changes_nothing() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    for _ in range(3):
        world.publish("news")
    world.settle()
    attachment.acknowledge("news", 3, Outcome.PROCESSED)
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    assert stored(world, "d", "news") == 3


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish("news")
    world.settle()
    with pytest.raises(Refused) as caught:
        attachment.acknowledge("news", 2, Outcome.PROCESSED)
    assert caught.value.code is Code.POSITION_LOST
    assert stored(world, "d", "news") == 0


def test_a_channel_that_is_not_followed_cannot_be_acknowledged() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    with pytest.raises(Refused) as caught:
        attachment.acknowledge("sport", 1, Outcome.PROCESSED)
    assert caught.value.code is Code.NOT_SUBSCRIBED


def acknowledged(*acks: tuple[int, Outcome]) -> int:
    """The stored cursor behind five deliveries and these acknowledgements."""
    world = World()
    attachment, _ = world.follower("d", "news")
    for _ in range(5):
        world.publish("news")
    world.settle()
    for offset, outcome in acks:
        attachment.acknowledge("news", offset, outcome)
    return stored(world, "d", "news")


def test_retry_later_keeps_the_cursor_in_front_whatever_comes_behind() -> None:
    assert acknowledged((3, Outcome.RETRY_LATER)) == 2
    assert acknowledged((3, Outcome.RETRY_LATER), (5, Outcome.PROCESSED)) == 2
    assert acknowledged((3, Outcome.RETRY_LATER), (3, Outcome.PROCESSED)) == 2


def test_the_first_retry_later_counts_since_a_later_one_deals_with_all_below() -> None:
    assert acknowledged((2, Outcome.RETRY_LATER), (4, Outcome.RETRY_LATER)) == 1
    assert acknowledged((4, Outcome.RETRY_LATER), (2, Outcome.RETRY_LATER)) == 3


def test_retry_later_of_what_is_acknowledged_already_does_not_hold_the_cursor() -> None:
    assert acknowledged((3, Outcome.PROCESSED), (2, Outcome.RETRY_LATER), (5, Outcome.PROCESSED)) == 5


def test_rejected_counts_as_dealt_with() -> None:
    assert acknowledged((3, Outcome.REJECTED)) == 3


def test_retry_later_gives_its_room_back_and_delivery_goes_on() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    for _ in range(2):
        world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.RETRY_LATER)
    world.settle()
    assert link.offsets("news") == [1, 2]


def test_what_is_wanted_later_comes_again_on_the_next_connection() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    for _ in range(3):
        world.publish("news")
    world.settle()
    attachment.acknowledge("news", 2, Outcome.RETRY_LATER)
    attachment.acknowledge("news", 3, Outcome.PROCESSED)
    world.service.detach(attachment, 0, "gone")
    _, link = world.follower("d", "news")
    assert link.offsets("news") == [2, 3]


def test_a_device_may_acknowledge_inside_the_write() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=1)
    link.hook = lambda: attachment.acknowledge("news", link.frames[-1].offset, Outcome.PROCESSED)
    for _ in range(5):
        world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2, 3, 4, 5]
    assert stored(world, "d", "news") == 5


# ---------------------------------------------------------------------------------------------------------- falling behind


def test_a_reader_that_is_overtaken_by_trimming_is_told_what_it_lost() -> None:
    world = World(limits=StoreConfig(history_messages=2))
    attachment, link = world.follower("d", "news", messages=1)
    for _ in range(5):
        world.publish("news")
        world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    attachment.acknowledge("news", 4, Outcome.PROCESSED)
    world.settle()
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert [(one.offset, one.loss, one.lost_at_most, one.recovered) for one in told] == [(3, LossReason.TRIMMED, 2, False)]
    assert link.offsets("news") == [1, 4, 5]
    assert link.events[-1] == ("backlog_end", "news", 5)
    assert world.metrics.named("positions_lost") == [("trimmed",)]


def test_a_live_feed_notices_a_log_that_was_begun_anew() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    for _ in range(3):
        world.publish("news")
    world.settle()
    lose_log(world, "news")
    world.publish("news")
    world.settle()
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert [(one.loss, one.offset, one.lost_at_most) for one in told] == [(LossReason.EPOCH_CHANGED, 0, 0)]
    assert link.offsets("news") == [1, 2, 3, 1]
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert world.run(world.memory.cursor("d", "news")) == Position(told[0].epoch, 1)


def test_what_was_open_of_a_lost_log_does_not_fill_the_window() -> None:
    world = World()
    attachment, link = world.follower("d", "news", messages=2)
    for _ in range(2):
        world.publish("news")
    world.settle()
    lose_log(world, "news")
    for _ in range(2):
        world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2]  # no room to learn of it
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("news") == [1, 2, 1, 2]


def test_a_publication_of_another_epoch_does_not_continue_what_was_sent() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    world.publish("news")
    world.settle()
    publication = Publication("news", 2, "m2", b"", 0)
    world.fanout.appended(Appended(publication, "another epoch", Durability.MEMORY), world.now)
    world.settle()
    assert link.offsets("news") == [1]
    assert attachment.feeds["news"].live


class ClosingLink(RecordingLink):
    """Its connection ends while it says where delivery goes on."""

    attachment: Attachment | None = None

    def repositioned(self, subscription: Subscription) -> None:
        super().repositioned(subscription)
        assert self.attachment is not None
        self.attachment.detach()


def test_a_connection_that_closes_when_it_is_told_of_a_loss_gets_nothing_more() -> None:
    world = World(limits=StoreConfig(history_messages=1))
    link = ClosingLink()
    link.attachment = world.service.attach(device("d"), link, ConnectionInfo("s", "", 10, 10_000))
    for _ in range(3):
        world.publish("news")
    epoch = world.run(world.memory.head("news")).epoch
    link.attachment.follow(Subscription("news", epoch, 1, 3))
    world.settle()
    assert [event[0] for event in link.events] == ["repositioned"]


# -------------------------------------------------------------------------------------------------------------- the end


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


# --------------------------------------------------------------------------------------------------------- store in trouble


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
