"""Messages with an alert: who is pushed to, when, and who is not."""

from __future__ import annotations

import json

import pytest

from streampush.protocol.terms import Outcome
from streampush.push.fallback import BATCH, PAUSE
from streampush.push.standing import AWAY_LOOK
from streampush.push.values import Alert, PublishRequest, PushOutcome, Session
from tests.push.fallback_world import FakeSender, FallbackWorld
from tests.push.world import PUBLISHER, World


def test_a_device_that_is_away_is_pushed_to_at_once() -> None:
    world = FallbackWorld()
    world.known("phone")
    published = world.alert("device:phone", collapse_key="k", ttl=60.0)
    (order,) = world.sender.orders
    assert (order.message_id, order.channel, order.device_id) == (published.message_id, "device:phone", "phone")
    assert (order.collapse_key, order.expires_at_ms, order.token.token) == ("k", world.wall_ms() + 60_000, b"tokenphone")
    assert json.loads(order.alert) == {"title": "Hello"}
    assert world.outcome(published, "phone") == ("delivered", "")
    assert world.work() == 0


def test_a_message_without_an_alert_is_not_followed_up() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.publish("device:phone")
    world.advance(60.0)
    assert world.pushed() == []


def test_without_a_way_to_push_an_alert_is_checked_and_not_kept() -> None:
    world = World()
    world.service.start()
    world.publish("news")
    world.run(world.service.publish(PUBLISHER, PublishRequest("news", b"x", alert=Alert(title="t"))))
    assert world.run(world.memory.status()).outbox == 0


def test_a_connected_device_that_stays_silent_is_pushed_to_after_its_time_and_not_before() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.online("phone")
    published = world.alert("device:phone")
    world.advance(4.999)
    assert world.pushed() == []
    world.advance(0.001)
    assert world.pushed() == ["phone"]
    assert world.outcome(published, "phone") == ("delivered", "")


def test_the_message_may_say_how_long_a_connected_device_may_stay_silent() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.online("phone")
    world.alert("device:phone", Alert(title="t", fallback_after_ms=700))
    world.advance(0.699)
    assert world.pushed() == []
    world.advance(0.002)
    assert world.pushed() == ["phone"]


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.PROCESSED, Outcome.REJECTED])
def test_an_acknowledgement_cancels_the_push(outcome: Outcome) -> None:
    world = FallbackWorld()
    world.known("phone")
    attachment, _ = world.online("phone")
    published = world.alert("device:phone")
    world.acknowledge(attachment, "device:phone", 1, outcome)
    world.advance(60.0)
    assert world.pushed() == []
    assert world.outcome(published, "phone") == ("cancelled", "acknowledged")
    assert world.work() == 0


def test_an_acknowledgement_that_is_not_stored_yet_cancels_it_too() -> None:
    world = FallbackWorld()
    world.known("phone")
    attachment, _ = world.online("phone")
    world.alert("device:phone")
    world.advance(4.0)
    world.now += 1.0
    world.acknowledge(attachment, "device:phone", 1)
    for timer in [timer for timer in world.timers if timer.deadline <= world.now]:
        timer.cancel()
        timer.work()  # before the turn in which the cursor is stored
    world.advance(60.0)
    assert world.pushed() == []


def test_a_device_that_wants_it_later_is_pushed_to() -> None:
    world = FallbackWorld()
    world.known("phone")
    attachment, _ = world.online("phone")
    world.alert("device:phone")
    world.acknowledge(attachment, "device:phone", 1, Outcome.RETRY_LATER)
    world.advance(5.0)
    assert world.pushed() == ["phone"]


def test_a_device_that_lost_its_connection_without_an_answer_is_pushed_to() -> None:
    world = FallbackWorld()
    world.known("phone")
    attachment, _ = world.online("phone")
    world.alert("device:phone")
    world.offline(attachment)
    world.advance(5.0)
    assert world.pushed() == ["phone"]


def test_a_device_without_a_token_is_not_sent_anything() -> None:
    world = FallbackWorld()
    world.known("phone", token=b"")
    published = world.alert("device:phone")
    assert world.pushed() == []
    assert world.outcome(published, "phone") == ("not_sent", "no token")
    assert world.metrics.named("fell_back") == [("not_sent", 1)]


def test_each_device_of_a_user_is_looked_at_by_itself() -> None:
    world = FallbackWorld()
    for name in ("away", "here", "silent", "mute"):
        world.known(name, "alice", token=b"" if name == "mute" else b"token")
    here, _ = world.online("here", "alice")
    world.online("silent", "alice")
    published = world.alert("user:alice")
    world.acknowledge(here, "user:alice", 1)
    assert world.pushed() == ["away"]
    world.advance(5.0)
    assert world.pushed() == ["away", "silent"]
    assert {name: world.outcome(published, name)[0] for name in ("away", "here", "silent", "mute")} == {
        "away": "delivered",
        "here": "cancelled",
        "silent": "delivered",
        "mute": "not_sent",
    }


def test_a_device_that_was_given_to_another_user_meanwhile_is_not_pushed_to() -> None:
    world = FallbackWorld()
    world.known("phone", "alice")
    attachment, _ = world.online("phone", "alice")
    published = world.alert("user:alice")
    world.offline(attachment)
    world.known("phone", "bob")
    world.advance(5.0)
    assert world.pushed() == []
    assert world.outcome(published, "phone") == ("cancelled", "left")


def test_a_recalled_message_is_not_pushed() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.online("phone")
    published = world.alert("device:phone")
    world.run(world.service.recall(PUBLISHER, published.message_id))
    world.advance(60.0)
    assert world.pushed() == []
    assert world.outcome(published, "phone") == ("cancelled", "recalled")


def test_a_message_that_a_newer_one_has_replaced_is_not_pushed() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.online("phone")
    old = world.alert("device:phone", collapse_key="k")
    new = world.alert("device:phone", collapse_key="k")
    world.advance(5.0)
    assert [order.message_id for order in world.sender.orders] == [new.message_id]
    assert world.outcome(old, "phone") == ("cancelled", "superseded")


def test_an_expired_message_is_not_pushed() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.online("phone")
    world.alert("device:phone", ttl=4.0)
    world.advance(60.0)
    assert world.pushed() == []
    assert world.metrics.named("fell_back") == [("cancelled", 1)]


def test_what_is_only_for_the_away_waits_as_long_as_the_device_is_connected() -> None:
    world = FallbackWorld()
    world.known("phone")
    attachment, _ = world.online("phone")
    world.alert("device:phone", Alert(title="t", only_when_away=True))
    world.advance(10 * AWAY_LOOK)
    assert world.pushed() == []
    world.offline(attachment)
    world.advance(AWAY_LOOK)
    assert world.pushed() == ["phone"]


def test_a_scheduled_message_is_followed_up_when_its_time_has_come() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.alert("device:phone", deliver_at_ms=world.wall_ms() + 10_000)
    world.advance(9.9)
    assert world.pushed() == []
    world.advance(0.1)
    assert world.pushed() == ["phone"]


def test_a_message_that_repeats_a_key_is_pushed_once() -> None:
    world = FallbackWorld()
    world.known("phone")
    for _ in range(2):
        world.alert("device:phone", idempotency_key="once")
    assert world.pushed() == ["phone"]


def test_a_long_time_to_stay_silent_is_kept_also_when_the_process_crashes_meanwhile() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.online("phone")
    world.alert("device:phone", Alert(title="t", fallback_after_ms=600_000))
    other = FallbackWorld(store=world.memory, start=False)
    other.memory, other.now = world.memory, world.now
    other.online("phone")
    other.service.start()
    other.advance(599.9)
    assert other.pushed() == []
    other.advance(0.2)
    assert other.pushed() == ["phone"]


def test_a_message_to_one_device_costs_one_piece_of_work() -> None:
    world = FallbackWorld(sender=FakeSender(slow=True))
    world.known("phone")
    world.alert("device:phone")
    assert len(world.sender.orders) == world.work() == 1


# ------------------------------------------------------------------------------------------------------------------- topics


def follower(world: FallbackWorld, device_id: str, app: str = "app") -> None:
    world.known(device_id, app=app)
    world.run(world.service.subscriptions.add(device_id, "news"))


def test_away_followers_of_a_topic_are_pushed_to_in_batches() -> None:
    world = FallbackWorld()
    names = [f"d{number:04}" for number in range(2 * BATCH + 1)]
    for name in names:
        follower(world, name)
    published = world.alert("news")
    world.advance(1.0)
    assert sorted(world.pushed()) == names
    assert world.record(published).push_counts == {PushOutcome.DELIVERED: len(names)}
    assert world.work() == 0


def test_a_topic_waits_while_the_sender_is_behind() -> None:
    world = FallbackWorld(sender=FakeSender(slow=True, max_in_flight=100))
    for number in range(2 * BATCH):
        follower(world, f"d{number:04}")
    world.alert("news")
    world.advance(10 * PAUSE)
    assert len(world.sender.orders) == 100
    assert world.work() <= BATCH + 1  # the other batch was not even read
    world.sender.slow = False
    while world.sender.waiting:
        world.sender.waiting.popleft().callback(world.sender.usual)
    world.advance(3 * PAUSE)
    assert len(set(world.pushed())) == len(world.pushed()) == 2 * BATCH
    assert world.work() == 0


def test_a_topic_waits_while_the_app_of_most_of_its_followers_has_had_its_share() -> None:
    world = FallbackWorld(sender=FakeSender(busy={"slow"}))
    for number in range(BATCH):
        follower(world, f"d{number:04}", "slow" if number % 3 else "app")
    world.alert("news")
    world.advance(10 * PAUSE)
    assert world.pushed() == []
    assert world.work() == 1
    world.sender.busy.clear()
    world.advance(2 * PAUSE)
    assert len(world.pushed()) == BATCH


def test_a_topic_goes_on_for_the_many_when_the_app_of_the_few_has_had_its_share() -> None:
    world = FallbackWorld(sender=FakeSender(busy={"slow"}))
    names = [f"d{number:04}" for number in range(9)]
    for number, name in enumerate(names):
        follower(world, name, "slow" if number < 3 else "app")
    published = world.alert("news")
    assert sorted(world.pushed()) == names[3:]
    world.sender.busy.clear()
    world.advance(6.0)
    assert sorted(world.pushed()) == names
    assert world.record(published).push_counts == {PushOutcome.DELIVERED: 9}


def test_who_does_not_follow_the_topic_for_good_is_not_pushed_to() -> None:
    world = FallbackWorld()
    world.known("passing")
    attachment, _ = world.online("passing")
    world.subscribe(attachment, "news")
    world.offline(attachment)
    world.alert("news")
    assert world.pushed() == []


def test_who_has_unsubscribed_meanwhile_is_not_pushed_to() -> None:
    world = FallbackWorld()
    follower(world, "phone")
    world.online("phone")
    world.alert("news")
    world.run(world.service.subscriptions.remove("phone", "news"))
    world.advance(60.0)
    assert world.pushed() == []
    assert world.metrics.named("fell_back") == [("cancelled", 1)]


# --------------------------------------------------------------------------------------------------------------- other nodes


def test_a_device_that_is_connected_elsewhere_is_given_its_time() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.run(world.memory.begin_session(Session("phone", "s", "another node")))
    world.alert("device:phone")
    world.advance(4.9)
    assert world.pushed() == []
    world.advance(0.2)
    assert world.pushed() == ["phone"]


def test_a_device_that_goes_from_one_process_to_the_next_is_given_its_time() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.known("tablet")
    world.service.await_devices(10.0)
    world.alert("device:phone")
    world.alert("device:tablet")
    world.advance(4.9)
    assert world.pushed() == []
    attachment, _ = world.online("phone")
    world.acknowledge(attachment, "device:phone", 1)
    world.advance(0.2)
    assert world.pushed() == ["tablet"]


def test_a_device_that_has_not_come_to_the_next_process_in_time_is_away() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.service.await_devices(10.0)
    world.advance(10.0)
    world.alert("device:phone")
    assert world.pushed() == ["phone"]


def test_a_session_of_this_node_that_the_store_has_not_seen_the_end_of_is_none() -> None:
    world = FallbackWorld()
    world.known("phone")
    world.run(world.memory.begin_session(Session("phone", "s", "node")))
    world.alert("device:phone")
    assert world.pushed() == ["phone"]
