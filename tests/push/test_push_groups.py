"""Followers of a topic that are away are pushed to as a group: one piece of work, one step at its end, each result counted once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.push.due import LONGEST_WAIT
from streampush.push.leasing import LEASE
from streampush.push.push_groups import group_body, split_group
from streampush.push.values import OutboxWork, PushAnswer, PushOutcome
from tests.push.fallback_world import DEAD, LATER, TAKEN, FakeSender, FallbackWorld, with_small_outbox
from tests.push.test_pushing import ending, reborn, slow
from tests.push.world import PUBLISHER
from tests.store.slow import SlowStore

NAMES = ["a", "b", "c"]
DELIVERED, CANCELLED, REJECTED = PushOutcome.DELIVERED, PushOutcome.CANCELLED, PushOutcome.REJECTED


def follow(world: FallbackWorld, *names: str, token: bytes = b"token") -> None:
    for name in names:
        world.known(name, token=token)
        world.run(world.memory.add_subscription(name, "news", 1, 10))


def followed(sender: FakeSender | None = None) -> FallbackWorld:
    world = FallbackWorld(sender=sender)
    follow(world, *NAMES)
    return world


def held(*calls: str, sender: FakeSender | None = None) -> tuple[FallbackWorld, SlowStore]:
    """A store of which these calls wait for the test, and followers."""
    world, store = slow(sender or FakeSender(), *calls)
    follow(world, *NAMES)
    return world, store


@given(st.lists(st.text(max_size=9), min_size=1, max_size=5), st.binary(max_size=50))
def test_the_body_of_a_group_gives_back_what_it_was_made_of(device_ids: list[str], form: bytes) -> None:
    assert split_group(group_body(device_ids, form)) == (device_ids, form)


def test_a_canonical_form_is_no_group() -> None:
    assert split_group(b'{}\n{"title":"x"}') == ((), b'{}\n{"title":"x"}')


def test_all_that_are_away_are_one_piece_of_work_that_ends_with_the_last_answer() -> None:
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    assert world.pushed() == NAMES
    assert world.work() == 1
    world.answer()
    world.answer(DEAD)
    assert world.work() == 1
    assert world.record(published).push_counts == {}
    world.answer()
    assert world.work() == 0
    assert world.record(published).push_counts == {DELIVERED: 2, REJECTED: 1}
    assert sorted(world.metrics.named("fell_back")) == [("delivered", 1), ("delivered", 1), ("rejected", 1)]


def test_a_dead_token_of_a_group_is_forgotten() -> None:
    world = followed(FakeSender(DEAD))
    world.alert("news")
    records = [world.run(world.memory.device(name)) for name in NAMES]
    assert [record and record.push_token for record in records] == [None] * 3


def test_what_is_to_be_sent_again_has_work_of_its_own_and_the_same_id() -> None:
    world = followed()
    world.sender.answers.extend([TAKEN, LATER, TAKEN])
    published = world.alert("news")
    assert world.work() == 1
    assert world.record(published).push_counts == {DELIVERED: 2}
    world.advance(7.0)
    assert world.pushed() == [*NAMES, "b"]
    assert world.sender.orders[1].push_id == world.sender.orders[3].push_id
    assert world.record(published).push_counts == {DELIVERED: 3}
    assert world.work() == 0


def test_who_is_connected_is_given_its_time_and_has_no_token_is_counted_while_the_others_are_pushed_to() -> None:
    world = followed(FakeSender(slow=True))
    follow(world, "mute", token=b"")
    world.online("b")
    published = world.alert("news")
    assert world.pushed() == ["a", "c"]
    assert world.work() == 2
    world.answer()
    world.answer()
    assert world.record(published).push_counts == {DELIVERED: 2, PushOutcome.NOT_SENT: 1}
    world.advance(5.0)
    assert world.pushed() == ["a", "c", "b"]


def test_the_next_batch_does_not_wait_for_the_answers_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampush.push.fallback.BATCH", 2)
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    assert world.pushed() == NAMES
    assert world.work() == 2
    for _ in NAMES:
        world.answer()
    assert world.record(published).push_counts == {DELIVERED: 3}
    assert world.work() == 0


# ------------------------------------------------------------------------------------------------- the last moment before


def test_who_acknowledges_while_the_group_is_written_is_not_pushed_to() -> None:
    world, store = held("outbox_branch")
    published = world.alert("news")
    attachment, _ = world.online("a")
    world.acknowledge(attachment, "news", published.offset)
    store.finish("outbox_branch")
    world.settle()
    assert world.pushed() == ["b", "c"]
    assert world.record(published).push_counts == {CANCELLED: 1, DELIVERED: 2}


def test_a_message_that_is_recalled_while_the_group_is_written_is_pushed_to_nobody() -> None:
    world, store = held("outbox_branch")
    published = world.alert("news")
    world.run(world.service.recall(PUBLISHER, published.message_id))
    store.finish("outbox_branch")
    world.settle()
    assert world.pushed() == []
    assert world.record(published).push_counts == {CANCELLED: 3}
    assert world.work() == 0


# ------------------------------------------------------------------------------------------------------------ crashes, stores


def test_after_a_crash_a_group_is_sent_again_with_the_same_ids_and_counted_once() -> None:
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    world.answer()
    world.service.stop()
    other = reborn(world)
    other.advance(LEASE + LONGEST_WAIT)
    assert [order.push_id for order in other.sender.orders] == [order.push_id for order in world.sender.orders]
    assert other.record(published).push_counts == {DELIVERED: 3}
    assert other.work() == 0
    while world.sender.waiting:  # the first process was only slow
        world.answer()
    assert other.record(published).push_counts == {DELIVERED: 3}


def test_after_a_crash_who_is_settled_meanwhile_is_counted_and_the_others_are_sent_to() -> None:
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    world.service.stop()
    other = reborn(world)
    attachment, _ = other.online("a")
    other.acknowledge(attachment, "news", published.offset)
    other.settle()
    other.advance(LEASE + LONGEST_WAIT)
    assert other.pushed() == ["b", "c"]
    assert other.record(published).push_counts == {CANCELLED: 1, DELIVERED: 2}


def test_a_group_whose_message_is_over_after_a_crash_is_cancelled_each_counted() -> None:
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    world.service.stop()
    world.run(world.service.recall(PUBLISHER, published.message_id))
    other = reborn(world)
    other.advance(LEASE + LONGEST_WAIT)
    assert other.pushed() == []
    assert other.record(published).push_counts == {CANCELLED: 3}
    assert other.metrics.named("fell_back") == [("cancelled", 3)]
    assert other.work() == 0


def test_a_group_whose_lease_ends_while_it_is_in_work_is_not_sent_again_by_this_process() -> None:
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    world.advance(2 * LEASE)
    assert world.pushed() == NAMES
    for _ in NAMES:
        world.answer()
    assert world.record(published).push_counts == {DELIVERED: 3}
    assert world.work() == 0


def test_a_group_whose_lease_ends_while_its_results_wait_for_the_store_is_counted_under_the_new_one() -> None:
    world, store = held("outbox_replace")
    published = world.alert("news")
    world.advance(2 * LEASE)
    while store.calls:
        store.finish("outbox_replace")
        world.settle()
    assert world.pushed() == NAMES
    assert world.record(published).push_counts == {DELIVERED: 3}
    assert world.work() == 0


def test_after_a_crash_who_has_no_token_is_counted_with_the_others() -> None:
    world = followed(FakeSender(slow=True))
    follow(world, "mute", token=b"")
    published = world.alert("news")
    world.service.stop()
    other = reborn(world)
    other.advance(LEASE + LONGEST_WAIT)
    assert other.record(published).push_counts == {DELIVERED: 3, PushOutcome.NOT_SENT: 1}


@pytest.mark.parametrize("name", ["message", "subscribers", "reach", "outbox_branch", "reach_with", "outbox_replace"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_store_that_fails_at_any_step_of_a_group_delays_it_and_each_result_is_counted_once(name: str, behind: bool) -> None:
    world, store = held(name)
    published = world.alert("news")
    world.fail_once(store, name, behind=behind)
    assert set(world.pushed()) == set(NAMES)
    assert world.record(published).push_counts == {DELIVERED: 3}
    assert len(world.pushed()) == 3
    assert world.work() == 0
    assert world.failures == []


def test_what_a_group_leads_to_waits_until_the_outbox_has_room() -> None:
    world = with_small_outbox(2)
    memory = world.memory
    follow(world, *NAMES)
    world.alert("news")
    world.run(memory.outbox_add("other", "x", b"", 0))
    (other,) = world.run(memory.outbox_lease("other", 1, 0, 1))
    world.run(memory.outbox_replace(other.token, [OutboxWork("other", key, b"", 0) for key in "yz"]))
    for _ in NAMES:
        world.answer(LATER)
    assert world.work() == 3  # of at most four
    (other,) = world.run(memory.outbox_lease("other", 1, 0, 1))
    world.run(memory.outbox_complete(other.token))
    world.pause()
    world.settle()
    assert world.work() == 1 + len(NAMES)
    world.sender.slow = False
    world.advance(7.0)
    assert world.work() == 1


def test_the_end_of_the_node_waits_for_a_group_and_stores_what_is_left_of_it() -> None:
    world = followed(FakeSender(slow=True))
    published = world.alert("news")
    ends = ending(world)
    world.answer()
    world.answer()
    assert ends == []
    world.answer(PushAnswer(PushOutcome.NOT_SENT, "stopping", again_in=0.0))
    assert ends == [True]
    assert world.record(published).push_counts == {DELIVERED: 2}
    other = reborn(world)
    other.advance(0.0)
    assert other.pushed() == ["c"]
    assert other.record(published).push_counts == {DELIVERED: 3}


def test_what_waits_for_something_to_be_mended_is_sent_again_as_soon_as_it_is() -> None:
    world = followed()
    world.sender.answers.append(PushAnswer(PushOutcome.REJECTED, "InvalidProviderToken", "id", again_in=300.0, held=True))
    published = world.alert("news")
    world.advance(1.0)
    assert world.record(published).push_counts == {DELIVERED: 2}
    world.sender.mended()
    world.advance(0.0)
    assert world.record(published).push_counts == {DELIVERED: 3}
