"""What is not acknowledged is delivered again, later and later, and given up in the end. docs/protocol.md sections 10.4, 10.5."""

from __future__ import annotations

import pytest
from twisted.logger import capturedLogs, formatEvent

from streampush.config import DeliveryConfig, StoreConfig
from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.protocol.terms import LossReason, Milestone, Outcome
from streampush.push.delivery import Attachment
from streampush.push.redelivery import NO_ANSWER, RETRY_LATER, Patience
from streampush.push.values import ConnectionInfo, Cursor, DeadLetter, Principal, Subscription, Undeliverable
from tests.push.slow_world import FRAME, attach_slow, fixed, lose_log, publish, slow_world
from tests.push.world import RecordingLink, World, device

SETTINGS = DeliveryConfig(ack_timeout=10.0, redelivery_max_interval=40.0, max_attempts=4, max_held=2)


def world_with(count: int = 0, **settings: object) -> tuple[World, Attachment, RecordingLink]:
    """A device that follows its own channel and has been sent so many messages."""
    world = World(delivery=SETTINGS, **settings)  # type: ignore[arg-type]  # passed on as they are
    attachment, link = connect(world)
    for _ in range(count):
        world.publish("device:d")
        world.settle()
    return world, attachment, link


def connect(world: World, messages: int = 100, size: int = 100_000) -> tuple[Attachment, RecordingLink]:
    attachment, link = world.attach(device("d"), messages, size)
    world.subscribe(attachment, "device:d")
    world.settle()
    return attachment, link


def cursor(world: World) -> Cursor:
    world.settle()
    return world.run(world.memory.cursors("d"))["device:d"]


def letters(world: World) -> list[DeadLetter]:
    world.settle()
    return list(world.run(world.memory.dead_letters("d", 0, 10)))


def milestones(world: World, message_id: str) -> set[Milestone]:
    record = world.run(world.memory.message(message_id, 10))
    assert record is not None
    return set(record.devices[0].times)


# ---------------------------------------------------------------------------------------------------------- no answer in time


@pytest.mark.parametrize("outcome", [None, Outcome.RETRY_LATER])
def test_what_is_published_while_a_repeat_is_read_is_no_rewound_log(outcome: Outcome | None) -> None:
    world, store = slow_world(delivery=SETTINGS)
    attachment, link = attach_slow(world)
    attachment.follow(Subscription("news", "epoch", 0, 0))
    world.settle()
    store.finish("read")
    world.settle()
    world.spawn(publish(world))
    store.finish("append")
    world.settle()
    if outcome is not None:
        attachment.acknowledge("news", 1, outcome)
    world.passes(20.0, attachment)
    reading = store.take("read")
    reading.act()  # as of now
    world.spawn(publish(world))
    store.finish("append")
    world.settle()
    reading.finish()
    world.settle()
    assert link.offsets("news") == [1, 2, 1]
    assert world.metrics.named("positions_lost") == []
    assert attachment.feeds["news"].sent == 2


def test_the_waits_double_up_to_the_longest() -> None:
    patience = Patience(10.0, 40.0, 4, 2)
    assert [patience.after(attempt) for attempt in (1, 2, 3, 4, 1000)] == [10, 20, 40, 40, 40]
    assert Patience(10.0, 5.0, 4, 2).after(1) == 10


def test_what_is_not_answered_in_time_is_written_again_and_nothing_else() -> None:
    world, attachment, link = world_with(3)
    world.passes(9.9, attachment)
    assert link.offsets("device:d") == [1, 2, 3]
    world.passes(0.1, attachment)
    assert link.offsets("device:d") == [1, 2, 3, 1]
    assert world.metrics.named("redelivered") == [("timeout",)]


def test_each_repeat_waits_twice_as_long() -> None:
    world, attachment, link = world_with(1)
    times = []
    for _ in range(61):
        before = len(link.writes)
        world.passes(1.0, attachment)
        if len(link.writes) > before:
            times.append(world.now - 1000.0)
    assert times == [10, 30]


def test_an_answer_to_the_one_in_front_gives_the_next_one_its_own_time() -> None:
    world, attachment, link = world_with(2)
    world.passes(9.0, attachment)
    attachment.acknowledge("device:d", 1, Outcome.PROCESSED)
    world.passes(9.0, attachment)
    assert link.offsets("device:d") == [1, 2]
    world.passes(1.0, attachment)
    assert link.offsets("device:d") == [1, 2, 2]


def test_what_is_answered_in_time_is_never_repeated_and_arms_nothing_new() -> None:
    world, attachment, link = world_with(0)
    for number in range(1, 101):
        world.publish("device:d")
        world.settle()
        attachment.acknowledge("device:d", number, Outcome.PROCESSED)
        world.passes(1.0, attachment)
    assert len(link.writes) == 100
    assert len(link.deadlines) <= 10, "once for each timeout, not for each write"
    world.passes(10.0, attachment)
    assert attachment.deadline == float("inf")


def test_the_repeat_takes_no_room_of_the_window_a_second_time() -> None:
    world = World(delivery=SETTINGS)
    attachment, link = connect(world, messages=2)
    world.publish_many(3, "device:d")
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2, 1]
    attachment.acknowledge("device:d", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("device:d") == [1, 2, 1, 3]
    assert attachment.window()[0] == 2


def test_a_full_send_buffer_puts_the_repeat_off() -> None:
    world, attachment, link = world_with(1)
    link.room = False
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1]
    link.room = True
    attachment.room_again()
    world.settle()
    assert link.offsets("device:d") == [1, 1]


def test_other_channels_are_not_disturbed_by_one_that_does_not_answer() -> None:
    world, attachment, link = world_with(1)
    world.subscribe(attachment, "news")
    world.publish("news")
    world.settle()
    attachment.acknowledge("news", 1, Outcome.PROCESSED)
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 1]
    world.publish("news")
    world.settle()
    assert link.offsets("news") == [1, 2]


def test_a_store_that_is_away_puts_the_repeat_off_until_it_is_back() -> None:
    world, attachment, link = world_with(1)
    available, world.memory.read = world.memory.read, unavailable  # type: ignore[method-assign]  # a fault of the disk
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1]
    world.memory.read = available  # type: ignore[method-assign]
    world.pause()
    assert link.offsets("device:d") == [1, 1]


async def unavailable(*_: object) -> None:
    raise StoreUnavailable("the disk is full")


# --------------------------------------------------------------------------------------------------- no longer to be delivered


def test_what_has_expired_meanwhile_is_passed_over_and_its_room_given_back() -> None:
    world = World(delivery=SETTINGS)
    attachment, link = connect(world, messages=1)
    world.publish("device:d", ttl=5.0)
    world.settle()
    world.publish("device:d")
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2]
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2, 2]


def test_one_behind_another_that_was_recalled_gets_its_own_time() -> None:
    world, attachment, link = world_with(0)
    first = world.publish("device:d")
    world.publish("device:d")
    world.settle()
    world.run(world.memory.recall(first.message_id, "notice", world.wall_ms()))
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2]
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2, 2]


def test_what_left_the_log_is_passed_over_and_still_a_loss_for_the_next_connection() -> None:
    world, attachment, link = world_with(1, limits=StoreConfig(history_messages=1))
    world.publish("device:d")
    world.settle()
    world.passes(10.0, attachment)
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2, 2]
    world.service.detach(attachment, 0, "gone")
    again, _ = world.attach(device("d"))
    assert world.subscribe(again, "device:d").loss is LossReason.TRIMMED


def test_a_log_that_is_gone_is_noticed_by_the_repeat() -> None:
    world, attachment, link = world_with(2)
    lose_log(world, "device:d")
    world.passes(10.0, attachment)
    told = [event[1].loss for event in link.events if event[0] == "repositioned"]
    assert told == [LossReason.EPOCH_CHANGED]
    world.passes(100.0, attachment)
    assert link.offsets("device:d") == [1, 2]


# --------------------------------------------------------------------------------------------------------------- dead letters


def test_after_so_many_deliveries_in_vain_it_is_a_dead_letter_and_the_channel_goes_on() -> None:
    world, attachment, link = world_with(0)
    ids = [world.publish("device:d").message_id for _ in range(2)]
    world.settle()
    for _ in range(115):
        world.passes(1.0, attachment)
    assert link.offsets("device:d")[:5] == [1, 2, 1, 1, 1]
    (letter,) = letters(world)
    assert (letter.publication.message_id, letter.attempts, letter.reason) == (ids[0], 4, NO_ANSWER)
    assert milestones(world, ids[0]) == {Milestone.WRITTEN, Milestone.DEAD_LETTERED}
    assert cursor(world).offset == 1
    assert world.metrics.named("dead_lettered") == [("timeout",)]
    attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
    assert (cursor(world).offset, attachment.window()[0]) == (2, 0)
    assert milestones(world, ids[0]) == {Milestone.WRITTEN, Milestone.DEAD_LETTERED}


def test_attempts_are_stored_when_they_change_and_forgotten_with_an_answer() -> None:
    world, attachment, _ = world_with(1)
    world.passes(10.0, attachment)
    assert cursor(world) == Cursor(cursor(world).epoch, 0, 0, 1)
    attachment.acknowledge("device:d", 1, Outcome.PROCESSED)
    assert cursor(world) == Cursor(cursor(world).epoch, 1, 1, 0)


def test_a_device_that_dies_of_a_message_each_time_gets_what_is_behind_it_in_the_end() -> None:
    world, attachment, _ = world_with(2)
    ids = [world.run(world.memory.message(f"id{number}", 1)) for number in (1, 2)]
    assert all(ids)
    for life in range(1, 5):
        assert cursor(world).attempts == life - 1
        world.service.detach(attachment, 0, "it crashed")
        attachment, link = connect(world)
    assert link.offsets("device:d") == [2]
    assert [letter.publication.offset for letter in letters(world)] == [1]
    assert cursor(world).offset == 1


def test_a_new_process_goes_on_counting() -> None:
    world, attachment, _ = world_with(2)
    for _ in range(3):
        world.service.detach(attachment, 0, "it crashed")
        attachment, _ = connect(world)
    world.service.detach(attachment, 0, "it crashed")
    world.settle()
    other = World(store=world.memory, delivery=SETTINGS)
    other.memory = world.memory
    _, link = connect(other)
    assert link.offsets("device:d") == [2]


def test_a_connection_that_ends_counts_only_for_what_was_in_front_and_not_answered() -> None:
    world, attachment, _ = world_with(2)
    attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
    world.service.detach(attachment, 0, "gone")
    assert cursor(world).attempts == 0
    attachment, _ = connect(world)
    world.publish("device:d")
    world.service.detach(attachment, 0, "gone before it was written")
    assert cursor(world) == Cursor(cursor(world).epoch, 2, 2, 0)


@pytest.mark.parametrize("code", [Code.DRAINING, Code.MAXIMUM_AGE, Code.OVERLOADED])
def test_a_connection_that_the_server_ends_for_its_own_reasons_does_not_count(code: Code) -> None:
    world, attachment, _ = world_with(1)
    world.service.detach(attachment, code, "")
    assert cursor(world).attempts == 0


def test_a_replaced_connection_counts_for_a_device_that_crashed_is_back_before_it_is_missed() -> None:
    world, _, _ = world_with(1)
    connect(world)
    assert cursor(world).attempts == 1


def test_attempts_of_one_that_is_gone_are_not_held_against_the_next() -> None:
    world, attachment, _ = world_with(0)
    first = world.publish("device:d")
    world.settle()
    for _ in range(4):
        world.service.detach(attachment, 0, "it crashed")
        if cursor(world).attempts == 4:
            break
        attachment, _ = connect(world)
    world.run(world.memory.recall(first.message_id, "notice", world.wall_ms()))
    world.publish("device:d")
    attachment, link = connect(world)
    assert link.offsets("device:d") == [2, 3]
    assert letters(world) == []


def test_attempts_belong_to_what_is_behind_a_hole_in_the_log() -> None:
    world = World(delivery=SETTINGS)
    attachment, _ = connect(world)
    world.service.detach(attachment, 0, "")
    world.publish("device:d", ttl=1.0)
    world.publish("device:d")
    world.publish("device:d")
    world.now += 2
    for _ in range(5):
        attachment, link = connect(world)
        world.service.detach(attachment, 0, "it crashed")
    assert link.offsets("device:d") == [3]
    assert [letter.publication.offset for letter in letters(world)] == [2]


def test_attempts_behind_a_loss_do_not_hide_it() -> None:
    world, attachment, _ = world_with(1, limits=StoreConfig(history_messages=2))
    world.service.detach(attachment, 0, "")
    for _ in range(3):
        world.publish("device:d")
    for _ in range(2):
        attachment, link = world.attach(device("d"))
        assert world.subscribe(attachment, "device:d").loss is LossReason.TRIMMED
        world.settle()
        assert link.offsets("device:d") == [3, 4]
        world.service.detach(attachment, 0, "it never heard of it")
        world.settle()
    attachment, _ = connect(world)
    attachment.acknowledge("device:d", 3, Outcome.PROCESSED)
    world.service.detach(attachment, 0, "it has heard")
    world.settle()
    attachment, _ = world.attach(device("d"))
    assert world.subscribe(attachment, "device:d").recovered


# --------------------------------------------------------------------------------------------------------------- retry later


def test_what_the_device_wants_later_comes_again_on_the_same_connection() -> None:
    world, attachment, link = world_with(3)
    attachment.acknowledge("device:d", 2, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 3, Outcome.PROCESSED)
    world.passes(9.9, attachment)
    assert link.offsets("device:d") == [1, 2, 3]
    world.passes(0.1, attachment)
    assert link.offsets("device:d") == [1, 2, 3, 2]
    assert world.metrics.named("redelivered") == [("retry_later",)]
    assert (cursor(world).offset, cursor(world).attempts) == (1, 1)
    attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
    assert (cursor(world).offset, cursor(world).attempts, attachment.window()[0]) == (3, 0, 0)


def test_a_dead_letter_is_a_line_in_the_log_without_its_payload() -> None:
    world = World(delivery=SETTINGS)
    attachment, _ = world.follower("d", "news")
    world.publish("news", b"poison")
    world.settle()
    with capturedLogs() as lines:
        for _ in range(SETTINGS.max_attempts):
            world.now += 100
            attachment.tick(world.now)
            world.settle()
    texts = [formatEvent(line) for line in lines]
    assert texts == ["dead letter of d: message id1, offset 1 of news, 4 deliveries: not acknowledged"]


def test_the_line_of_a_dead_letter_names_the_message_also_if_the_first_answer_made_it() -> None:
    world = World(delivery=DeliveryConfig(max_attempts=1))
    attachment, _ = world.follower("d", "news")
    world.publish_many(3, "news")
    with capturedLogs() as lines:
        attachment.acknowledge("news", 2, Outcome.RETRY_LATER)
        world.settle()
    texts = [formatEvent(line) for line in lines]
    assert texts == ["dead letter of d: message id2, offset 2 of news, 1 deliveries: the device could not take it"]


def test_the_line_of_a_dead_letter_whose_log_is_gone_names_no_message() -> None:
    world = World(limits=StoreConfig(history_messages=1))
    epoch = world.run(world.memory.head("news")).epoch
    for _ in range(3):
        world.publish("news")
    with capturedLogs() as lines:
        for failed in (Undeliverable("d", "news", epoch, 1, 4, "why", 1), Undeliverable("d", "news", "other", 3, 4, "why", 1)):
            world.service._cursors.undeliverable(failed)
        world.settle()
    assert [line["message_id"] for line in lines] == ["unknown", "unknown"]


def test_each_retry_later_waits_twice_as_long_and_the_last_one_makes_a_dead_letter() -> None:
    world, attachment, link = world_with(2)
    waits = []
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    since = world.now
    for _ in range(75):
        before = len(link.writes)
        world.passes(1.0, attachment)
        if len(link.writes) > before and link.frames[-1].offset == 1:
            waits.append(world.now - since)
            attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
            attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
            since = world.now
    assert waits == [10, 20, 40]
    (letter,) = letters(world)
    assert (letter.publication.offset, letter.attempts, letter.reason) == (1, 4, RETRY_LATER)
    assert cursor(world).offset == 2
    assert world.metrics.named("dead_lettered") == [("retry_later",)]


def test_a_held_one_that_is_out_and_not_answered_is_written_again() -> None:
    world, attachment, link = world_with(1)
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    world.passes(10.0, attachment)
    world.passes(20.0, attachment)
    assert link.offsets("device:d") == [1, 1, 1]
    assert attachment.window()[0] == 1
    for _ in range(85):
        world.passes(1.0, attachment)
    assert [letter.reason for letter in letters(world)] == [NO_ANSWER]
    assert attachment.window()[:2] == (0, 0)


def test_a_held_one_waits_for_room_in_the_window() -> None:
    world = World(delivery=SETTINGS, encoder=fixed)
    attachment, link = connect(world, size=2 * FRAME)
    for _ in range(3):
        world.publish("device:d")
        world.settle()
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    world.settle()
    assert link.offsets("device:d") == [1, 2, 3]
    world.passes(9.0, attachment)
    attachment.acknowledge("device:d", 2, Outcome.DELIVERED)
    world.publish("device:d")
    world.settle()
    world.passes(1.0, attachment)
    assert link.offsets("device:d") == [1, 2, 3, 4], "3 and 4 fill it"
    attachment.acknowledge("device:d", 3, Outcome.DELIVERED)
    world.settle()
    assert link.offsets("device:d") == [1, 2, 3, 4, 1]
    assert attachment.window()[:2] == (2, 2 * FRAME)


def test_a_held_one_that_is_recalled_does_not_come_again() -> None:
    world, attachment, link = world_with(0)
    first = world.publish("device:d")
    world.publish("device:d")
    world.settle()
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
    world.run(world.memory.recall(first.message_id, "notice", world.wall_ms()))
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2]
    assert cursor(world).offset == 2
    assert milestones(world, first.message_id) == {Milestone.WRITTEN}


def test_what_is_done_around_a_held_one_that_is_recalled_keeps_its_receipt() -> None:
    world, attachment, _ = world_with(0)
    messages = [world.publish("device:d").message_id for _ in range(6)]
    world.settle()
    for offset, outcome in ((1, Outcome.RETRY_LATER), (3, Outcome.RETRY_LATER), (6, Outcome.DELIVERED)):
        attachment.acknowledge("device:d", offset, outcome)
    world.run(world.memory.recall(messages[2], "notice", world.wall_ms()))
    world.passes(10.0, attachment)
    attachment.acknowledge("device:d", 1, Outcome.DELIVERED)
    world.settle()
    assert cursor(world).offset == 6
    delivered = [Milestone.DELIVERED in milestones(world, message_id) for message_id in messages]
    assert delivered == [True, True, False, True, True, True]


def test_a_held_one_that_leaves_the_log_is_a_loss_that_is_named_and_the_others_come_again() -> None:
    world, attachment, link = world_with(3, limits=StoreConfig(history_messages=3))
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 2, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 3, Outcome.PROCESSED)
    world.publish("device:d")
    world.settle()
    world.passes(10.0, attachment)
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert [(one.loss, one.offset, one.lost_at_most) for one in told] == [(LossReason.TRIMMED, 1, 1)]
    assert link.offsets("device:d") == [1, 2, 3, 2, 3, 4], "4 waited while as much was held as may be"
    assert cursor(world).offset == 0, "the device may never hear of the loss on this connection"
    attachment.acknowledge("device:d", 4, Outcome.PROCESSED)
    assert cursor(world).offset == 4
    assert attachment.window()[:2] == (0, 0)


def test_a_feed_that_falls_behind_the_log_loses_what_is_held_as_well() -> None:
    world, attachment, link = world_with(1, limits=StoreConfig(history_messages=2))
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    link.room = False
    world.publish_many(4, "device:d")
    link.room = True
    attachment.room_again()
    world.settle()
    told = [event[1] for event in link.events if event[0] == "repositioned"]
    assert [(one.loss, one.offset, one.lost_at_most) for one in told] == [(LossReason.TRIMMED, 3, 3)]
    assert link.offsets("device:d") == [1, 4, 5]
    world.passes(10.0, attachment)
    assert attachment.feeds["device:d"].held == {}


def test_an_answer_that_was_under_way_when_delivery_began_anew_is_ignored() -> None:
    world, attachment, link = world_with(4, limits=StoreConfig(history_messages=2))
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 4, Outcome.PROCESSED)
    attachment.credit(1, 0)
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2, 3, 4, 3], "there is room for one at a time"
    attachment.acknowledge("device:d", 4, Outcome.PROCESSED)
    assert cursor(world).offset == 0
    assert world.metrics.named("acknowledgement_ignored") == [("older",)]
    with pytest.raises(Refused):
        attachment.acknowledge("device:d", 5, Outcome.PROCESSED)


def test_the_channel_waits_when_too_much_is_held_and_goes_on_when_one_is_answered() -> None:
    world, attachment, link = world_with(3)
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 2, Outcome.RETRY_LATER)
    world.publish("device:d")
    world.settle()
    assert link.offsets("device:d") == [1, 2, 3]
    attachment.acknowledge("device:d", 3, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("device:d") == [1, 2, 3]
    attachment.acknowledge("device:d", 1, Outcome.PROCESSED)
    world.settle()
    assert link.offsets("device:d") == [1, 2, 3, 4]
    assert cursor(world).offset == 1


def test_a_channel_that_waits_goes_on_behind_dead_letters() -> None:
    world, attachment, link = world_with(3)
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 2, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 3, Outcome.PROCESSED)
    world.publish("device:d")
    for _ in range(200):
        world.passes(1.0, attachment)
    assert {letter.publication.offset for letter in letters(world)} >= {1, 2}
    assert 4 in link.offsets("device:d")


def test_more_than_the_limit_may_be_held_of_what_was_under_way_and_none_is_forgotten() -> None:
    world, attachment, link = world_with(5)
    for offset in range(1, 6):
        attachment.acknowledge("device:d", offset, Outcome.RETRY_LATER)
    world.passes(10.0, attachment)
    assert link.offsets("device:d") == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
    for offset in (3, 1, 5, 2, 4):
        attachment.acknowledge("device:d", offset, Outcome.PROCESSED)
    assert (cursor(world).offset, attachment.window()[:2]) == (5, (0, 0))
    world.publish("device:d")
    world.settle()
    assert link.offsets("device:d")[-1] == 6


def test_what_is_held_begins_anew_on_the_next_connection_with_its_attempts() -> None:
    world, attachment, _ = world_with(2)
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    attachment.acknowledge("device:d", 2, Outcome.PROCESSED)
    world.service.detach(attachment, 0, "gone while it waits: no attempt")
    assert cursor(world).attempts == 1
    attachment, link = connect(world)
    assert link.offsets("device:d") == [1, 2]
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    assert cursor(world).attempts == 2
    world.passes(20.0, attachment)
    world.service.detach(attachment, 0, "gone while it is out")
    assert cursor(world).attempts == 3


def test_the_server_s_own_watch_is_neither_repeated_nor_remembered() -> None:
    world = World(delivery=SETTINGS)
    link = RecordingLink()
    watch = world.run(world.service.watch(Principal("probe", "$probe"), "$probe/n", link, ConnectionInfo("s", "", 10, 10_000)))
    world.settle()
    assert (watch.deadline, world.run(world.memory.cursors("$probe"))) == (float("inf"), {})


def test_what_goes_on_is_described() -> None:
    world, attachment, _ = world_with(3)
    attachment.acknowledge("device:d", 1, Outcome.RETRY_LATER)
    world.passes(4.0, attachment)
    (row,) = attachment.statuses()
    assert (row.acknowledged, row.sent, row.unacknowledged, row.held, row.attempts) == (0, 3, 2, 1, 1)
    assert (row.live, row.unanswered_for, row.next_attempt_in, row.redeliveries) == (True, 4.0, 6.0, 0)
    world.passes(6.0, attachment)
    (row,) = attachment.statuses()
    assert row.redeliveries == 2
