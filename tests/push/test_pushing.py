"""Sending what is due: once each as far as one process can, again where that is of use, and the store never in the way."""

from __future__ import annotations

from dataclasses import replace
from json import JSONDecodeError
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.config import StoreConfig
from streampush.push import pushing
from streampush.push.due import LONGEST_WAIT, RETRY_PAUSE
from streampush.push.leasing import LEASE, STEP_WORKS
from streampush.push.push_groups import push_key
from streampush.push.pushing import NAMESPACE, push_id
from streampush.push.user_messages import FEW_DEVICES
from streampush.push.values import PUSH, PublishRequest, PushAnswer, PushOutcome, PushToken
from streampush.store.memory import MemoryStore
from tests.push.fallback_world import DEAD, LATER, TAKEN, FakeSender, FallbackWorld
from tests.push.world import PUBLISHER
from tests.store.slow import Call, SlowStore

KNOWN = "eab6f325-eaf4-57a9-a4fe-e315c86ad390"
"""Must never change: see pushing.NAMESPACE."""


def known(sender: FakeSender | None = None) -> FallbackWorld:
    world = FallbackWorld(sender=sender)
    world.known("phone")
    return world


def test_the_id_of_a_push_is_a_uuid_of_message_and_device() -> None:
    assert push_id("m1", "phone") == push_id("m1", "phone") == KNOWN
    assert len({push_id("m1", "phone"), push_id("m2", "phone"), push_id("m1", "tablet")}) == 3


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_id_of_a_push_is_the_one_that_the_standard_library_makes(message_id: str, device_id: str) -> None:
    assert push_id(message_id, device_id) == str(uuid5(NAMESPACE, f"{message_id}/{device_id}"))


def test_neither_token_nor_alert_is_shown_in_an_order() -> None:
    world = known()
    world.alert("device:phone")
    assert "tokenphone" not in repr(world.sender.orders[0])
    assert "Hello" not in repr(world.sender.orders[0])


def test_what_cannot_be_sent_now_is_sent_again_with_the_same_id() -> None:
    world = known()
    world.sender.answers.extend([LATER, LATER])
    published = world.alert("device:phone")
    assert world.outcome(published, "phone") == ("", "")
    world.advance(6.9)
    assert len(world.sender.orders) == 1
    world.advance(8.0)
    assert len({order.push_id for order in world.sender.orders}) == 1
    assert len(world.sender.orders) == 3
    assert world.outcome(published, "phone") == ("delivered", "")
    assert world.metrics.named("fell_back") == [("delivered", 1)]


def test_nothing_is_sent_again_once_the_message_has_expired() -> None:
    world = known()
    world.sender.answers.append(LATER)
    published = world.alert("device:phone", ttl=7.0)
    world.advance(60.0)
    assert len(world.sender.orders) == 1
    assert world.outcome(published, "phone") == ("not_sent", "no connection")
    assert world.work() == 0


def test_a_device_that_acknowledges_while_its_push_waits_is_not_pushed_to_again() -> None:
    world = known()
    world.sender.answers.append(LATER)
    published = world.alert("device:phone")
    attachment, _ = world.online("phone")
    world.acknowledge(attachment, "device:phone", 1)
    world.advance(60.0)
    assert len(world.sender.orders) == 1
    assert world.outcome(published, "phone") == ("cancelled", "acknowledged")


def test_a_dead_token_is_forgotten() -> None:
    world = known(FakeSender(DEAD))
    published = world.alert("device:phone")
    assert world.outcome(published, "phone") == ("rejected", "Unregistered")
    record = world.run(world.memory.device("phone"))
    assert record is not None
    assert record.push_token is None
    assert world.outcome(world.alert("device:phone"), "phone") == ("not_sent", "no token")


@pytest.mark.parametrize(("registered_ms", "stays"), [(999_999, False), (1_000_000, True)])
def test_a_token_that_was_registered_again_since_then_stays(registered_ms: int, stays: bool) -> None:
    world = known(FakeSender(DEAD))
    record = world.run(world.memory.device("phone"))
    assert record is not None
    token = PushToken(b"tokenphone", "app", sandbox=False, registered_at_ms=registered_ms)
    world.run(world.memory.remember_device(replace(record, push_token=token)))
    world.alert("device:phone")
    record = world.run(world.memory.device("phone"))
    assert record is not None
    assert (record.push_token is not None) is stays


def test_the_token_is_that_of_the_moment_of_sending() -> None:
    world = known()
    world.online("phone")
    world.alert("device:phone")
    world.known("phone", token=b"new")
    world.advance(5.0)
    assert world.sender.orders[0].token.token == b"newphone"


def test_a_fault_of_the_sender_ends_that_push_only() -> None:
    world = known()
    world.sender.answers.append(ZeroDivisionError("a bug"))
    broken = world.alert("device:phone")
    fine = world.alert("device:phone")
    assert [type(failure) for failure in world.failures] == [ZeroDivisionError]
    assert world.outcome(broken, "phone") == ("unknown", "internal error")
    assert world.outcome(fine, "phone") == ("delivered", "")


def test_work_that_cannot_be_read_ends_and_is_not_kept_in_work() -> None:
    world = known()
    published = world.run(world.service.publish(PUBLISHER, PublishRequest("device:phone", b"x")))
    world.run(world.memory.outbox_add(PUSH, push_key(published.message_id, "phone"), b"no alert", 0))
    world.advance(LONGEST_WAIT)
    assert [type(failure) for failure in world.failures] == [JSONDecodeError]
    assert world.outcome(published, "phone") == ("not_sent", "internal error")
    assert world.work() == 0


def test_no_more_than_the_sender_takes_are_in_flight() -> None:
    world = FallbackWorld(sender=FakeSender(slow=True, max_in_flight=3))
    for number in range(5):
        world.known(f"d{number}", "alice")
    world.alert("user:alice")
    assert len(world.sender.orders) == 3
    world.sender.waiting.popleft().callback(TAKEN)
    world.advance(0.0)
    assert len(world.sender.orders) == 4


def test_pushes_of_an_app_that_has_had_its_share_do_not_hold_up_those_behind_them() -> None:
    world = FallbackWorld(sender=FakeSender(slow=True, max_in_flight=3, busy={"slow"}))
    for number in range(STEP_WORKS):
        world.known(f"slow{number:03}", "alice", app="slow")
    world.known("fast", "bob")
    world.alert("user:alice")
    world.alert("user:bob")
    assert world.pushed() == ["fast"]
    world.sender.busy.clear()
    world.sender.slow = False
    world.sender.waiting.popleft().callback(TAKEN)
    world.advance(6.0)
    assert len(set(world.pushed())) == len(world.pushed()) == STEP_WORKS + 1
    assert world.work() == 0


# ------------------------------------------------------------------------------------------------------- crashes and stops


def reborn(world: FallbackWorld, sender: FakeSender | None = None) -> FallbackWorld:
    """Another process with the same store, at the same time."""
    other = FallbackWorld(store=world.memory, sender=sender, start=False)
    other.memory = world.memory
    other.now = world.now
    other.service.start()
    other.settle()
    return other


def test_after_a_crash_the_push_is_sent_again_with_the_same_id_when_the_lease_is_over() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("device:phone")
    (first,) = world.sender.orders
    world.service.stop()
    other = reborn(world)
    other.advance(LEASE - 1.0)
    assert other.sender.orders == []
    other.advance(LONGEST_WAIT)
    assert [order.push_id for order in other.sender.orders] == [first.push_id]
    assert other.outcome(published, "phone") == ("delivered", "")


def test_a_result_that_was_stored_after_the_lease_had_passed_to_another_process_stands() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("device:phone")
    other = reborn(world, FakeSender(slow=True))
    other.advance(LEASE + LONGEST_WAIT)
    assert len(other.sender.orders) == 1
    world.now = other.now
    world.sender.waiting.popleft().callback(TAKEN)
    world.settle()
    assert world.outcome(published, "phone") == ("delivered", "")
    other.service.stop()
    third = reborn(other, FakeSender(PushAnswer(PushOutcome.UNKNOWN)))
    third.advance(LEASE + LONGEST_WAIT)
    assert third.sender.orders == []
    assert third.outcome(published, "phone") == ("delivered", "")
    assert third.work() == 0


def test_a_node_that_stops_takes_nothing_more_and_leaves_no_timer() -> None:
    world = known()
    world.service.stop()
    world.alert("device:phone")
    world.advance(60.0)
    assert world.sender.orders == []
    assert world.timers == []
    other = reborn(world)
    other.advance(0.0)
    assert other.pushed() == ["phone"]


def test_what_another_process_has_stored_is_found() -> None:
    world = known()
    other = reborn(world)
    world.service.stop()
    world.alert("device:phone")
    other.now = world.now
    other.advance(LONGEST_WAIT)
    assert other.pushed() == ["phone"]


# ------------------------------------------------------------------------------------------------------------- slow stores


def slow(sender: FakeSender, *held: str) -> tuple[FallbackWorld, SlowStore]:
    """A store whose calls of these names wait for the test."""
    worlds: list[FallbackWorld] = []
    memory = MemoryStore(StoreConfig(), lambda: worlds[0].wall_ms(), lambda: "epoch")

    def begun(call: Call) -> None:
        if call.name not in held:
            store.calls.remove(call)
            call.finish()

    store = SlowStore(memory, begun)
    world = FallbackWorld(store=store, sender=sender, start=False)
    worlds.append(world)
    world.memory = memory
    world.service.start()
    world.settle()
    return world, store


def test_a_store_that_is_slow_to_take_results_does_not_hold_up_sending() -> None:
    world, store = slow(FakeSender(max_in_flight=2), "record_pushes")
    for number in range(10):
        world.known(f"d{number}", "alice")
    published = world.alert("user:alice")
    assert len(world.sender.orders) == 10
    while store.calls:
        store.finish("record_pushes")
        world.advance(0.0)
    assert [world.outcome(published, f"d{number}")[0] for number in range(10)] == ["delivered"] * 10
    assert world.work() == 0


def test_a_push_whose_result_is_not_stored_when_the_lease_ends_is_not_sent_again_by_this_process() -> None:
    world, store = slow(FakeSender(), "record_pushes")
    world.known("phone")
    published = world.alert("device:phone")
    world.advance(2 * LEASE)
    assert len(world.sender.orders) == 1
    while store.calls:
        store.finish("record_pushes")
        world.advance(0.0)
    world.advance(2 * LEASE)
    assert len(world.sender.orders) == 1
    assert world.outcome(published, "phone") == ("delivered", "")
    assert world.work() == 0


def test_results_that_the_store_could_not_take_are_stored_later() -> None:
    world, store = slow(FakeSender(), "record_pushes")
    world.known("phone")
    published = world.alert("device:phone")
    store.fail("record_pushes")
    world.settle()
    world.pause()
    store.finish("record_pushes")
    world.settle()
    assert world.outcome(published, "phone") == ("delivered", "")


def test_results_are_stored_also_behind_a_fault_of_the_step_that_stores_them() -> None:
    world, store = slow(FakeSender(), "record_pushes")
    world.known("phone")
    published = world.alert("device:phone")
    store.take("record_pushes").done.errback(ZeroDivisionError("a bug"))
    assert [type(failure) for failure in world.failures] == [ZeroDivisionError]
    world.pause()
    store.finish("record_pushes")
    world.settle()
    assert world.outcome(published, "phone") == ("delivered", "")
    assert world.work() == 0


def test_sending_stops_when_too_many_results_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "MAX_UNSTORED", 3)
    world, store = slow(FakeSender(max_in_flight=1), "record_pushes")
    for number in range(5):
        world.known(f"d{number}", "alice")
    world.alert("user:alice")
    assert len(world.sender.orders) == 3
    while store.calls:
        store.finish("record_pushes")
        world.advance(0.0)
    assert len(world.sender.orders) == 5


@pytest.mark.parametrize(
    ("name", "channel"),
    [(name, channel) for name in ("outbox_lease", "outbox_next_ms", "record_pushes") for channel in ("device:phone", "user:alice")]
    + [("reach_with", "device:phone"), ("reach_users", "user:alice")]
    + [(name, "user:crowd") for name in ("reach_users", "message", "devices_of_user", "reach", "outbox_replace", "reach_with")],
)
def test_a_store_that_fails_anywhere_delays_the_push_and_loses_nothing(name: str, channel: str) -> None:
    world, store = slow(FakeSender(), name)
    for _ in range(20):  # the first question of each part of the node is answered
        while store.calls:
            store.finish()
            world.settle()
    world.known("phone", channel.partition(":")[2])
    for number in range(FEW_DEVICES):
        world.known(f"mute{number}", "crowd", token=b"")
    published = world.alert(channel)
    for _ in range(12):
        if store.calls:
            store.fail()
        world.settle()
        world.pause()
        world.advance(RETRY_PAUSE)
    while store.calls:
        store.finish()
        world.advance(2 * RETRY_PAUSE)
        world.pause()
    for _ in range(4):
        world.advance(LEASE)
        while store.calls:
            store.finish()
            world.advance(0.0)
    assert len(world.sender.orders) == 1
    assert world.outcome(published, "phone") == ("delivered", "")
    assert world.failures == []


def test_the_end_of_the_node_does_not_wait_for_a_store_that_is_away() -> None:
    world, store = slow(FakeSender(), "record_pushes")
    world.known("phone")
    published = world.alert("device:phone")
    store.fail("record_pushes")
    world.settle()
    ends: list[bool] = []

    async def end() -> None:
        ends.append(await world.service.settle())

    world.spawn(end())  # tries at once, whatever was put off
    store.fail("record_pushes")
    assert ends == [False]
    world.spawn(end())
    store.finish("record_pushes")
    assert ends == [False, True]
    world.pause()
    assert store.calls == []
    assert world.outcome(published, "phone") == ("delivered", "")


def test_the_end_of_the_node_waits_for_results_that_are_there() -> None:
    world, store = slow(FakeSender(), "record_pushes")
    world.known("phone")
    published = world.alert("device:phone")
    world.service.stop()
    ends: list[bool] = []

    async def end() -> None:
        ends.append(await world.service.settle())

    world.spawn(end())
    world.settle()
    assert ends == []
    store.finish("record_pushes")
    world.settle()
    assert ends == [True]
    assert world.outcome(published, "phone") == ("delivered", "")


def ending(world: FallbackWorld) -> list[bool]:
    """The node takes no more work and waits for its end; gives what `settle` will say."""
    world.service.stop()
    ends: list[bool] = []

    async def end() -> None:
        ends.append(await world.service.settle())

    world.spawn(end())
    world.settle()
    return ends


def test_the_end_of_the_node_waits_for_the_answers_of_what_is_sent() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("device:phone")
    ends = ending(world)
    assert ends == []
    world.sender.waiting.popleft().callback(TAKEN)
    world.settle()
    assert ends == [True]
    assert world.outcome(published, "phone") == ("delivered", "")


def test_what_is_looked_at_when_the_node_stops_is_there_for_the_next_at_once() -> None:
    world, store = slow(FakeSender(), "reach_with")
    world.known("phone")
    world.sender.usual = PushAnswer(PushOutcome.NOT_SENT, "stopping", again_in=0.0)
    world.alert("device:phone")
    ends = ending(world)
    assert ends == []
    store.finish("reach_with")
    world.settle()
    assert ends == [True]
    other = reborn(world)
    other.advance(0.0)
    assert other.pushed() == ["phone"]


def test_the_end_of_the_node_does_not_wait_for_devices_that_cannot_be_looked_at() -> None:
    world, store = slow(FakeSender(), "reach_with")
    world.known("phone")
    world.alert("device:phone")
    ends = ending(world)
    store.fail("reach_with")
    world.settle()
    assert ends == [False]
    assert world.sender.orders == []
