"""What waits for a device, counted and listed."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import Outcome
from streampush.push import backlog
from streampush.push.backlog import BacklogPage, ChannelBacklog
from streampush.push.values import CursorMove, DeviceRecord, PublishRequest, Subscription
from tests.push.slow_world import attach_slow, lose_log, publish, slow_world
from tests.push.world import PUBLISHER, World, refuses


def known(**settings: Any) -> World:
    world = World(**settings)
    world.run(world.memory.remember_device(DeviceRecord("d", "ada")))
    return world


def place(world: World, channel: str, offset: int) -> None:
    head = world.run(world.memory.head(channel))
    world.run(world.memory.record([CursorMove("d", channel, head.epoch, offset)]))


def rows(world: World) -> dict[str, ChannelBacklog]:
    return {row.channel: row for row in world.run(world.service.backlog.channels("d"))}


def page(world: World, channel: str, after: int = 0, limit: int = 1000) -> BacklogPage:
    return world.run(world.service.backlog.entries("d", channel, after, limit))


def test_device_that_never_connected_has_its_own_channel_only() -> None:
    world = known()
    world.publish("device:d")
    assert {name: row.waiting for name, row in rows(world).items()} == {"device:d": 1}


def test_what_is_behind_the_cursor_waits() -> None:
    world = known()
    for _ in range(5):
        world.publish("news")
    place(world, "news", 2)
    row = rows(world)["news"]
    assert (row.acknowledged, row.top, row.waiting, row.lost, row.restarted) == (2, 5, 3, 0, False)


def test_acknowledgement_counts_before_it_is_stored() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish_many(3, "news")
    attachment.acknowledge("news", 2, Outcome.DELIVERED)
    assert rows(world)["news"].waiting == 1
    assert [entry.offset for entry in page(world, "news").entries] == [3]


def test_what_has_expired_does_not_wait() -> None:
    world = known()
    place(world, "news", 0)
    world.publish("news", ttl=1.0)
    world.publish("news")
    world.now += 2
    assert rows(world)["news"].waiting == 1
    assert [entry.offset for entry in page(world, "news").entries] == [2]


def test_what_has_expired_does_not_wait_for_a_device_that_never_connected() -> None:
    world = known()
    world.publish("device:d", ttl=1.0)
    world.publish("device:d")
    world.now += 2
    assert rows(world)["device:d"].waiting == 1


def publish_as(world: World, channel: str, collapse_key: str) -> str:
    return world.run(world.service.publish(PUBLISHER, PublishRequest(channel, b"", collapse_key=collapse_key))).message_id


def test_what_a_newer_message_stands_for_does_not_wait() -> None:
    world = known()
    place(world, "news", 0)
    for _ in range(5):
        publish_as(world, "news", "k")
    assert (rows(world)["news"].top, rows(world)["news"].waiting) == (5, 1)


def test_what_was_recalled_does_not_wait_and_its_notice_does() -> None:
    world = known()
    place(world, "news", 0)
    back = [world.publish("news").message_id for _ in range(3)]
    for message_id in back[:2]:
        world.run(world.service.recall(PUBLISHER, message_id))
    assert (rows(world)["news"].top, rows(world)["news"].waiting) == (5, 3)
    assert len(page(world, "news").entries) == 3


def test_behind_what_is_counted_every_offset_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_COUNTED", 4)
    monkeypatch.setattr(backlog, "MAX_COUNTED_OF_ALL", 6)
    world = known()
    for channel, count in (("large", 9), ("middle", 5), ("small", 3)):
        place(world, channel, 0)
        for _ in range(count):
            publish_as(world, channel, "k")
    found = {name: row.waiting for name, row in rows(world).items()}
    # small: 3 counted, 1 waits; middle: 3 of 5 counted, none waits, 2 more; large: none counted
    assert found == {"device:d": 0, "small": 1, "middle": 2, "large": 9}


def test_what_waits_behind_a_trimmed_place_is_counted_from_the_oldest_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_COUNTED", 4)
    world = known(limits=StoreConfig(history_messages=4))
    place(world, "news", 0)
    for key in ("", "", "", "", "k", "k", "k", ""):
        publish_as(world, "news", key)
    row = rows(world)["news"]
    assert (row.lost, row.waiting) == (4, 2)


def test_what_has_left_the_log_is_lost_and_does_not_wait() -> None:
    world = known(limits=StoreConfig(history_messages=3))
    place(world, "news", 0)
    for _ in range(10):
        world.publish("news")
    row = rows(world)["news"]
    assert (row.waiting, row.lost, row.restarted) == (3, 7, False)


def test_log_that_was_begun_anew_waits_as_a_whole() -> None:
    world = known()
    world.publish("news")
    place(world, "news", 1)
    lose_log(world, "news")
    world.publish("news")
    row = rows(world)["news"]
    assert (row.waiting, row.lost, row.restarted) == (1, 0, True)


def test_durable_subscription_is_told_from_one_of_a_connection() -> None:
    world = known()
    for channel in ("news", "sport"):
        place(world, channel, 0)
    world.run(world.memory.add_subscription("d", "news", 1, 10))
    assert {name: row.durable for name, row in rows(world).items()} == {"device:d": False, "news": True, "sport": False}


def test_entries_are_listed_in_pages_without_payload() -> None:
    world = known()
    place(world, "news", 1)
    for number in range(6):
        world.publish("news", b"x" * number)
    first = page(world, "news", limit=2)
    assert [(entry.offset, entry.size) for entry in first.entries] == [(2, 1), (3, 2)]
    offsets, following = [], first.following
    while following is not None:
        more = page(world, "news", following, 2)
        offsets += [entry.offset for entry in more.entries]
        following = more.following
    assert offsets == [4, 5, 6]
    assert "payload" not in repr(first)


def test_entries_that_are_acknowledged_are_not_listed_whatever_is_asked_for() -> None:
    world = known()
    for _ in range(3):
        world.publish("news")
    place(world, "news", 2)
    assert [entry.offset for entry in page(world, "news", after=0).entries] == [3]


def test_one_page_reads_no_more_payload_than_a_delivery_does() -> None:
    world = known(delivery=DeliveryConfig(page_bytes=1024))
    place(world, "news", 0)
    for _ in range(4):
        world.publish("news", bytes(600))
    found = page(world, "news")
    assert ([entry.offset for entry in found.entries], found.following) == ([1], 1)


def test_end_of_the_log_is_the_end_of_the_pages() -> None:
    world = known()
    world.publish("device:d")
    assert page(world, "device:d").following is None
    assert page(world, "device:d", after=10**18 - 1).entries == ()


@pytest.mark.parametrize(
    ("device_id", "channel", "code"),
    [
        ("nobody", "device:nobody", Code.UNKNOWN_RECIPIENT),
        ("d", "no name", Code.UNKNOWN_RECIPIENT),
        ("d", "news", Code.NOT_SUBSCRIBED),
        ("d", "device:other", Code.NOT_SUBSCRIBED),
    ],
)
def test_question_that_has_no_answer_is_refused(device_id: str, channel: str, code: Code) -> None:
    world = known()
    world.publish("news")
    with pytest.raises(Refused) as caught:
        world.run(world.service.backlog.entries(device_id, channel, 0, 10))
    assert caught.value.code is code


def test_backlog_of_an_unknown_device_is_refused() -> None:
    with refuses(Code.UNKNOWN_RECIPIENT):
        World().run(World().service.backlog.channels("d"))


def test_device_that_is_connected_and_up_to_date_has_nothing_waiting() -> None:
    world = World()
    world.follower("d", "news")
    assert rows(world)["news"].waiting == 0


def test_what_is_published_and_acknowledged_while_the_store_answers_is_no_log_that_was_begun_anew() -> None:
    world, store = slow_world()
    world.run(world.memory.remember_device(DeviceRecord("d")))
    attachment, _ = attach_slow(world)
    attachment.follow(Subscription("device:d", "epoch", 0, 0))
    world.settle()
    store.finish("read")
    world.settle()
    asked: list[tuple[ChannelBacklog, ...]] = []
    Deferred.fromCoroutine(world.service.backlog.channels("d")).addCallback(asked.append)
    for name in ("device", "subscriptions", "cursors"):
        store.finish(name)
    surveying = store.take("survey")
    surveying.act()  # as of now
    world.spawn(publish(world, "device:d"))
    store.finish("append")
    world.settle()
    attachment.acknowledge("device:d", 1, Outcome.DELIVERED)
    surveying.finish()
    ((row,),) = asked
    assert (row.restarted, row.acknowledged, row.top, row.waiting) == (False, 0, 0, 0)


def test_what_left_its_own_log_before_a_device_was_ever_there_is_lost() -> None:
    world = known(limits=StoreConfig(history_messages=3))
    for _ in range(5):
        world.publish("device:d")
    row = rows(world)["device:d"]
    assert (row.acknowledged, row.top, row.waiting, row.lost) == (0, 5, 3, 2)
    assert [entry.offset for entry in page(world, "device:d").entries] == [3, 4, 5]
