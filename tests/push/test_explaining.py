"""The facts of an explanation, gathered from a node that works."""

from __future__ import annotations

from streampush.config import DeliveryConfig, PublishConfig, StoreConfig
from streampush.errors import Refused
from streampush.protocol.codes import Advice
from streampush.protocol.terms import Outcome
from streampush.push.explain import Explanation
from streampush.push.values import Close, DeviceRecord, PushToken, Session, Undeliverable
from tests.push.world import World, device


def ask(world: World, device_id: str = "d") -> Explanation:
    return world.run(world.service.explainer.explain(device_id))


def kinds(world: World, device_id: str = "d") -> set[str]:
    return {verdict.kind for verdict in ask(world, device_id).verdicts}


def test_connected_device_without_trouble() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    attachment.heartbeats.answered(0.05)
    found = ask(world)
    assert {verdict.kind for verdict in found.verdicts} == {"connected", "nothing_waits"}
    connection = found.facts.connection
    assert connection is not None
    assert (connection.session_id, connection.window_messages, connection.open_messages) == ("session", 100, 0)
    assert (connection.round_trips, connection.generation > 0, connection.has_room) == ((0.05,), True, True)


def test_delivery_that_is_not_acknowledged_fills_the_window() -> None:
    world = World()
    world.follower("d", "news", messages=2)
    world.publish_many(3, "news")
    world.now += 20
    found = ask(world)
    assert {"window_full", "unacknowledged", "waiting"} <= {verdict.kind for verdict in found.verdicts}
    row = next(row for row in found.facts.channels if row.channel == "news")
    assert (row.acknowledged, row.sent, row.top, row.unacknowledged, row.waiting) == (0, 2, 3, 2, 3)
    assert (row.stuck_for, row.next_try, row.attempts, row.oldest_waiting_ms) == (20.0, 10.0, 0, 1_000_000)


def test_device_is_seen_while_it_is_connected_and_until_it_left() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.advance(5.0)
    assert ask(world).facts.last_seen_ms == world.wall_ms()
    left_ms = world.wall_ms()
    world.service.detach(attachment, 0, "")
    world.advance(5.0)
    assert ask(world).facts.last_seen_ms == left_ms < world.wall_ms()


def test_delivery_that_has_just_gone_out_is_no_problem() -> None:
    world = World()
    world.follower("d", "news")
    world.publish("news")
    world.settle()
    assert "unacknowledged" not in kinds(world)


def test_attempts_are_counted() -> None:
    world = World(delivery=DeliveryConfig(ack_timeout=10.0, max_attempts=7))
    attachment, _ = world.follower("d", "news")
    world.publish("news")
    world.settle()
    world.now += 11
    attachment.tick(world.now)
    world.settle()
    found = ask(world)
    row = next(row for row in found.facts.channels if row.channel == "news")
    assert (row.attempts, row.redeliveries, found.facts.max_attempts) == (1, 1, 7)


def test_message_that_the_application_wants_later_is_held() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.RETRY_LATER)
    assert "held" in kinds(world)


def test_device_that_is_away_with_its_close_and_backlog() -> None:
    world = World()
    attachment, _ = world.follower("d", "news")
    world.service.detach(attachment, 2001, "heartbeat lost")
    world.publish("news")
    found = ask(world)
    assert {"away", "waiting", "no_token"} <= {verdict.kind for verdict in found.verdicts}
    assert found.facts.last_close is not None
    assert (found.facts.last_close.code, found.facts.connection) == (2001, None)


def test_push_token_is_said_to_be_there_and_not_shown() -> None:
    world = World()
    world.run(world.memory.remember_device(DeviceRecord("d", push_token=PushToken(b"secret-token", "org.example", False))))
    found = ask(world)
    assert found.facts.push_token
    assert "secret" not in repr(found)


def test_session_on_another_node() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.settle()
    world.service.detach(attachment, 1006, "replaced")
    world.settle()
    world.run(world.memory.begin_session(Session("d", "S2", "node-2")))
    assert "elsewhere" in kinds(world)


def test_history_that_was_trimmed() -> None:
    world = World(limits=StoreConfig(history_messages=2))
    attachment, _ = world.follower("d", "news")
    world.service.detach(attachment, 0, "")
    for _ in range(5):
        world.publish("news")
    assert "trimmed" in kinds(world)


def test_dead_letters() -> None:
    world = World()
    world.follower("d", "news")
    published = world.publish("news")
    letter = Undeliverable("d", "news", published.epoch, published.offset, 10, "not acknowledged", 1)
    world.run(world.memory.record([], [], [letter]))
    assert "dead_letters" in kinds(world)


def test_rate_is_looked_at_and_not_used_up() -> None:
    world = World(publish=PublishConfig(device_rate=1.0, device_burst=2))
    world.follower("d", "news")
    for _ in range(3):
        try:
            world.run(world.service.charge(device("d")))
        except Refused as refused:
            assert refused.retry_after == 1.0
    for _ in range(2):
        rate = ask(world).facts.rate
        assert rate is not None
        assert (rate.tokens, rate.burst, rate.refused) == (0.0, 2, 1)
    assert "rate" in kinds(world)


def test_unknown_device_gets_near_names_and_devices_of_a_user() -> None:
    world = World()
    world.attach(device("phone-1", "ada"))
    facts = ask(world, "phone-2").facts
    assert (facts.known, facts.near) == (False, ("phone-1",))
    assert ask(world, "ada").facts.user_devices == ("phone-1",)


def known(world: World, *names: str) -> None:
    for name in names:
        world.run(world.memory.remember_device(DeviceRecord(name)))


def test_near_names_are_found_among_devices_that_are_away() -> None:
    world = World()
    known(world, "phone-1", "tablet-1", "Phone-3", "pone-1")
    assert ask(world, "phone-7").facts.near == ("Phone-3", "phone-1")
    assert ask(world, "phnoe-1").facts.near == ("phone-1",)
    assert ask(world, "Tablet-2").facts.near == ("tablet-1",)


def test_the_beginning_of_a_name_gives_names_that_begin_so() -> None:
    world = World()
    known(world, *(f"sensor-{number}" for number in range(9)))
    assert ask(world, "sens").facts.near == tuple(f"sensor-{number}" for number in range(5))


def test_a_near_name_among_more_devices_of_its_first_letter_than_are_compared_is_found_by_more_letters() -> None:
    world = World()
    known(world, *(f"a{number:04}" for number in range(1500)), "away-device-x", "azure")
    assert ask(world, "away-device-y").facts.near == ("away-device-x",)
    assert ask(world, "zzz").facts.near == ()


def test_channels_beyond_a_page_are_counted_and_those_with_something_to_say_come_first() -> None:
    world = World(delivery=DeliveryConfig(max_subscriptions=1000))
    attachment, _ = world.attach(device("d"))
    for number in range(150):
        world.subscribe(attachment, f"news/{number:03}")
    world.settle()
    world.service.detach(attachment, 0, "")
    world.publish("news/149")
    facts = ask(world).facts
    assert (facts.channels[0].channel, len(facts.channels), facts.more_channels) == ("news/149", 100, 51)


def test_close_that_is_not_stored_yet_is_known() -> None:
    world = World()
    attachment, _ = world.attach(device("d"))
    world.settle()
    world.service.detach(attachment, 1005, "slow")
    assert ask(world).facts.last_close == Close(1005, Advice.RECONNECT, "slow", 1_000_000)
