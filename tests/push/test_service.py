"""What the server, the REST API and the probe ask of the service."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Advice, Code
from streampush.protocol.terms import AppState, LossReason, Outcome, Start
from streampush.push.values import (
    ChannelCursor,
    Close,
    ConnectionInfo,
    DeviceRecord,
    Position,
    Principal,
    PushToken,
    SubscribeRequest,
    Subscription,
    SubscriptionRefused,
)
from streampush.store.memory import MemoryStore
from tests.push.slow_world import attach_slow, slow_world
from tests.push.world import RecordingLink, World, device
from tests.store.slow import SlowStore


def code_of(world: World, work: object) -> Code:
    with pytest.raises(Refused) as caught:
        world.run(work)  # type: ignore[arg-type]  # any coroutine
    return caught.value.code


def resumed(world: World, principal: Principal, *wanted: SubscribeRequest) -> list[Subscription | SubscriptionRefused]:
    attachment, _ = world.attach(principal)
    return world.run(world.service.resume(attachment, wanted))


# ------------------------------------------------------------------------------------------------------------- attaching


def test_a_newer_connection_replaces_the_older_one() -> None:
    world = World()
    _, older = world.follower("d", "news")
    _, newer = world.follower("d", "news")
    assert older.closed is not None
    assert older.closed[0] is Code.REPLACED
    world.publish("news")
    world.settle()
    assert (older.writes, newer.offsets("news")) == ([], [1])
    assert world.service.connected_devices() == 1


def test_the_end_of_a_replaced_connection_does_not_touch_its_successor() -> None:
    world = World()
    older, _ = world.follower("d", "news")
    world.follower("d", "news")
    world.service.detach(older, 1006, "replaced")
    assert world.service.connected_devices() == 1
    assert world.fanout.followers("news") == 1
    assert world.run(world.service.describe_device("d")).last_close_code == 0


def test_a_connection_that_is_replaced_while_it_resumes_leaves_nothing_behind() -> None:
    memory = MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch")
    store = SlowStore(memory)
    world = World(store=store)
    info = ConnectionInfo("s", "", 10, 10_000)
    older = world.service.attach(device("d"), RecordingLink(), info)
    results: list[object] = []
    Deferred.fromCoroutine(world.service.resume(older, [])).addCallback(results.extend)
    newer = world.service.attach(device("d"), RecordingLink(), info)
    for name in ("subscriptions", "survey", "survey", "record"):
        store.finish(name)
    assert isinstance(results[0], Subscription)
    older.begin()
    world.service.detach(newer, 0, "gone")
    assert world.fanout._channels == {}
    assert world.service.connected_devices() == 0


def test_detaching_twice_is_harmless() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.service.detach(attachment, 2001, "heartbeat lost")
    world.service.detach(attachment, 1004, "draining")
    status = world.run(world.service.describe_device("d"))
    assert (status.last_close_code, status.last_close_detail) == (2001, "heartbeat lost")
    assert (world.service.connected_devices(), world.fanout._channels) == (0, {})


def test_a_device_is_present_while_its_newest_connection_lasts() -> None:
    world = World()
    older, _ = world.attach(device("d", "u"))
    newer, _ = world.attach(device("d", "u"))
    world.service.detach(older, 1006, "replaced")
    world.settle()
    session = world.run(world.memory.session("d"))
    assert session is not None
    assert (session.node, session.user_id, session.session_id, session.connected_at_ms) == ("node", "u", "session", 1_000_000)
    world.service.detach(newer, 2001, "heartbeat lost")
    world.settle()
    assert world.run(world.memory.session("d")) is None


# -------------------------------------------------------------------------------------------------------------- resuming


def test_a_device_follows_its_own_channels_first_and_then_the_wanted_ones() -> None:
    results = resumed(World(), device("d", "u"), SubscribeRequest("news"), SubscribeRequest("user:u", start=Start.EARLIEST))
    assert [result.channel for result in results] == ["device:d", "user:u", "news"]


def test_one_refused_channel_does_not_stop_the_others() -> None:
    world = World()
    wanted = [SubscribeRequest(channel) for channel in ("device:other", "$probe", "", "news", "sport")]
    results = resumed(world, device("d", topics=("news",)), *wanted)
    codes = [result.code if isinstance(result, SubscriptionRefused) else 0 for result in results]
    assert codes == [0, Code.FORBIDDEN, Code.FORBIDDEN, Code.UNKNOWN_RECIPIENT, 0, Code.FORBIDDEN]
    assert len(world.metrics.named("refused")) == 4


def test_a_store_that_is_away_stops_the_greeting_and_not_single_channels() -> None:
    world, store = slow_world()
    attachment, _ = attach_slow(world)
    resuming = Deferred.fromCoroutine(world.service.resume(attachment, [SubscribeRequest("news")]))
    store.fail("subscriptions")
    failures: list[Any] = []
    resuming.addErrback(failures.append)
    assert failures[0].check(StoreUnavailable)


def test_resuming_is_bounded() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=2))
    results = resumed(world, device("d"), SubscribeRequest("a"), SubscribeRequest("b"))
    assert isinstance(results[1], Subscription)
    assert isinstance(results[2], SubscriptionRefused)
    assert results[2].code is Code.QUOTA_EXCEEDED


def test_a_loss_is_counted() -> None:
    world = World()
    resumed(world, device("d"), SubscribeRequest("news", Position("other", 3, "m")))
    assert world.metrics.named("positions_lost") == [("epoch_changed",)]


def test_what_was_published_while_away_is_delivered_even_if_nothing_was_ever_acknowledged() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.settle()
    world.service.detach(attachment, 0, "gone")
    world.publish("news")
    _, link = world.follower("d", "news")
    assert link.offsets("news") == [1]


def test_what_was_published_while_away_is_delivered_even_if_the_cursor_is_not_stored_yet() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "news")
    world.service.detach(attachment, 0, "gone")
    world.publish("news")
    attachment, link = world.attach(device("d"))
    world.subscribe(attachment, "news")
    world.settle()
    assert link.offsets("news") == [1]


def test_a_loss_is_named_again_until_the_device_has_acknowledged_something_behind_it() -> None:
    world = World(limits=StoreConfig(history_messages=2))
    attachment, _ = world.follower("d", "news")
    world.service.detach(attachment, 0, "gone")
    for _ in range(3):
        world.publish("news")
    for _ in range(2):  # the first time the answer did not reach the device
        attachment, _ = world.attach(device("d"))
        assert world.subscribe(attachment, "news").loss is LossReason.TRIMMED
        world.settle()
    attachment.acknowledge("news", 2, Outcome.PROCESSED)
    world.settle()
    assert world.subscribe(attachment, "news").recovered


# ------------------------------------------------------------------------------------------------------------ subscribing


def test_subscribing_needs_the_right() -> None:
    world = World()
    attachment, _ = world.attach(device("d", topics=("news",)))
    for channel, code in (("sport", Code.FORBIDDEN), ("device:x", Code.FORBIDDEN), ("a b", Code.UNKNOWN_RECIPIENT)):
        assert code_of(world, world.service.subscribe(attachment, SubscribeRequest(channel))) is code
    assert world.metrics.named("refused") == [(Code.FORBIDDEN,), (Code.FORBIDDEN,), (Code.UNKNOWN_RECIPIENT,)]


def test_subscriptions_are_bounded_and_one_that_is_there_may_begin_anew() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=2))
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "a")
    world.subscribe(attachment, "b")
    assert code_of(world, world.service.subscribe(attachment, SubscribeRequest("c"))) is Code.QUOTA_EXCEEDED
    assert world.subscribe(attachment, "b").channel == "b"


def test_subscriptions_that_are_located_at_the_same_time_are_bounded_too() -> None:
    store = SlowStore(MemoryStore(StoreConfig(), lambda: 1, lambda: "epoch"))
    world = World(store=store, delivery=DeliveryConfig(max_subscriptions=1))
    attachment = world.service.attach(device("d"), RecordingLink(), ConnectionInfo("s", "", 10, 10_000))

    async def subscribe(channel: str) -> None:
        attachment.follow(await world.service.subscribe(attachment, SubscribeRequest(channel, start=Start.LATEST)))

    for channel in ("a", "b", "c"):
        world.spawn(subscribe(channel))
    for name in ("survey", "survey", "record"):
        for _ in range(3):
            store.finish(name)
    assert list(attachment.feeds) == ["a"]
    assert [failure.code for failure in world.failures if isinstance(failure, Refused)] == [Code.QUOTA_EXCEEDED] * 2


def test_a_second_subscribe_begins_anew() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    world.publish("news")
    world.settle()
    world.subscribe(attachment, "news", start=Start.EARLIEST)
    world.settle()
    assert link.offsets("news") == [1, 1]
    assert world.fanout.followers("news") == 1


def test_unsubscribing_ends_delivery_and_forgets_the_cursor() -> None:
    world = World()
    attachment, link = world.follower("d", "news")
    world.run(world.service.unsubscribe(attachment, "news"))
    world.publish("news")
    world.settle()
    assert (link.writes, world.run(world.memory.cursors("d"))) == ([], {})


def test_unsubscribing_forgets_a_cursor_that_is_not_stored_yet() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "news")
    world.run(world.service.unsubscribe(attachment, "news"))
    world.settle()
    assert world.run(world.memory.cursors("d")) == {}


def test_what_is_not_followed_cannot_be_left_and_the_own_channels_neither() -> None:
    world = World()
    attachment, _ = world.attach(device("d", "u"))
    for channel, code in (("news", Code.NOT_SUBSCRIBED), ("device:d", Code.FORBIDDEN), ("user:u", Code.FORBIDDEN)):
        assert code_of(world, world.service.unsubscribe(attachment, channel)) is code


def test_the_server_may_watch_a_channel_of_its_own() -> None:
    world = World()
    link = RecordingLink()
    principal = Principal("probe", "$probe")
    world.publish("news")
    world.run(world.service.watch(principal, "news", link, ConnectionInfo("$probe", "", 10, 10_000)))
    world.settle()
    world.publish("news")
    world.settle()
    assert link.offsets("news") == [2]
    assert world.service.connected_devices() == 0


# -------------------------------------------------------------------------------------------------------------- devices


def test_a_device_is_remembered_with_the_times_of_its_connections() -> None:
    world = World()
    world.attach(device("d", "u"))
    world.now += 5
    world.attach(device("d", "v"))
    record = world.run(world.memory.device("d"))
    assert record is not None
    assert (record.user_id, record.first_seen_ms, record.last_seen_ms) == ("v", 1_000_000, 1_005_000)


def test_remembering_keeps_the_binding_and_the_attributes_of_the_backend() -> None:
    world = World()
    world.run(world.memory.remember_device(DeviceRecord("d", "u", attributes={"tier": "gold"})))
    world.attach(device("d"))
    record = world.run(world.memory.device("d"))
    assert record is not None
    assert (record.user_id, dict(record.attributes)) == ("u", {"tier": "gold"})


def test_remembering_keeps_how_the_last_connection_ended() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.settle()
    world.service.detach(attachment, 2001, "heartbeat lost")
    world.attach(device("d"))
    world.settle()
    record = world.run(world.memory.device("d"))
    assert record is not None
    assert record.last_close == Close(2001, Advice.RECONNECT, "heartbeat lost", 1_000_000)


def test_what_devices_reached_is_stored_when_the_node_settles() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.subscribe(attachment, "news")
    world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    assert world.run(world.memory.cursors("d"))["news"].offset == 0
    assert world.run(world.service.settle())
    assert world.run(world.memory.cursors("d"))["news"].offset == 1


def test_a_first_place_is_stored_before_the_device_is_told() -> None:
    world, store = slow_world()
    attachment, _ = attach_slow(world)
    told: list[Subscription] = []
    for expected in (["survey", "survey", "record"], ["survey"]):
        Deferred.fromCoroutine(world.service.subscribe(attachment, SubscribeRequest("news"))).addCallback(told.append)
        done = [(len(told), store.finish(name)) for name in expected]
        assert [count for count, _ in done] == [len(told) - 1] * len(expected)
    assert len(told) == 2


def test_remembering_keeps_the_push_token() -> None:
    world = World()
    token = PushToken(b"secret-token", "org.example", False)
    assert code_of(world, world.service.register_token(device("d"), token)) is Code.UNKNOWN_RECIPIENT
    world.attach(device("d"))
    world.run(world.service.register_token(device("d"), token))
    world.attach(device("d"))
    assert world.run(world.service.describe_device("d")).token_registered
    assert "secret" not in repr(world.run(world.memory.device("d")))
    world.run(world.service.register_token(device("d"), None))
    assert not world.run(world.service.describe_device("d")).token_registered


def test_a_connected_device_is_described() -> None:
    world = World()
    link = RecordingLink()
    info = ConnectionInfo("s1", "192.0.2.7", 100, 10_000, "app", "1.0", AppState.FOREGROUND)
    attachment = world.service.attach(device("d", "u"), link, info)
    world.run(world.service.remember(device("d", "u")))
    attachment.begin()
    world.subscribe(attachment, "news")
    world.settle()
    world.publish("news")
    world.settle()
    attachment.state = AppState.BACKGROUND
    attachment.heartbeats.answered(0.25)
    world.now += 1
    status = world.run(world.service.describe_device("d"))
    assert (status.connected, status.session_id, status.address) == (True, "s1", "192.0.2.7")
    assert (status.app, status.app_version, status.user_id, status.round_trip) == ("app", "1.0", "u", 0.25)
    assert (status.state, status.connected_at_ms, status.last_seen_ms) == (AppState.BACKGROUND, 1_000_000, 1_001_000)
    assert [(cursor.channel, cursor.acknowledged, cursor.sent, cursor.top) for cursor in status.channels] == [("news", 0, 1, 1)]


def test_a_device_that_is_away_is_described_with_its_last_close() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.now += 3
    world.service.detach(attachment, 2001, "heartbeat lost")
    status = world.run(world.service.describe_device("d"))
    assert (status.connected, status.session_id, status.channels) == (False, "", (ChannelCursor("device:d", 0, 0, 0),))
    assert (status.last_seen_ms, status.last_close_code, status.last_close_detail) == (1_003_000, 2001, "heartbeat lost")


def test_a_device_that_was_never_seen_is_unknown() -> None:
    world = World()
    assert code_of(world, world.service.describe_device("d")) is Code.UNKNOWN_RECIPIENT


def test_a_device_can_be_disconnected() -> None:
    world = World()
    assert not world.run(world.service.disconnect_device("d", "by the operator"))
    _, link = world.attach(device("d"))
    assert world.run(world.service.disconnect_device("d", "by the operator"))
    assert link.closed == (Code.CONNECTION_TIMED_OUT, "by the operator")


def test_a_channel_is_described_and_looking_begins_none() -> None:
    world = World()
    assert code_of(world, world.service.describe_channel("news")) is Code.UNKNOWN_RECIPIENT
    assert code_of(world, world.service.describe_channel("a b")) is Code.UNKNOWN_RECIPIENT
    assert world.run(world.memory.peek("news")) is None
    world.follower("d", "news")
    world.publish("news")
    status = world.run(world.service.describe_channel("news"))
    assert (status.head.top_offset, status.connections) == (1, 1)
