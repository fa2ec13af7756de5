"""Messages to users with few devices: pushed to at once, each device with its own result, as the work of one message."""

from __future__ import annotations

from json import JSONDecodeError

import pytest

from streampush.push import pushing
from streampush.push.due import LONGEST_WAIT
from streampush.push.leasing import LEASE
from streampush.push.user_messages import FEW_DEVICES
from streampush.push.values import FALLBACK, Alert, OutboxWork, PublishRequest, PushAnswer, PushOutcome
from tests.push.fallback_world import DEAD, LATER, TAKEN, FakeSender, FallbackWorld, with_small_outbox
from tests.push.test_pushing import ending, reborn, slow
from tests.push.world import PUBLISHER
from tests.store.slow import SlowStore

NAMES = ["phone", "tablet"]


def known(sender: FakeSender | None = None) -> FallbackWorld:
    """Alice has a phone and a tablet, both away."""
    world = FallbackWorld(sender=sender)
    for name in NAMES:
        world.known(name, "alice")
    return world


def held(*calls: str, sender: FakeSender | None = None) -> tuple[FallbackWorld, SlowStore]:
    """The same with a store of which these calls wait for the test."""
    world, store = slow(sender or FakeSender(), *calls)
    for name in NAMES:
        world.known(name, "alice")
    return world, store


def outcomes(world: FallbackWorld, published: object, *names: str) -> list[str]:
    return [world.outcome(published, name)[0] for name in names or NAMES]  # type: ignore[arg-type]  # as `alert` gives it


def test_devices_that_are_away_are_pushed_to_at_once_as_one_piece_of_work_that_ends_with_the_last_answer() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("user:alice")
    assert world.pushed() == NAMES
    assert world.work() == 1
    world.answer()
    assert world.work() == 1
    world.answer(DEAD)
    assert world.work() == 0
    assert outcomes(world, published) == ["delivered", "rejected"]
    assert sorted(world.metrics.named("fell_back")) == [("delivered", 1), ("rejected", 1)]


def test_all_messages_of_a_lease_are_one_question() -> None:
    world, store = held("outbox_lease", "reach_users")
    for name in NAMES:
        world.known(name, name)
    world.run(world.service.publish(PUBLISHER, PublishRequest("user:phone", b"x", alert=Alert(title="t"))))
    world.alert("user:tablet")
    while not any(call.name == "reach_users" for call in store.calls):
        store.finish("outbox_lease")
        world.settle()
    store.finish("reach_users")
    world.settle()
    assert world.pushed() == NAMES


def test_a_dead_token_is_forgotten() -> None:
    world = known(FakeSender(DEAD))
    world.alert("user:alice")
    records = [world.run(world.memory.device(name)) for name in NAMES]
    assert [record and record.push_token for record in records] == [None, None]


def test_what_is_to_be_sent_again_has_work_of_its_own_and_the_same_id() -> None:
    world = known()
    world.sender.answers.extend([TAKEN, LATER])
    published = world.alert("user:alice")
    assert outcomes(world, published) == ["delivered", ""]
    assert world.work() == 1
    world.advance(7.0)
    assert world.pushed() == [*NAMES, "tablet"]
    assert world.sender.orders[1].push_id == world.sender.orders[2].push_id
    assert outcomes(world, published) == ["delivered", "delivered"]
    assert world.work() == 0


def test_what_waits_for_something_to_be_mended_is_sent_again_as_soon_as_it_is() -> None:
    world = known()
    world.sender.answers.append(PushAnswer(PushOutcome.REJECTED, "InvalidProviderToken", "id", again_in=300.0, held=True))
    published = world.alert("user:alice")
    world.advance(1.0)
    assert outcomes(world, published) == ["", "delivered"]
    world.sender.mended()
    world.advance(0.0)
    assert outcomes(world, published) == ["delivered", "delivered"]


def test_a_user_whose_devices_are_settled_needs_no_push() -> None:
    world, store = held("reach_users")
    attachment, _ = world.online("phone", "alice")
    world.known("tablet", "alice", token=b"")
    published = world.alert("user:alice")
    world.acknowledge(attachment, "user:alice", published.offset)
    world.settle()
    store.finish("reach_users")
    world.settle()
    assert world.work() == 0
    assert outcomes(world, published) == ["cancelled", "not_sent"]
    assert sorted(world.metrics.named("fell_back")) == [("cancelled", 1), ("not_sent", 1)]


def test_a_connected_device_has_its_time_and_the_others_do_not_wait_for_it() -> None:
    world = known(FakeSender(slow=True))
    world.known("mute", "alice", token=b"")
    world.online("phone", "alice")
    published = world.alert("user:alice")
    assert world.pushed() == ["tablet"]
    assert outcomes(world, published, "mute") == ["not_sent"]
    world.advance(4.9)
    assert world.pushed() == ["tablet"]
    world.advance(0.1)
    assert world.pushed() == ["tablet", "phone"]


def test_a_message_that_is_over_when_it_is_looked_at_is_pushed_to_nobody() -> None:
    world, store = held("reach_users")
    published = world.alert("user:alice")
    world.run(world.service.recall(PUBLISHER, published.message_id))
    store.finish("reach_users")
    world.settle()
    assert world.pushed() == []
    assert world.metrics.named("fell_back") == [("cancelled", 1)]
    assert world.work() == 0


def test_a_user_who_has_no_device_any_more_is_pushed_to_nowhere() -> None:
    world, store = held("reach_users")
    world.alert("user:alice")
    for name in NAMES:
        world.run(world.memory.forget_device(name))
    store.finish("reach_users")
    world.settle()
    assert world.pushed() == []
    assert world.work() == 0


@pytest.mark.parametrize("count", [FEW_DEVICES, FEW_DEVICES + 1])
def test_all_devices_of_a_user_are_pushed_to_however_many_they_are(count: int) -> None:
    world = FallbackWorld()
    names = [f"d{number:02}" for number in range(count)]
    for name in names:
        world.known(name, "alice")
    published = world.alert("user:alice")
    assert world.pushed() == names
    assert set(outcomes(world, published, *names)) == {"delivered"}
    assert world.work() == 0


def test_what_the_sender_has_no_room_for_waits_with_work_of_its_own() -> None:
    world = known(FakeSender(slow=True, max_in_flight=1))
    published = world.alert("user:alice")
    assert world.pushed() == ["phone"]
    assert world.work() == 2
    world.answer()
    world.advance(0.0)
    assert world.pushed() == NAMES
    world.answer()
    assert outcomes(world, published) == ["delivered", "delivered"]
    assert world.work() == 0


def test_no_more_messages_are_looked_at_than_the_sender_takes() -> None:
    world, store = held("reach_users", sender=FakeSender(max_in_flight=2))
    for number in range(5):
        world.known(f"d{number}", f"u{number}")
        world.alert(f"user:u{number}")
    assert world.work() == 5
    assert [call.name for call in store.calls] == ["reach_users"] * 2
    for _ in range(5):
        while store.calls:
            store.finish("reach_users")
        world.advance(0.0)
    assert sorted(world.pushed()) == [f"d{number}" for number in range(5)]
    assert world.work() == 0


def test_sending_stops_when_the_results_of_too_many_messages_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "MAX_UNSTORED", 3)
    world, store = held("record_pushes")
    for number in range(5):
        world.known(f"d{number}", f"u{number}")
        world.alert(f"user:u{number}")
    assert len(world.sender.orders) == 3
    while store.calls:
        store.finish("record_pushes")
        world.advance(0.0)
    assert len(world.sender.orders) == 5
    assert world.work() == 0


def test_work_that_cannot_be_read_is_given_up_in_the_end_and_holds_up_nobody() -> None:
    world = known()
    published = world.run(world.service.publish(PUBLISHER, PublishRequest("user:alice", b"x")))
    world.run(world.memory.outbox_add(FALLBACK, published.message_id, b"no alert", 0))
    fine = world.alert("user:alice")
    world.advance(LONGEST_WAIT)
    assert outcomes(world, fine) == ["delivered", "delivered"]
    assert {type(failure) for failure in world.failures} == {JSONDecodeError}
    assert outcomes(world, published) == ["not_sent", "not_sent"]
    assert world.work() == 0


# ------------------------------------------------------------------------------------------------- the last moment before


def test_who_acknowledges_while_the_store_is_asked_is_not_pushed_to() -> None:
    world, store = held("reach_users")
    attachment, _ = world.online("phone", "alice")
    published = world.alert("user:alice")
    world.acknowledge(attachment, "user:alice", published.offset)
    store.finish("reach_users")  # the acknowledgement is not stored yet
    world.settle()
    assert world.pushed() == ["tablet"]
    assert outcomes(world, published) == ["cancelled", "delivered"]


def test_who_acknowledges_while_the_sender_has_the_push_takes_it_back() -> None:
    world = known(FakeSender(slow=True, writes=False))
    published = world.alert("user:alice")
    attachment, _ = world.online("phone", "alice")
    world.acknowledge(attachment, "user:alice", published.offset)
    world.settle()
    world.answer()
    world.advance(0.0)
    assert world.pushed() == NAMES
    assert outcomes(world, published) == ["cancelled", "delivered"]
    assert world.work() == 0


# ------------------------------------------------------------------------------------------------------------ crashes, stores


def test_after_a_crash_all_are_sent_again_with_the_same_ids() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("user:alice")
    world.service.stop()
    other = reborn(world)
    other.advance(LEASE - 1.0)
    assert other.pushed() == []
    other.advance(LONGEST_WAIT)
    assert [order.push_id for order in other.sender.orders] == [order.push_id for order in world.sender.orders]
    assert outcomes(other, published) == ["delivered", "delivered"]
    assert other.work() == 0


def test_results_that_were_stored_after_the_lease_had_passed_to_another_process_stand() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("user:alice")
    other = reborn(world, FakeSender(slow=True))
    other.advance(LEASE + LONGEST_WAIT)
    assert other.pushed() == NAMES
    world.now = other.now
    world.answer()
    world.answer(LATER)
    assert outcomes(world, published) == ["delivered", ""]
    other.service.stop()
    third = reborn(other)
    third.advance(LEASE + LONGEST_WAIT)
    assert third.pushed() == ["tablet"]
    assert outcomes(third, published) == ["delivered", "delivered"]
    assert third.work() == 0


def test_a_message_whose_lease_ends_while_it_is_in_work_is_not_sent_again_by_this_process() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("user:alice")
    world.advance(2 * LEASE)
    assert world.pushed() == NAMES
    for _ in NAMES:
        world.answer()
    assert outcomes(world, published) == ["delivered", "delivered"]
    assert world.work() == 0


@pytest.mark.parametrize(("name", "answers"), [("record_pushes", [TAKEN, TAKEN]), ("outbox_replace", [TAKEN, LATER])])
def test_a_lease_that_ends_while_the_results_wait_for_the_store_is_followed_by_its_newest(
    name: str, answers: list[PushAnswer]
) -> None:
    world, store = held(name, sender=FakeSender())
    world.sender.answers.extend(answers)
    published = world.alert("user:alice")
    world.advance(2 * LEASE)
    while store.calls:
        store.finish(name)
        world.settle()
    again = ["tablet"] * answers.count(LATER)
    assert world.pushed() == NAMES
    assert world.work() == len(again)
    world.advance(7.0)
    while store.calls:
        store.finish()
        world.settle()
    assert world.pushed() == [*NAMES, *again]
    assert outcomes(world, published) == ["delivered", "delivered"]
    assert world.work() == 0


def test_a_look_that_waits_for_the_store_until_the_lease_ends_sends_once() -> None:
    world, store = held("reach_users")
    published = world.alert("user:alice")
    world.advance(2 * LEASE)
    while store.calls:
        store.finish("reach_users")
        world.settle()
    assert world.pushed() == NAMES
    assert outcomes(world, published) == ["delivered", "delivered"]
    assert world.work() == 0


@pytest.mark.parametrize("name", ["reach_users", "record_pushes", "outbox_replace", "outbox_lease"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_store_that_fails_at_any_step_delays_it_and_each_device_is_pushed_to_once(name: str, behind: bool) -> None:
    world, store = held(name)
    while store.calls:
        store.finish()
        world.settle()
    world.sender.answers.extend([TAKEN, LATER if name == "outbox_replace" else TAKEN])
    published = world.alert("user:alice")
    world.fail_once(store, name, behind=behind)
    assert outcomes(world, published) == ["delivered", "delivered"]
    assert world.pushed() == ([*NAMES, "tablet"] if name == "outbox_replace" else NAMES)
    assert world.work() == 0
    assert world.failures == []


def test_what_a_message_leads_to_waits_until_the_outbox_has_room_and_results_do_not() -> None:
    world = with_small_outbox(2)
    memory = world.memory
    for name in NAMES:
        world.known(name, "alice")
    world.known("other", "bob")
    full = world.alert("user:alice")
    world.run(memory.outbox_add("other", "x", b"", 0))
    (other,) = world.run(memory.outbox_lease("other", 1, 0, 1))
    world.run(memory.outbox_replace(other.token, [OutboxWork("other", key, b"", 0) for key in "xyz"]))
    assert world.work() == 4  # as many as may be
    world.answer(LATER)
    world.answer(LATER)
    assert world.work() == 4
    (other,) = world.run(memory.outbox_lease("other", 1, 0, 1))
    world.run(memory.outbox_complete(other.token))
    world.sender.slow = False
    world.pause()
    world.advance(7.0)
    assert outcomes(world, full) == ["delivered", "delivered"]
    assert world.work() == 2


def test_the_end_of_the_node_waits_for_a_message_and_stores_what_is_left_of_it() -> None:
    world = known(FakeSender(slow=True))
    published = world.alert("user:alice")
    ends = ending(world)
    world.answer()
    assert ends == []
    world.answer(PushAnswer(PushOutcome.NOT_SENT, "stopping", again_in=0.0))
    assert ends == [True]
    assert outcomes(world, published) == ["delivered", ""]
    other = reborn(world)
    other.advance(0.0)
    assert other.pushed() == ["tablet"]


def test_the_end_of_the_node_does_not_wait_for_users_that_cannot_be_looked_at() -> None:
    world, store = held("reach_users")
    world.alert("user:alice")
    ends = ending(world)
    assert ends == []
    store.fail("reach_users")
    world.settle()
    assert ends == [False]
    assert world.pushed() == []
