"""Durable subscriptions, a device's own or a backend's: they outlive connections, and nothing between two of them is lost."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from streampush.config import DeliveryConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason, Outcome, Start
from streampush.push.subscriptions import SLICE
from streampush.push.values import (
    ConnectionInfo,
    DeviceRecord,
    Draft,
    Position,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)
from tests.push.slow_world import attach_slow, lose_log, slow_world
from tests.push.world import RecordingLink, World, device, refuses

OPEN = DeliveryConfig(subscribe=("*",))


def backend_world(**limits: Any) -> World:
    """A node whose devices may follow every topic, and which knows the device "d"."""
    world = World(delivery=DeliveryConfig(subscribe=("*",), **limits))
    world.run(world.memory.remember_device(DeviceRecord("d")))
    return world


def welcomed(link: RecordingLink) -> dict[str, Subscription | SubscriptionRefused]:
    (results,) = (event[1] for event in link.events if event[0] == "welcome")
    return {result.channel: result for result in results}


def told(link: RecordingLink) -> list[Any]:
    return [event[1] for event in link.events if event[0] == "repositioned"]


def durable_channels(world: World) -> list[str]:
    return [row.channel for row in world.run(world.memory.subscriptions("d"))]


def refusal(world: World, work: Any) -> Code:
    with pytest.raises(Refused) as caught:
        world.run(work)
    return caught.value.code


# ------------------------------------------------------------------------------------------------------ the device's own


def test_durable_subscription_is_followed_at_the_next_connect_without_being_named() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    assert world.subscribe(attachment, "news", durable=True).durable
    world.service.detach(attachment, 0, "gone")
    world.publish("news")
    _, link = world.connected(device("d"))
    world.settle()
    found = welcomed(link)["news"]
    assert isinstance(found, Subscription)
    assert (found.durable, found.recovered, found.offset) == (True, True, 0)
    assert link.offsets("news") == [1]


def test_another_subscription_ends_with_the_connection() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    assert not world.subscribe(attachment, "news").durable
    world.service.detach(attachment, 0, "gone")
    _, link = world.connected(device("d"))
    assert list(welcomed(link)) == ["device:d"]


def test_place_of_a_durable_subscription_is_stored_before_the_device_is_told() -> None:
    world = World()
    world.publish("news")
    attachment, _ = world.connected(device("d"))
    world.run(world.service.subscribe(attachment, SubscribeRequest("news", durable=True)))  # and then the server crashes
    assert world.run(world.memory.cursors("d"))["news"].offset == 1


def test_position_in_hello_counts_for_a_durable_channel_too() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    world.subscribe(attachment, "news", durable=True)
    first = world.publish("news")
    world.publish("news")
    world.service.detach(attachment, 0, "gone")
    wanted = SubscribeRequest("news", Position(first.epoch, 1, first.message_id))
    _, link = world.connected(device("d"), wanted)
    world.settle()
    found = welcomed(link)["news"]
    assert isinstance(found, Subscription)
    assert (found.durable, found.recovered, found.offset) == (True, True, 1)
    assert link.offsets("news") == [2]


def test_second_subscribe_leaves_a_durable_subscription_durable() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    world.subscribe(attachment, "news", durable=True)
    assert world.subscribe(attachment, "news", start=Start.EARLIEST).durable
    assert durable_channels(world) == ["news"]
    assert attachment.feeds["news"].durable


def test_unsubscribe_ends_a_durable_subscription() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    world.subscribe(attachment, "news", durable=True)
    world.run(world.service.unsubscribe(attachment, "news"))
    world.settle()
    assert (durable_channels(world), list(world.run(world.memory.cursors("d")))) == ([], ["device:d"])
    _, link = world.connected(device("d"))
    assert list(welcomed(link)) == ["device:d"]


def test_own_channels_are_followed_in_any_case_and_take_no_room() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    assert not world.subscribe(attachment, "device:d", durable=True).durable
    assert durable_channels(world) == []


def test_durable_subscriptions_leave_room_for_the_own_channels() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=3))
    attachment, _ = world.connected(device("d", "ada"))
    world.subscribe(attachment, "a", durable=True)
    with refuses(Code.QUOTA_EXCEEDED):
        world.subscribe(attachment, "b", durable=True)
    assert durable_channels(world) == ["a"]


def test_durable_channels_are_followed_before_others_that_are_named() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=2))
    attachment, _ = world.connected(device("d"))
    world.subscribe(attachment, "z", durable=True)
    world.service.detach(attachment, 0, "gone")
    _, link = world.connected(device("d"), SubscribeRequest("a"))
    refused = welcomed(link)["a"]
    assert isinstance(welcomed(link)["z"], Subscription)
    assert isinstance(refused, SubscriptionRefused)
    assert refused.code is Code.QUOTA_EXCEEDED


def test_right_that_was_taken_away_ends_delivery_and_is_named() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    world.subscribe(attachment, "news", durable=True)
    world.service.detach(attachment, 0, "gone")
    attachment, link = world.connected(device("d", topics=("sport",)))
    refused = welcomed(link)["news"]
    assert isinstance(refused, SubscriptionRefused)
    assert (refused.code, set(attachment.feeds)) == (Code.FORBIDDEN, {"device:d"})
    world.run(world.service.unsubscribe(attachment, "news"))  # it can be ended nevertheless
    assert durable_channels(world) == []


def test_loss_on_a_durable_channel_is_named_until_the_device_has_heard_of_it() -> None:
    world = World()
    attachment, _ = world.connected(device("d"))
    world.subscribe(attachment, "news", durable=True)
    world.publish("news")
    world.service.detach(attachment, 0, "gone")
    world.settle()
    lose_log(world, "news")
    world.publish("news")
    for _ in range(2):
        attachment, link = world.connected(device("d"))
        found = welcomed(link)["news"]
        assert isinstance(found, Subscription)
        assert found.loss is LossReason.EPOCH_CHANGED
        world.settle()
        world.service.detach(attachment, 0, "gone")
    assert link.offsets("news") == [1]


# --------------------------------------------------------------------------------------------------------- the backend's


def test_backend_subscribes_a_connected_device_at_once() -> None:
    world = backend_world()
    attachment, link = world.connected(device("d"))
    world.publish("news")
    assert world.run(world.service.subscribe_device("d", "news"))
    world.publish("news")
    world.settle()
    assert [(found.channel, found.offset, found.durable) for found in told(link)] == [("news", 1, True)]
    assert link.offsets("news") == [2]
    assert attachment.feeds["news"].durable


def test_device_that_is_away_finds_what_was_published_since_it_was_subscribed() -> None:
    world = backend_world()
    world.publish("news")
    assert world.run(world.service.subscribe_device("d", "news"))
    world.publish("news")
    _, link = world.connected(device("d"))
    world.settle()
    assert link.offsets("news") == [2]


def test_subscribing_again_changes_nothing_on_the_connection() -> None:
    world = backend_world()
    _, link = world.connected(device("d"))
    assert world.run(world.service.subscribe_device("d", "news"))
    assert not world.run(world.service.subscribe_device("d", "news"))
    assert len(told(link)) == 1


def test_channel_that_the_device_follows_becomes_durable_without_a_word() -> None:
    world = backend_world()
    attachment, link = world.connected(device("d"))
    world.subscribe(attachment, "news")
    assert world.run(world.service.subscribe_device("d", "news"))
    assert (told(link), attachment.feeds["news"].durable) == ([], True)
    world.service.detach(attachment, 0, "gone")
    _, link = world.connected(device("d"))
    assert "news" in welcomed(link)


def test_repeated_request_repairs_what_the_first_one_could_not_finish() -> None:
    world = backend_world()
    world.run(world.memory.add_subscription("d", "news", 1, 10))  # and then the server crashed
    world.publish("news")
    assert not world.run(world.service.subscribe_device("d", "news"))
    assert world.run(world.memory.cursors("d"))["news"].offset == 1


def test_backend_ends_a_subscription_of_a_connected_device() -> None:
    world = backend_world()
    _, link = world.connected(device("d"))
    world.run(world.service.subscribe_device("d", "news"))
    assert world.run(world.service.unsubscribe_device("d", "news"))
    world.publish("news")
    world.settle()
    assert [(found.channel, getattr(found, "code", 0)) for found in told(link)] == [("news", 0), ("news", Code.NOT_SUBSCRIBED)]
    assert (link.offsets("news"), world.fanout.followers("news")) == ([], 0)
    assert "news" not in world.run(world.memory.cursors("d"))


def test_ending_what_is_not_durable_leaves_the_connection_as_it_is() -> None:
    world = backend_world()
    attachment, link = world.connected(device("d"))
    world.subscribe(attachment, "news")
    assert not world.run(world.service.unsubscribe_device("d", "news"))
    assert (told(link), "news" in attachment.feeds) == ([], True)


def test_acknowledgement_that_comes_behind_the_end_stores_no_cursor() -> None:
    world = backend_world()
    attachment, _ = world.connected(device("d"))
    world.run(world.service.subscribe_device("d", "news"))
    world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.run(world.service.unsubscribe_device("d", "news"))
    world.settle()
    assert "news" not in world.run(world.memory.cursors("d"))


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("device:d", Code.FORBIDDEN),
        ("user:ada", Code.FORBIDDEN),
        ("$probe", Code.FORBIDDEN),
        ("a b", Code.UNKNOWN_RECIPIENT),
        ("secret", Code.FORBIDDEN),
    ],
)
def test_backend_cannot_subscribe_a_device_to_what_it_may_not_follow(channel: str, code: Code) -> None:
    world = World(delivery=DeliveryConfig(subscribe=("news/*",)))
    world.run(world.memory.remember_device(DeviceRecord("d", "ada")))
    assert refusal(world, world.service.subscribe_device("d", channel)) is code
    assert durable_channels(world) == []
    assert world.metrics.named("refused") == [(code,)]


def test_rules_with_the_user_in_them_count_for_the_stored_user() -> None:
    world = World(delivery=DeliveryConfig(subscribe=("inbox/{user}",)))
    world.run(world.memory.remember_device(DeviceRecord("d", "ada")))
    assert world.run(world.service.subscribe_device("d", "inbox/ada"))
    assert refusal(world, world.service.subscribe_device("d", "inbox/bob")) is Code.FORBIDDEN


def test_device_that_was_never_seen_is_not_subscribed() -> None:
    world = World(delivery=OPEN)
    assert refusal(world, world.service.subscribe_device("d", "news")) is Code.UNKNOWN_RECIPIENT
    assert refusal(world, world.service.unsubscribe_device("d", "news")) is Code.UNKNOWN_RECIPIENT


def test_hundred_thousand_subscriptions_of_one_device_end_at_the_limit() -> None:
    world = backend_world(max_subscriptions=5)
    for number in range(4):
        world.run(world.service.subscribe_device("d", f"topic/{number}"))
    assert refusal(world, world.service.subscribe_device("d", "topic/4")) is Code.QUOTA_EXCEEDED
    assert len(durable_channels(world)) == 4


def test_connection_that_is_full_is_told_that_there_is_no_room() -> None:
    world = backend_world(max_subscriptions=2)
    attachment, link = world.connected(device("d"))
    world.subscribe(attachment, "sport")
    assert world.run(world.service.subscribe_device("d", "news"))
    world.publish("news")
    world.settle()
    assert [(found.channel, found.code) for found in told(link)] == [("news", Code.QUOTA_EXCEEDED)]
    world.service.detach(attachment, 0, "gone")
    _, link = world.connected(device("d"))
    world.settle()
    assert link.offsets("news") == [1]


# ---------------------------------------------------------------------------------------------------- while it is greeted


def test_what_a_backend_changes_during_the_greeting_is_told_behind_the_welcome() -> None:
    world = backend_world()
    world.run(world.service.subscribe_device("d", "old"))
    link = RecordingLink()
    attachment = world.service.attach(device("d"), link, ConnectionInfo("s", "", 10, 10_000))
    world.run(world.service.resume(attachment, ()))
    world.run(world.service.subscribe_device("d", "new"))
    world.run(world.service.unsubscribe_device("d", "old"))
    assert link.events == []
    attachment.begin()
    assert [found.channel for found in told(link)] == ["new", "old"]
    assert (set(attachment.feeds), attachment.durable) == ({"device:d", "new"}, {"new"})


def test_connection_that_ends_during_the_greeting_is_told_nothing() -> None:
    world = backend_world()
    link = RecordingLink()
    attachment = world.service.attach(device("d"), link, ConnectionInfo("s", "", 10, 10_000))
    world.run(world.service.subscribe_device("d", "new"))
    world.service.detach(attachment, 0, "gone")
    attachment.begin()
    assert (link.events, world.fanout.followers("new")) == ([], 0)


def test_device_is_welcomed_only_if_the_store_tells_what_it_follows() -> None:
    world, store = slow_world()
    attachment = world.service.attach(device("d"), RecordingLink(), ConnectionInfo("s", "", 10, 10_000))
    failed: list[Any] = []
    work = Deferred.fromCoroutine(world.service.resume(attachment, ()))
    work.addErrback(lambda failure: failed.append(failure.value.code))
    store.take("subscriptions").fail()
    assert failed == [Code.STORE_UNAVAILABLE]


def test_subscribe_and_unsubscribe_at_once_leave_store_and_connection_alike() -> None:
    """In whatever order the store answers, the device follows what is stored."""
    world, store = slow_world(delivery=OPEN)
    world.run(world.memory.remember_device(DeviceRecord("d")))
    attachment = world.service.attach(device("d"), RecordingLink(), ConnectionInfo("s", "", 10, 10_000))
    attachment.begin()
    done: list[bool] = []
    Deferred.fromCoroutine(world.service.subscribe_device("d", "news")).addCallback(done.append)
    Deferred.fromCoroutine(world.service.unsubscribe_device("d", "news")).addCallback(done.append)
    while len(done) < 2:
        store.finish()
        world.settle()
    assert (done, durable_channels(world)) == ([True, True], [])
    assert "news" not in attachment.feeds


async def _durable(world: World, attachment: Any, channel: str) -> None:
    attachment.follow(await world.service.subscribe(attachment, SubscribeRequest(channel, durable=True)))


def test_durable_subscriptions_that_are_made_at_the_same_time_are_bounded_too() -> None:
    world, store = slow_world(delivery=DeliveryConfig(max_subscriptions=2))
    world.run(world.memory.remember_device(DeviceRecord("d")))
    attachment = world.service.attach(device("d"), RecordingLink(), ConnectionInfo("s", "", 10, 10_000))
    for channel in ("a", "b", "c"):
        world.spawn(_durable(world, attachment, channel))
    while store.calls:
        store.finish()
        world.settle()
    assert (list(attachment.feeds), durable_channels(world)) == (["a"], ["a"])
    assert [failure.code for failure in world.failures if isinstance(failure, Refused)] == [Code.QUOTA_EXCEEDED] * 2


# ------------------------------------------------------------------------------------------------------------ many channels


def test_greeting_with_many_channels_lets_others_have_their_turn() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=1_001))
    attachment = world.service.attach(device("d"), RecordingLink(), ConnectionInfo("s", "", 10, 10_000))
    world.run(world.service.remember(device("d")))
    done: list[Any] = []
    wanted = [SubscribeRequest(f"topic/{number}") for number in range(1_000)]
    Deferred.fromCoroutine(world.service.resume(attachment, wanted)).addCallback(done.append)
    most, turns = len(attachment.feeds), 0
    while not done:
        before = len(attachment.feeds)
        world.turn()
        most, turns = max(most, len(attachment.feeds) - before), turns + 1
    assert (len(done[0]), len(attachment.feeds)) == (1_001, 1_001)
    assert most <= SLICE
    assert turns >= 3 * (1_001 // SLICE)  # each channel is looked at three times


def test_nothing_is_delivered_before_the_welcome_and_everything_behind_it() -> None:
    world = World()
    link = RecordingLink()
    attachment = world.service.attach(device("d"), link, ConnectionInfo("s", "", 10, 10_000))
    world.run(world.service.remember(device("d")))
    world.run(world.service.resume(attachment, ()))
    world.publish("device:d")
    world.settle()
    assert link.events == []
    attachment.begin()
    world.settle()
    assert link.offsets("device:d") == [1]


def test_connection_that_ends_while_many_channels_are_looked_at_follows_none() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=1_001))
    attachment = world.service.attach(device("d"), RecordingLink(), ConnectionInfo("s", "", 10, 10_000))
    world.run(world.service.remember(device("d")))
    world.spawn(_resume(world, attachment))
    while not attachment.feeds:
        world.turn()
    world.service.detach(attachment, 0, "gone")
    world.settle()
    assert (world.failures, attachment.feeds, world.fanout._channels) == ([], {}, {})


async def _resume(world: World, attachment: Any) -> None:
    await world.service.resume(attachment, [SubscribeRequest(f"topic/{number}") for number in range(1_000)])


# ----------------------------------------------------------------------------------------------------- the store is away


def test_end_that_could_not_be_stored_can_be_asked_for_again() -> None:
    world, store = slow_world(delivery=OPEN)
    world.run(world.memory.remember_device(DeviceRecord("d")))
    attachment, _ = attach_slow(world)
    world.spawn(_durable(world, attachment, "news"))
    while store.calls:
        store.finish()
        world.settle()
    codes: list[Code] = []
    for fails in (True, False):
        work = Deferred.fromCoroutine(world.service.unsubscribe(attachment, "news"))
        work.addErrback(lambda failure: codes.append(failure.value.code))
        if fails:
            store.fail("remove_subscription")
        while store.calls:
            store.finish()
            world.settle()
    assert (codes, durable_channels(world)) == ([Code.STORE_UNAVAILABLE], [])
    assert ("news" in attachment.feeds, "news" in world.run(world.memory.cursors("d"))) == (False, False)


def test_subscription_without_a_stored_place_is_not_told() -> None:
    world, store = slow_world(delivery=OPEN)
    world.run(world.memory.remember_device(DeviceRecord("d")))
    attachment, link = attach_slow(world)
    world.spawn(_durable(world, attachment, "news"))
    store.finish("add_subscription")
    store.finish("survey")
    store.finish("survey")
    store.fail("record")
    assert [failure.code for failure in world.failures if isinstance(failure, Refused)] == [Code.STORE_UNAVAILABLE]
    assert (attachment.feeds, link.events) == ({}, [])


def test_connections_of_a_device_agree_on_its_first_place() -> None:
    """Else one that is gone could store a later one behind the place that the other was told."""
    world, store = slow_world(delivery=OPEN)
    places: list[int] = []
    attachments = [attach_slow(world)[0] for _ in range(2)]
    for attachment in attachments:
        work = Deferred.fromCoroutine(world.service.subscribe(attachment, SubscribeRequest("news")))
        work.addCallback(lambda found: places.append(found.offset))
    while store.calls:
        store.finish()
        world.settle()
        world.run(world.memory.append(Draft("news", world.new_id(0), b"", world.wall_ms())))
    assert places[0] == places[1] == world.run(world.memory.cursors("d"))["news"].offset
